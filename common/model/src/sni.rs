//! The names under which the edge passes TLS through to a service.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::sync::Arc;

use serde::Serialize;

use super::route::{HostPattern, MAX_ROUTES};

/// A name that TLS cannot be passed through by, or one too many.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SniError {
    /// A ClientHello names no addresses. Source: RFC 6066 section 3.
    #[error("{0} is an address, and a client names only names")]
    Address(HostPattern),
    /// More than [`MAX_ROUTES`].
    #[error("{0} is one too many: TLS is passed through by {MAX_ROUTES} names of a backend at most")]
    TooMany(HostPattern),
}

/// The names (SNI) of TLS that a backend wants to have as it comes, with its own certificate behind it: sorted, each once,
/// [`MAX_ROUTES`] at most. Shared, so that copies cost nothing.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct SniNames(Arc<[HostPattern]>);

impl SniNames {
    /// The names, and those that are left out.
    pub fn new(given: impl IntoIterator<Item = HostPattern>) -> (Self, Vec<SniError>) {
        let (mut names, mut left_out) = (Vec::<HostPattern>::new(), Vec::new());
        for name in given {
            if name.as_str().parse::<Ipv4Addr>().is_ok() {
                left_out.push(SniError::Address(name));
            } else if names.contains(&name) {
            } else if names.len() == MAX_ROUTES {
                left_out.push(SniError::TooMany(name));
            } else {
                names.push(name);
            }
        }
        names.sort();
        (Self(names.into()), left_out)
    }
}

impl Deref for SniNames {
    type Target = [HostPattern];
    fn deref(&self) -> &[HostPattern] {
        &self.0
    }
}

impl fmt::Debug for SniNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_each_once_and_bounded_and_no_addresses() {
        let names = |texts: &[&str]| SniNames::new(texts.iter().map(|text| text.parse().unwrap()));
        let (found, left_out) = names(&["b.example", "10.0.0.5", "*.a.example", "B.example."]);
        assert_eq!(found.iter().map(HostPattern::as_str).collect::<Vec<_>>(), ["*.a.example", "b.example"]);
        assert_eq!(
            left_out.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.5 is an address, and a client names only names"]
        );
        let many: Vec<String> = (0..MAX_ROUTES + 2).map(|n| format!("h{n}.example")).collect();
        let (found, left_out) = names(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((found.len(), left_out.len()), (MAX_ROUTES, 2));
    }
}
