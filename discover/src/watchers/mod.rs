//! Sources of pools.
//!
//! A kind of watcher is one file here (or in `common`, where others need it too) with a [`Method`], and one line in the
//! list of [`methods`]: the file says what the config's keys mean and makes the watcher. What all of them
//! need is here once:
//!
//! | module | what it holds |
//! |---|---|
//! | `method` | the seam: what a method is asked, what it makes, what all of them share |
//! | `methods` | the methods by their words |
//! | `configured` | the watchers that a config asks for |
//! | `aws` | signed requests to AWS, with the standard credential chain |
//! | `daemon` | one Docker daemon, for all services that look at it |
//! | `group` | watchers side by side, as one |
//! | `findings` | registrations → one service's pool, each bad one left out alone |
//! | `poll` | a look that is repeated (period, jitter, back-off, patience, signals in between) as a watcher |
//! | `teller` | answers → snapshots, where something has changed |

pub mod aws;
pub mod base;
mod configured;
mod daemon;
pub mod dns;
pub mod docker_hosts;
pub mod ec2tag;
pub mod etcd;
pub mod file;
pub mod findings;
pub mod group;
pub mod marathon;
pub mod method;
pub mod methods;
pub mod multi;
pub mod poll;
pub mod teller;
pub mod zookeeper;

pub use crate::client::docker;
pub use configured::{Configured, ConfiguredError, configured, judged};
pub use method::{About, AnyError, AnyWatcher, BoxWatcher, Context, Fault, Faults, Method, MethodInput};
