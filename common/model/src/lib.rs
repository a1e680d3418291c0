//! Services, pools, backends and their names: values only, no I/O, no clock.
//!
//! Everything that comes from outside (a registry key, a label, a config file) is parsed into these types once, at
//! the edge. After that nothing in it can add a line to a config, a word to a socket command or a tag to a page.

#![warn(missing_docs)]

mod backend;
mod codec;
pub mod desired;
mod keys;
mod names;
mod pattern;
mod pool;
mod route;
mod shared_map;
mod sni;

pub use backend::{Backend, Mode, Status, Transport, Weight, WeightError};
pub use codec::{DecodeError, Decoded, MAX_VALUE_BYTES, ValueFormat, decode, encode};
pub use keys::{KeyError, Layout, ParsedKey, Prefix, PrefixError};
pub use names::{BackendId, Host, HostError, NameError, NodeName, Port, ServiceName};
pub use pattern::Pattern;
pub use pool::{Change, InOrder, Pool, ServiceMap, diff, replay};
pub use route::{HostPattern, MAX_ROUTES, PathPrefix, Route, RouteError, Routes};
pub use shared_map::SharedMap;
pub use sni::{SniError, SniNames};
