//! Under which host and path the HTTP edge reaches a service.
//!
//! Whatever is in a [`Route`] is safe in a map file, a socket command, an HTML page and a log: hosts have the characters of a
//! host name, paths those of [`PathPrefix`], and nothing else in it is text.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use super::names::{excerpt, is_host_name, text_type};

/// The most bytes of a path.
const MAX_PATH: usize = 256;
/// The most routes of one backend.
pub const MAX_ROUTES: usize = 32;

/// A text that is no part of a route, or one route too many.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Not a host.
    #[error("host {0:?} is not a host name (RFC 1123, without a port), nor one behind \"*.\"")]
    Host(String),
    /// Not a path.
    #[error(
        "path {0:?} is not 1 to {MAX_PATH} bytes of letters, digits, / and -._~!*+,:=@%XX that begin with /, without \"..\""
    )]
    Path(String),
    /// The same host and path again.
    #[error("{0} is there already")]
    Twice(Route),
    /// More than [`MAX_ROUTES`].
    #[error("{0} is one too many: a backend has {MAX_ROUTES} routes at most")]
    TooMany(Route),
}

/// A host name or IPv4 address as in a request's Host header, in lower case and without a port; or `*.` and a name, which stands
/// for every host with one or more labels before that name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPattern(Arc<str>);
text_type!(HostPattern);

impl HostPattern {
    /// Of a wildcard the name behind `*.`.
    pub fn wildcard(&self) -> Option<&str> {
        self.0.strip_prefix("*.")
    }

    /// Whether a request's host (lower case, no port, no final dot) is meant.
    pub fn covers(&self, host: &str) -> bool {
        match self.wildcard() {
            Some(name) => host.strip_suffix(name).is_some_and(|front| front.len() > 1 && front.ends_with('.')),
            None => host == self.as_str(),
        }
    }
}

impl FromStr for HostPattern {
    type Err = RouteError;
    fn from_str(text: &str) -> Result<Self, RouteError> {
        let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let valid = match lower.strip_prefix("*.") {
            Some(name) => lower.len() <= 253 && is_host_name(name),
            None => is_host_name(&lower) || lower.parse::<Ipv4Addr>().is_ok(),
        };
        if valid { Ok(Self(lower.into())) } else { Err(RouteError::Host(excerpt(text))) }
    }
}

/// A path that stands for itself and all below it: `/api` covers `/api` and `/api/x`, not `/apis`; `/` covers everything.
///
/// Its characters are those of RFC 3986's `pchar` without `$ & ' ( ) ;`, which mean something to a socket command, to HTML or in
/// an argument of a converter. In its normal form (RFC 3986 section 6.2.2) it has no empty and no `.` segments, no slash at its
/// end, and percent-encodes nothing that need not be. `..`, encoded slashes and control characters are refused.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPrefix(Arc<str>);
text_type!(PathPrefix);

impl PathPrefix {
    /// `/`.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// Whether it is `/`.
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// Whether a request's path (without its query) is meant.
    pub fn covers(&self, path: &str) -> bool {
        self.is_root() || path.strip_prefix(&*self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for PathPrefix {
    type Err = RouteError;
    fn from_str(text: &str) -> Result<Self, RouteError> {
        normal(text).map(|path| Self(path.into())).ok_or_else(|| RouteError::Path(excerpt(text)))
    }
}

fn normal(text: &str) -> Option<String> {
    if !text.starts_with('/') || text.len() > MAX_PATH {
        return None;
    }
    let mut path = String::with_capacity(text.len());
    for segment in text.split('/') {
        match normal_segment(segment)?.as_str() {
            "" | "." => {}
            ".." => return None,
            segment => {
                path.push('/');
                path.push_str(segment);
            }
        }
    }
    if path.is_empty() {
        path.push('/');
    }
    Some(path)
}

fn normal_segment(segment: &str) -> Option<String> {
    let is_unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let mut normal = String::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let digits = rest.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
                let byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
                match byte {
                    b'/' | b'\\' => return None,
                    byte if byte.is_ascii_control() => return None,
                    byte if is_unreserved(byte) => normal.push(byte.into()),
                    byte => normal.push_str(&format!("%{byte:02X}")),
                }
                rest = &rest[2..];
            }
            byte if is_unreserved(byte) || b"!*+,:=@".contains(&byte) => normal.push(byte.into()),
            _ => return None,
        }
    }
    Some(normal)
}

/// One way to a service through the HTTP edge: a host and a path, and what is done on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Route {
    /// For which hosts.
    pub host: HostPattern,
    /// For which paths.
    #[serde(default = "PathPrefix::root", skip_serializing_if = "PathPrefix::is_root")]
    pub path: PathPrefix,
    /// The path is taken away from the request: the backend sees what lies below it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub strip_prefix: bool,
    /// Of two routes for one request the one with the higher number counts; unset: the longer one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// A client stays with one backend, by a cookie.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub sticky: bool,
    /// Plain HTTP is answered with a redirect to HTTPS.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub redirect_https: bool,
}

fn is_false(on: &bool) -> bool {
    !on
}

/// `null` counts as absent.
fn or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Route {
    /// A plain route.
    pub fn new(host: HostPattern, path: PathPrefix) -> Self {
        Self { host, path, strip_prefix: false, priority: None, sticky: false, redirect_https: false }
    }

    fn place(&self) -> (&HostPattern, &PathPrefix) {
        (&self.host, &self.path)
    }
}

/// `a.example/api`, with what is done on it in brackets.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path)?;
        let priority = self.priority.map(|priority| format!("priority {priority}"));
        let word = |on: bool, word: &str| on.then(|| word.to_owned());
        let words = [
            word(self.strip_prefix, "prefix stripped"),
            priority,
            word(self.sticky, "sticky"),
            word(self.redirect_https, "redirected to https"),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        if words.is_empty() { Ok(()) } else { write!(f, " ({})", words.join(", ")) }
    }
}

/// The routes of one backend: sorted, each host and path once, [`MAX_ROUTES`] at most. Shared, so that copies cost nothing.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Routes(Arc<[Route]>);

impl Routes {
    /// The routes, and those that are left out: of two for one host and path the first counts.
    pub fn new(given: impl IntoIterator<Item = Route>) -> (Self, Vec<RouteError>) {
        let (mut routes, mut left_out) = (Vec::<Route>::new(), Vec::new());
        for route in given {
            if routes.iter().any(|known| known.place() == route.place()) {
                left_out.push(RouteError::Twice(route));
            } else if routes.len() == MAX_ROUTES {
                left_out.push(RouteError::TooMany(route));
            } else {
                routes.push(route);
            }
        }
        routes.sort();
        (Self(routes.into()), left_out)
    }
}

impl Deref for Routes {
    type Target = [Route];
    fn deref(&self) -> &[Route] {
        &self.0
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(text: &str) -> Option<String> {
        text.parse::<HostPattern>().ok().map(|host| host.to_string())
    }

    fn path(text: &str) -> Option<String> {
        text.parse::<PathPrefix>().ok().map(|path| path.to_string())
    }

    #[test]
    fn a_host_is_a_name_or_a_wildcard_in_lower_case() {
        for (text, normal) in [
            ("A.Example.COM.", "a.example.com"),
            ("*.b.example", "*.b.example"),
            ("localhost", "localhost"),
            ("my_app.local", "my_app.local"),
            ("10.0.0.5", "10.0.0.5"),
        ] {
            assert_eq!(host(text).as_deref(), Some(normal));
        }
        let long = format!("*.{}a", "a.".repeat(126));
        for bad in
            ["", ".", "*", "*.", "a:80", "*a.b", "a.*", "a..b", "-a", "a b", "~^a", "é.com", "[::1]", "1.2.3", &long]
        {
            assert_eq!(host(bad), None, "{bad}");
        }
        let wild: HostPattern = "*.b.example".parse().unwrap();
        assert!(wild.covers("a.b.example") && wild.covers("x.a.b.example"));
        assert!(!wild.covers("b.example") && !wild.covers(".b.example") && !wild.covers("ab.example"));
    }

    #[test]
    fn a_path_covers_whole_segments_and_has_one_form() {
        for (text, normal) in [
            ("/", "/"),
            ("/api", "/api"),
            ("/api/", "/api"),
            ("//a//./b/", "/a/b"),
            ("/%61%7e%20%c3%a9", "/a~%20%C3%A9"),
            ("/a:b@c,d=e+f*g!h", "/a:b@c,d=e+f*g!h"),
            ("/...", "/..."),
        ] {
            assert_eq!(path(text).as_deref(), Some(normal), "{text}");
        }
        for bad in [
            "",
            "a",
            "/a b",
            "/a\n",
            "/\"",
            "/a;b",
            "/#",
            "/{",
            "/a?b",
            "/é",
            "/..",
            "/a/../b",
            "/%2e%2E/b",
            "/a%2Fb",
            "/%00",
            "/%0a",
            "/%5c",
            "/%",
            "/%4",
            "/%zz",
            "/%+1",
            "/a'b",
            "/a&b",
            "/$x",
            "/(",
            "/\\",
            &format!("/{}", "x".repeat(256)),
        ] {
            assert_eq!(path(bad), None, "{bad}");
        }
        let api: PathPrefix = "/api".parse().unwrap();
        assert!(api.covers("/api") && api.covers("/api/x") && PathPrefix::root().covers("/x"));
        assert!(!api.covers("/apis") && !api.covers("/") && !api.covers("/x/api"));
    }

    #[test]
    fn routes_are_sorted_and_bounded_and_the_first_of_a_place_counts() {
        let route = |host: &str, path: &str| Route::new(host.parse().unwrap(), path.parse().unwrap());
        let sticky = Route { sticky: true, ..route("b.example", "/") };
        let (routes, left_out) = Routes::new([sticky.clone(), route("a.example", "/"), route("B.example.", "//")]);
        assert_eq!(*routes, [route("a.example", "/"), sticky]);
        assert_eq!(left_out[0].to_string(), "b.example/ is there already");
        let many = (0..MAX_ROUTES + 2).map(|n| route("a.example", &format!("/{n}")));
        let (routes, left_out) = Routes::new(many);
        assert_eq!((routes.len(), left_out.len()), (MAX_ROUTES, 2));
    }

    /// Any route at all, by its parts.
    pub fn any_route() -> impl Strategy<Value = Route> {
        let path = "(/[a-zA-Z0-9._~!*+,:=@-]{1,8}){0,4}".prop_filter_map("a path", |path: String| path.parse().ok());
        let host = "(\\*\\.)?([a-z0-9]{1,8}\\.){0,3}[a-z]{1,8}".prop_map(|host| host.parse().unwrap());
        (host, path, any::<[bool; 3]>(), any::<Option<i32>>()).prop_map(|(host, path, [a, b, c], priority)| Route {
            strip_prefix: a,
            sticky: b,
            redirect_https: c,
            priority,
            ..Route::new(host, path)
        })
    }

    fn is_safe(text: &str) -> bool {
        text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~!*+,:=@%/".contains(&b))
    }

    proptest! {
        #[test]
        fn whatever_parses_holds_no_byte_that_could_inject_and_parses_to_itself(
            text in "\\PC{0,40}|[ -~\\n]{0,40}|/[!-~]{0,20}|(/|\\.|%2[eEfF]|%[0-9a-f]{2}|[a-z;&'])*",
        ) {
            if let Some(host) = host(&text) {
                prop_assert!(is_safe(&host) && host.len() <= 253 && !host.contains(['/', ':', '%']), "{host}");
                prop_assert_eq!(self::host(&host), Some(host));
            }
            if let Some(path) = path(&text) {
                prop_assert!(is_safe(&path) && path.starts_with('/') && path.len() <= MAX_PATH, "{path}");
                prop_assert!(path.split('/').all(|segment| segment != ".."), "{path}");
                prop_assert_eq!(self::path(&path), Some(path));
            }
        }

        #[test]
        fn a_route_is_read_back_as_it_was_written(route in any_route()) {
            let text = serde_json::to_string(&route).unwrap();
            prop_assert!(!text.contains("false") && !text.contains("null"), "{text}");
            prop_assert_eq!(serde_json::from_str::<Route>(&text).unwrap(), route);
        }
    }
}
