//! HAProxy: haproxy.cfg on disk and the process that runs it, kept at the desired state.
//!
//! | room | what it holds |
//! |---|---|
//! | [`file`](mod@file) | haproxy.cfg as a value: what is desired |
//! | [`turn`] | what runs, and the way from there to what is desired |
//!
//! `turn` knows `file`, and `file` nothing of `turn`.

pub mod file;
pub mod turn;

pub use turn::generator::Haproxy;
