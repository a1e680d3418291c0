//! Under construction.

pub mod haproxy;
