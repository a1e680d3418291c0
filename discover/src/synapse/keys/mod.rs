//! Every key of the config: one table, from which come the checks, the JSON Schema and the reference in the docs.
//!
//! | module | what it holds |
//! |---|---|
//! | `root` | the whole file |
//! | `service` | a service, and its default servers |
//! | `discovery` | where its backends come from |
//! | `edge` | the HTTP edge |
//! | `haproxy` | haproxy's own section, and a service's part of it |
//! | `generators` | the same of the other generators |

mod discovery;
mod edge;
mod generators;
mod haproxy;
mod root;
mod service;

pub use discovery::{DISCOVERY, METHODS};
pub use edge::EDGE;
pub use generators::SERVICE_NGINX;
pub use haproxy::{HAPROXY, SERVICE_HAPROXY};
pub use root::ROOT;
pub use service::SERVICE;

pub use agent::config::table::{Key, Kind, Origin};

agent::keys_of! { key: Synapse, ours: Ours, fork: Fork, nginx: SynapseNginx }

const ANY_NUMBER: Kind = Kind::Whole { min: i64::MIN, max: i64::MAX };
const NATURAL: Kind = Kind::Whole { min: 0, max: i64::MAX };
const SERVER_ID: Kind = Kind::Whole { min: 1, max: 2_147_483_647 };
const PORT_NUMBER: Kind = Kind::Whole { min: 1, max: 65_535 };
