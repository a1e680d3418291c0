//! haproxy.cfg as a value: what is desired.
//!
//! | module | what it holds | I/O |
//! |---|---|---|
//! | [`settings`], [`stats`] | what the operator decides | users' file only |
//! | [`ports`] | service ports, their pools, and why there are none | no |
//! | [`wishes`] | which ports the backends of a service ask for | no |
//! | [`assign`] | which service listens on which port | no |
//! | [`followed`] | changes of pools that change no port | no |
//! | [`tenants`] | who has which port, over restarts too | no |
//! | [`published`] | the ports that containers of this host publish | no |
//! | [`binds`] | which of those ports can be opened | test-binds only |
//! | [`desk`] | everything that a file is composed with | look-ups, test-binds |
//! | [`composing`] | in whose way the file is composed | no |
//! | [`compose`] | services as sections | no |
//! | `members` | the servers of a section | no |
//! | [`checking`] | how often servers are checked | no |
//! | [`ids`], [`numbers`], [`known`] | ids of servers, and who has them in HAProxy | no |
//! | [`synapse`] | services as sections, in Synapse's way | no |
//! | [`edge`] | the HTTP edge: its frontend, sections and rules | no |
//! | [`layout`], [`server`] | haproxy.cfg, written and read back | no |
//! | [`names`], [`places`] | names of sections and servers, made from the registry's | no |
//! | [`silence`] | how long a host may be silent before its connections end | no |
//! | [`loops`] | servers that would be HAProxy itself | own addresses only |
//! | [`lingering`] | sections that outlive their service for a while | no |

pub mod assign;
pub mod binds;
pub mod checking;
pub mod compose;
pub mod composing;
pub mod desk;
pub mod edge;
pub mod followed;
pub mod ids;
pub mod known;
pub mod layout;
pub mod lingering;
pub mod loops;
mod members;
pub mod names;
pub mod numbers;
pub mod places;
pub mod ports;
pub mod published;
pub mod server;
pub mod settings;
pub mod silence;
pub mod stats;
pub mod synapse;
pub mod tenants;
pub mod wishes;
