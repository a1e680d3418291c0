//! One server: its line in haproxy.cfg and its parameters at run time, which are the same.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use super::numbers::given;
use super::silence::without_file_only;

/// One server of a section. Its line in the file and what `add server` is given hold the same parameters, so that a
/// reload changes nothing (`add server` inherits nothing from `default-server`: docs/haproxy.md). One word is the exception: see
/// [`super::silence`].
#[derive(Debug, Clone)]
pub struct Server {
    /// HAProxy's name for it, `[A-Za-z0-9_.:-]+`, unique in its section and the same at every start.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its id in HAProxy, where discover gave it: a registration's own and Synapse's are among `params`.
    pub id: Option<NonZeroU32>,
    /// Every parameter but that id, the weight and `disabled`, in the order of the line.
    pub params: Arc<str>,
    /// Its share, 0 (drained) to 256.
    pub weight: u16,
    /// In maintenance: listed, but given no traffic and not checked.
    pub maint: bool,
    /// The line as the file has it, where its form is somebody else's (Synapse's); without it the line is ours.
    pub line: Option<Arc<str>>,
    /// Which of the words its registration brought.
    pub own: Own,
}

/// The words of a line that a registration brought, and that HAProxy may not know. They say nothing that the line does not
/// say.
#[derive(Debug, Clone, Default)]
pub struct Own(Option<Arc<str>>);

/// Equal is what the file says in the same words, whosever form they are in: Synapse's line may well be one of ours.
/// Which of the words are a registration's own takes no part.
impl PartialEq for Server {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.same_but_for_its_id(other)
    }
}

impl Eq for Server {}

impl Server {
    /// A server whose line has a form of its own. `address` is what the line's host stands for.
    pub fn of_line(name: Arc<str>, address: SocketAddr, line: Arc<str>) -> Self {
        let rest = line.splitn(4, ' ').nth(3).unwrap_or_default();
        // Nothing to take out and nothing to squeeze, as nearly always: the words are the parameters as they stand.
        if !["  ", "\t", "weight", "disabled"].iter().any(|text| line.contains(text)) {
            let params = rest.trim_end().into();
            let own = Own::default();
            return Self { name, address, id: None, params, weight: 1, maint: false, line: Some(line), own };
        }
        let mut params = String::with_capacity(line.len());
        let (mut weight, mut maint) = (1, false);
        let mut words = line.split_ascii_whitespace().skip(3);
        while let Some(word) = words.next() {
            if word == "weight" {
                weight = words.next().and_then(|w| w.parse().ok()).unwrap_or(weight);
                continue;
            }
            if word == "disabled" {
                maint = true;
                continue; // not a parameter at run time
            }
            if !params.is_empty() {
                params.push(' ');
            }
            params.push_str(word);
        }
        Self { name, address, id: None, params: params.into(), weight, maint, line: Some(line), own: Own::default() }
    }

    /// Tells which of its words its registration brought. Weights and `disabled`, which every HAProxy knows, do not count.
    #[must_use]
    pub fn with_own(self, words: &str) -> Self {
        if words.trim().is_empty() {
            return Self { own: Own::default(), ..self };
        }
        let alone = format!("server own 0 {words}");
        let mut own: Arc<str> = Self::of_line(self.name.clone(), self.address, alone.into()).params;
        if own.contains("  ") || own.starts_with(' ') {
            own = own.split_ascii_whitespace().collect::<Vec<_>>().join(" ").into();
        }
        Self { own: Own(Some(own).filter(|own| !own.is_empty())), ..self }
    }

    /// The words that its registration brought, without weights, one blank between two.
    pub fn own_words(&self) -> Option<&Arc<str>> {
        self.own.0.as_ref()
    }

    /// The same without the words that its registration brought; `None` where it brought none.
    pub fn bare(&self) -> Option<Self> {
        let own: Vec<&str> = self.own.0.as_deref()?.split_ascii_whitespace().collect();
        let all: Vec<&str> = self.params.split_ascii_whitespace().collect();
        let at = all.windows(own.len()).rposition(|words| *words == own)?;
        let params = [&all[..at], &all[at + own.len()..]].concat().join(" ").into();
        Some(Self { params, line: None, own: Own::default(), ..self.clone() })
    }

    /// Whether it takes new clients, as far as we decide that.
    pub fn serves(&self) -> bool {
        !self.maint && self.weight > 0
    }

    /// Whether HAProxy asks its agent, by its own words or those that it inherits.
    pub fn has_agent(&self, inherited: &str) -> bool {
        [&self.params, inherited].iter().any(|words| words.split_ascii_whitespace().any(|word| word == "agent-check"))
    }

    /// Whether both are the same but for the id that was given here.
    pub fn same_but_for_its_id(&self, other: &Self) -> bool {
        let same_words = || match (&self.line, &other.line) {
            (Some(a), Some(b)) => a == b,
            (None, None) => true,
            _ => self.to_string() == other.to_string(),
        };
        self.name == other.name
            && (self.address, self.weight, self.maint) == (other.address, other.weight, other.maint)
            && self.params == other.params
            && same_words()
    }

    /// Whether its registration brought an id.
    pub fn brings_id(&self) -> bool {
        let own = || self.own.0.as_deref().unwrap_or_default();
        (self.line.is_some() && has_word(&self.params, "id")) || has_word(own(), "id")
    }

    /// The id that was given here, where the parameters begin with one.
    fn with_id_apart(self) -> Self {
        let Some((id, params)) = self.params.strip_prefix("id ").map(|rest| rest.split_once(' ').unwrap_or((rest, "")))
        else {
            return self;
        };
        match id.parse().ok().and_then(given) {
            Some(id) => Self { id: Some(id), params: params.into(), ..self },
            None => self,
        }
    }

    /// Gives a line that says nothing of a weight the one of `default-server`.
    pub fn with_inherited_weight(mut self, inherited: &str) -> Self {
        let weight = |line: &str| line.split_ascii_whitespace().any(|w| w == "weight");
        if !inherited.is_empty() && self.line.as_deref().is_some_and(|line| !weight(line)) {
            let mut words = inherited.split_ascii_whitespace().skip_while(|w| *w != "weight");
            if let Some(inherited) = words.nth(1).and_then(|w| w.parse().ok()) {
                self.weight = inherited;
            }
        }
        self
    }

    /// The parameters for `add server`, the weight among them; `inherited` are the words of `default-server`, which
    /// `add server` does not take from there.
    pub fn runtime_params(&self, inherited: &str) -> String {
        let mut words: Vec<&str> = Vec::new();
        let mut defaults = inherited.split_ascii_whitespace();
        while let Some(word) = defaults.next() {
            match word {
                "weight" => _ = defaults.next(),
                "disabled" | "enabled" => {}
                _ => words.push(word),
            }
        }
        let id = self.id.map(|id| id.to_string());
        words.extend(id.iter().flat_map(|id| ["id", id]));
        let params = self.params_at_run_time();
        words.extend(params.split_ascii_whitespace());
        let weight = self.weight.to_string();
        if self.weight != 1 {
            words.extend(["weight", &weight]);
        }
        words.join(" ")
    }

    /// Its parameters as far as they can be had at run time; of two servers with the same ones, none need be made anew.
    pub fn params_at_run_time(&self) -> Cow<'_, str> {
        match &self.line {
            Some(_) => Cow::Borrowed(&*self.params), // somebody else's words: nothing is left out
            None => without_file_only(&self.params, self.own_words().map(|own| &**own)),
        }
    }

    pub fn has_cookie(&self) -> bool {
        has_word(&self.params, "cookie")
    }

    /// The same without its cookie.
    pub fn without_cookie(&self) -> Self {
        let mut words = self.params.split_ascii_whitespace();
        let mut kept: Vec<&str> = Vec::new();
        while let Some(word) = words.next() {
            match word {
                "cookie" => _ = words.next(),
                word => kept.push(word),
            }
        }
        Self { params: kept.join(" ").into(), ..self.clone() }
    }

    /// Reads a line of a file; `None` for what is no server's. Of a host name the address stays unspecified.
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.trim_start();
        let [keyword, name, address, ..] = line.split_ascii_whitespace().collect::<Vec<_>>()[..] else { return None };
        (keyword == "server").then_some(())?;
        let place = address.parse().ok().or_else(|| {
            let (host, port) = address.rsplit_once(':')?;
            let ip = host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            Some(SocketAddr::new(ip, port.parse().ok()?))
        })?;
        let foreign = Self::of_line(name.into(), place, line.into());
        let ours = Self { line: None, ..foreign.clone() }.with_id_apart();
        Some(if ours.to_string() == line { ours } else { foreign })
    }
}

impl fmt::Display for Server {
    /// The line in haproxy.cfg, without indentation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = &self.line {
            return f.write_str(line);
        }
        write!(f, "server {} {}", self.name, self.address)?;
        if let Some(id) = self.id {
            write!(f, " id {id}")?;
        }
        if !self.params.is_empty() {
            write!(f, " {}", self.params)?;
        }
        if self.weight != 1 {
            write!(f, " weight {}", self.weight)?;
        }
        if self.maint {
            f.write_str(" disabled")?;
        }
        Ok(())
    }
}

fn has_word(words: &str, word: &str) -> bool {
    words.split_ascii_whitespace().any(|w| w == word)
}

/// A checksum of much text, eight bytes at a step: stable across versions and machines, too, and ten times as fast. A change
/// of one word always shows.
pub fn checksum_of_text(text: &[u8]) -> u64 {
    let (words, rest) = text.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().copied().chain([last, text.len().to_le_bytes()]).map(u64::from_le_bytes);
    words.fold(0, |sum, word| (sum.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95))
}

/// FNV-1a, 64 bits: stable across versions and machines, which the standard library's hashes do not promise.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_line_is_read_back_as_it_was_written(
            name in "[a-f0-9:.-]{1,12}", port in 1u16.., v6 in any::<bool>(), weight in 0u16..=256, maint in any::<bool>(),
            params in prop::sample::select(vec!["", "check", "check inter 2s rise 3 fall 2", "id 4 check"]),
            id in prop::option::of((1_u32 << 24..(1 << 24) + 9).prop_map(|id| NonZeroU32::new(id).unwrap())),
        ) {
            let address = if v6 { format!("[::1]:{port}") } else { format!("127.0.0.1:{port}") }.parse().unwrap();
            let server = Server { name: name.into(), address, id, params: params.into(), weight, maint, line: None, own: Own::default() };
            prop_assert_eq!(Server::parse(&format!("\t{server}")), Some(server));
        }
    }

    #[test]
    fn a_line_of_another_form_is_kept_as_it_is() {
        for (line, address, params, weight, maint) in [
            ("server n_h:80 h:80 id 1 cookie n_h:80 check ", "0.0.0.0:80", "id 1 cookie n_h:80 check", 1, false),
            ("server ::1:80 ::1:80 id 2  check weight 7 backup disabled", "[::1]:80", "id 2 check backup", 7, true),
        ] {
            let server = Server::parse(&format!("\t{line}")).unwrap();
            assert_eq!(server.to_string(), line);
            assert_eq!(
                (server.address, &*server.params, server.weight, server.maint),
                (address.parse().unwrap(), params, weight, maint)
            );
        }
        let ours = Server::parse("server a 127.0.0.1:1 check inter 5s").unwrap();
        assert_eq!(ours.line, None);
        let place = (ours.name.clone(), ours.address);
        let line = |line: &str| Server::of_line(place.0.clone(), place.1, line.into());
        assert_eq!(line("server a 127.0.0.1:1 check inter 5s"), ours, "the same words");
        assert_ne!(line("server a 127.0.0.1:1  check inter 5s"), ours);
        let server =
            Server::parse("server a 127.0.0.1:1  check inter 5s").unwrap().with_inherited_weight("inter 2s weight 9");
        assert_eq!(server.runtime_params("inter 2s weight 9 disabled"), "inter 2s check inter 5s weight 9");
    }

    #[test]
    fn a_server_without_its_registrations_words() {
        let line = "server a 127.0.0.1:1 check maxconn 3 weight 5 maxconn 3 disabled";
        let server = Server::parse(line).unwrap();
        assert_eq!(server.bare(), None);
        let bare = server.clone().with_own(" weight 5 maxconn  3 ").bare().unwrap();
        assert_eq!(bare.to_string(), "server a 127.0.0.1:1 check maxconn 3 weight 5 disabled");
        assert_eq!(bare.bare(), None);
        assert_eq!(server.with_own("weight 5").bare(), None);
    }
}
