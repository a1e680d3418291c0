//! The words of haproxy.cfg: addresses to bind, and what registrations and registries may say.
//!
//! | module | what it holds |
//! |---|---|
//! | [`bind`] | the addresses of `bind` lines |
//! | `keywords` | HAProxy's server keywords: what follows each, and which a registration may not use |
//! | [`lines`] | the lines of a section from the registry: a list of directives that stay within it |
//! | [`options`] | the words of a server line: a closed grammar, and the normal form that is written |
//! | [`template`] | `%{host}`, `%{port}` and `%{name}` in them |

pub mod bind;
mod keywords;
pub mod lines;
pub mod options;
pub mod template;
