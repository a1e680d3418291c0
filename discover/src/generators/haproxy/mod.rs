//! HAProxy: haproxy.cfg on disk and the process that runs it, kept at the desired state.
//!
//! | room | what it holds |
//! |---|---|
//! | [`file`](mod@file) | haproxy.cfg as a value: what is desired |
//! | [`turn`] | what runs, and the way from there to what is desired |
//! | [`traffic`] | what HAProxy itself says of the services: who can take a request, and what it counted |
//!
//! `turn` knows `traffic` and `file`, `traffic` knows `file`, and `file` nothing of them.

pub mod file;
pub mod traffic;
pub mod turn;

pub use turn::generator::Haproxy;
