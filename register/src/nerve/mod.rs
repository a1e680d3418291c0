//! Services without Docker, as Nerve's config has them: read, checked, and published where it says.
//!
//! | module | what it holds | may do I/O |
//! |---|---|---|
//! | [`config`] | Nerve's config → checked config | reads files |
//! | [`services`] | those services at work: checked, published, replaced | dials |
//! | [`reporters`] | where services are published: etcd, ZooKeeper | by reporter |
//! | [`statsd`] | counts as Nerve sent them | UDP |
//!
//! The rule: nothing outside of this room knows Nerve, but for the commands that start it and `own`, which borrows its checks.

pub mod config;
pub mod reporters;
pub mod services;
pub mod statsd;
