//! What both agents share.
//!
//! | module | what it holds | may do I/O |
//! |---|---|---|
//! | [`model`] | services, backends, pools, their names and their form in the registry | no |
//! | [`desired`] | containers × health × settings → registrations, each with its reason | no |
//! | [`watch`] | the seam between a source of pools and whoever uses them | no |
//! | [`containers`] | Docker's containers: what runs, whether it works, and what is to be published of it | yes |
//! | [`store`] | the registry: etcd, and one in memory (feature `testing`) | yes |
//! | [`zookeeper`] | ZooKeeper's sessions, for watchers and reporters | yes |
//! | [`registry`] | the registry's keys as pools, kept current | by way of `store` |
//! | [`client`] | live backends for programs: a view, or every change, from etcd or from Docker | by way of both |
//! | [`environment`] | what the programs that an agent starts may know | the environment |
//! | [`program`] | a child program: the signals passed to it, the status it leaves | yes |
//! | [`admin`] | the admin server: metrics, health, status, events | yes |
//! | [`config`] | config files of Synapse's and Nerve's making, read whole | reads files |
//! | [`backoff`], [`debounce`] | when to try again, when to act | time only |
//! | [`lifecycle`] | owned tasks, one cancellation root, signals | yes |
//! | [`telemetry`] | logs, error chains, metrics registry | yes |
//! | [`trouble`] | what was said of a fault that lasts | no |
//! | [`files`] | atomic replacement of a file | yes |
//! | [`clock`], [`sync`] | the wall clock since 1970, a mutex without poison | the clock |
//! | [`hostip`] | the address under which other hosts reach this one | yes |
//! | `testing` | real daemons for tests (feature `testing`) | yes |
//! | [`tls`] | the process's TLS implementation | no |
//!
//! The rule: `model` and `desired` name neither tokio nor I/O (a test enforces it).

pub mod admin;
pub mod backoff;
pub mod client;
pub mod clock;
pub mod config;
pub mod containers;
pub mod debounce;
pub mod desired;
pub mod environment;
pub mod files;
pub mod hostip;
pub mod lifecycle;
pub mod model;
pub mod program;
pub mod registry;
pub mod store;
pub mod sync;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tls;
pub mod trouble;
pub mod watch;
pub mod zookeeper;
