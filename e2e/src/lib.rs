//! The lab: real Docker, etcd, HAProxy and both agents, started and cleaned up by whoever holds them.
//!
//! | part | what it gives |
//! |---|---|
//! | [`lab`] | one run: a directory, a mark on everything it starts, sweeping up after itself and after dead runs |
//! | [`process`] | a child process with its log |
//! | [`memory`] | a memory limit for such a process |
//! | [`agents`] | `register` and `discover` as processes, and what their admin servers tell |
//! | [`clock`] | a clock of the day for the agents, which jumps |
//! | [`docker`] | containers of ours, and the daemon's events with the daemon's clock |
//! | [`flock`] | many containers of a scripted Docker API, with real listeners |
//! | [`haproxy`] | the HAProxy versions of this machine |
//! | [`scene`] | all of these together, on loopback |
//! | [`hosts`] | all of these on hosts of their own, with links that break |
//! | [`http`], [`traffic`] | a client that never retries, and load made of such clients |
//! | [`registrars`] | many backends, and agents of this process that answer for them in a real etcd |
//! | [`random`] | chance that repeats itself |
//! | [`server`] | a backend in this process |
//! | [`browser`] | Chromium without a window |
//! | [`soak`] | load, life and faults for as long as one likes, and what is held meanwhile |
//! | [`forwarder`] | a link that delays, cuts, hangs, or passes one direction only |
//! | [`stage`], [`witness`] | both agents around real etcd and HAProxy without Docker, under load; what HAProxy routes wrongly, and for how long |
//! | [`wait`] | a predicate with a deadline |
//! | [`terminal`], [`figures`], [`plot`] | what `demo` and `bench` print and draw |
//!
//! Its rule: only towards loopback and the hosts that it made itself, and only what bears its own mark is ever ended or removed. etcd comes from
//! [`testing::etcd`].

pub mod agents;
pub mod browser;
pub mod clock;
pub mod docker;
pub mod error;
pub mod figures;
pub mod flock;
pub mod forwarder;
pub mod given;
pub mod haproxy;
pub mod hosts;
pub mod http;
pub mod lab;
pub mod memory;
pub mod plot;
pub mod process;
pub mod random;
pub mod registrars;
pub mod scene;
pub mod server;
pub mod soak;
pub mod stage;
pub mod terminal;
pub mod traffic;
pub mod wait;
pub mod witness;

pub use error::{Context, LabError, Result};
pub use lab::{Lab, in_lab};
pub use testing::etcd::Etcd;
pub use testing::free_port;
