//! Which HAProxy this is, and what it can do.
//!
//! Every difference between versions that the rest of the program cares about is a field of [`Capabilities`]: nothing else compares
//! versions. Facts: measured on 2.6.12, 3.0.11, 3.2.0, 3.4.0 and 3.4.7; `docs/` has the table.

use std::fmt;
use std::str::FromStr;

/// A HAProxy version, ordered by its numbers; a suffix such as `-1+deb12u4` or `-dev7` is kept for display only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The first number.
    pub major: u16,
    /// The second number: with `major` it names the branch.
    pub minor: u16,
    /// The third number, 0 where there is none (a development version).
    pub patch: u16,
    text: String,
}

/// The text names no HAProxy version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no HAProxy version in {0:?}")]
pub struct VersionError(String);

impl Version {
    /// The oldest that is supported: what is assumed of a HAProxy that has not said its version yet.
    pub const OLDEST: Self = Self { major: 2, minor: 6, patch: 0, text: String::new() };

    /// Finds the version in the output of `haproxy -v`, `show version` or `show info`, or in a bare version such as `3.0.11-1+deb13u5`.
    ///
    /// # Errors
    /// [`VersionError`] when there is none.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        // `show info`: "Version: 2.6.12-…"; `-v`: "HAProxy version 2.6.12-… 2026/10/17 - …" (before 2.4: "HA-Proxy version …").
        let word_after = |mark: &str| text.find(mark).and_then(|at| text[at + mark.len()..].split_whitespace().next());
        let word =
            word_after("Proxy version ").or_else(|| word_after("Version:")).or_else(|| text.split_whitespace().next());
        word.and_then(|w| w.parse().ok()).ok_or_else(|| VersionError(text.chars().take(200).collect()))
    }

    /// `(major, minor)`, which is what capabilities depend on.
    pub fn branch(&self) -> (u16, u16) {
        (self.major, self.minor)
    }

    fn at_least(&self, major: u16, minor: u16) -> bool {
        self.branch() >= (major, minor)
    }

    /// Known faults of exactly this version that an operator should hear about; empty for most versions.
    ///
    /// Distributions backport fixes without changing the number, so this is a warning and never a refusal.
    pub fn known_faults(&self) -> Vec<&'static str> {
        KNOWN_FAULTS
            .iter()
            .filter(|f| f.branch == self.branch() && (f.patches.0..=f.patches.1).contains(&self.patch))
            .map(|f| f.what)
            .collect()
    }
}

impl FromStr for Version {
    type Err = VersionError;
    fn from_str(word: &str) -> Result<Self, VersionError> {
        let bad = || VersionError(word.to_owned());
        let numbers = word.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default();
        let mut parts = numbers.split('.').map(str::parse::<u16>);
        let mut next = || parts.next().transpose().map_err(|_| bad());
        let (major, minor, patch) = (next()?.ok_or_else(bad)?, next()?.ok_or_else(bad)?, next()?.unwrap_or(0));
        Ok(Self { major, minor, patch, text: word.to_owned() })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.branch(), self.patch, &self.text).cmp(&(other.branch(), other.patch, &other.text))
    }
}

struct Fault {
    branch: (u16, u16),
    patches: (u16, u16),
    what: &'static str,
}

/// Faults that touch availability. Sources: HAProxy's CVE announcements and the issues named.
const KNOWN_FAULTS: &[Fault] = &[
    Fault {
        branch: (2, 9),
        patches: (0, 9),
        what: "CVE-2024-45506: an endless loop in HTTP/2 can be caused from outside",
    },
    Fault {
        branch: (3, 0),
        patches: (0, 3),
        what: "CVE-2024-45506: an endless loop in HTTP/2 can be caused from outside",
    },
    Fault {
        branch: (3, 2),
        patches: (6, 8),
        what: "haproxy#3360: leastconn with servers disabled and enabled again can abort; prefer roundrobin",
    },
    Fault { branch: (2, 6), patches: (0, u16::MAX), what: DEL_SERVER_FAULT },
    Fault { branch: (2, 7), patches: (0, u16::MAX), what: DEL_SERVER_FAULT },
    Fault { branch: (2, 8), patches: (0, u16::MAX), what: DEL_SERVER_FAULT },
];

/// Upstream fix 95c4d2482 (2.9-dev6); in which point releases of the older branches it landed was not checked.
const DEL_SERVER_FAULT: &str = "haproxy#2323: deleting a server while requests retry on it can abort the whole process; servers are left in maintenance instead";

/// What a version can do; one field for each difference that discover acts on. Others: docs/haproxy.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// `add server` and `del server` exist without experimental mode (2.6).
    pub add_server: bool,
    /// `del server` cannot take the process down: below 3.0 servers stay in maintenance until a reload collects them (haproxy#2323).
    pub del_server: bool,
    /// `add server … cookie VALUE` is accepted (3.0); before, it is refused.
    pub cookie_in_add_server: bool,
    /// A server added to a section with dynamic cookies has one at once (3.0); before, `enable dynamic-cookie` must be said again.
    pub dynamic_cookie_in_add_server: bool,
    /// Dynamic servers never reuse a connection unless given `pool-purge-delay 5s pool-max-conn 100` (fixed in 3.0-dev5).
    pub needs_pool_settings: bool,
    /// The master CLI's `reload` answers with its outcome (2.7); before, `show proc` must be polled.
    pub sync_reload: bool,
    /// `add backend`, `publish backend`, `del backend` (3.4): sections come from named `defaults` and go without a reload.
    pub add_backend: bool,
    /// A frontend and a backend may have one name: refused from 3.3 on.
    pub shared_names: bool,
}

impl Capabilities {
    /// The table.
    pub fn of(v: &Version) -> Self {
        Self {
            add_server: v.at_least(2, 6),
            del_server: v.at_least(3, 0),
            cookie_in_add_server: v.at_least(3, 0),
            dynamic_cookie_in_add_server: v.at_least(3, 0),
            needs_pool_settings: !v.at_least(3, 0),
            sync_reload: v.at_least(2, 7),
            add_backend: v.at_least(3, 4),
            shared_names: !v.at_least(3, 3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn a_version_is_found_in_each_of_haproxys_forms() {
        let forms = [
            "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\nStatus: long-term",
            "2.6.12-1+deb12u4\n\n",
            "Name: HAProxy\nVersion: 2.6.12-1+deb12u4\nRelease_date: 2026/10/17\n",
        ];
        for form in forms {
            assert_eq!(v(form).to_string(), "2.6.12-1+deb12u4", "{form}");
            assert_eq!((v(form).branch(), v(form).patch), ((2, 6), 12));
        }
        assert_eq!(v("HA-Proxy version 2.2.9-2 2020/07/31").branch(), (2, 2));
        assert_eq!(v("3.5-dev2-a1b2c3").branch(), (3, 5));
        assert!(v("3.0.11") > v("3.0.3") && v("2.9.9") < v("3.0.0") && v("2.10.0") > v("2.9.9"));
    }

    #[test]
    fn what_is_no_version_is_an_error_that_shows_it() {
        for text in ["", "Unknown command: 'show'", "nginx version: nginx/1.26", "3", "99999999.1"] {
            assert!(Version::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_table_follows_the_branches() {
        let on = |text: &str| Capabilities::of(&v(text));
        let old = on("2.6.12");
        assert!(old.add_server && !old.del_server && !old.cookie_in_add_server && !old.sync_reload);
        assert!(old.needs_pool_settings);
        let lts = on("3.0.11");
        assert!(lts.del_server && lts.cookie_in_add_server && lts.sync_reload);
        assert!(!lts.needs_pool_settings && !lts.add_backend);
        assert!(!on("3.2.0").add_backend && on("3.4.0").add_backend);
        assert!(on("3.2.0").shared_names && !on("3.3.0").shared_names);
        assert!(!on("2.8.16").del_server && on("2.7.0").sync_reload);
        assert!(!on("2.4.0").add_server);
    }

    #[test]
    fn known_bad_versions_are_named() {
        assert!(v("3.0.3").known_faults()[0].contains("CVE-2024-45506"));
        assert!(v("3.0.11").known_faults().is_empty());
        assert!(v("2.6.12").known_faults()[0].contains("haproxy#2323"));
    }
}
