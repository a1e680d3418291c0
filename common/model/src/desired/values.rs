//! How single values are read: durations, switches, ports, tags.

use std::time::Duration;

use crate::{Host, Port, Transport};

/// No label asks for more than a day.
const MAX_DURATION: Duration = Duration::from_secs(86_400);

/// What [`duration`] takes, for messages.
pub const DURATION: &str = "a duration such as 500ms, 10s or 1m30s (a bare number is seconds), above 0 and at most 24h";

/// A duration, 1 ms to 24 h: `500ms`, `10s`, `1m30s`, or a bare number of seconds.
pub fn duration(text: &str) -> Option<Duration> {
    let duration = match text.parse::<u32>() {
        Ok(seconds) => Duration::from_secs(seconds.into()),
        // humantime takes spaces and long words as well; both are harmless.
        Err(_) => humantime::parse_duration(text).ok()?,
    };
    (Duration::from_millis(1)..=MAX_DURATION).contains(&duration).then_some(duration)
}

/// A truth value of our own labels: `true`, `yes`, `on`, `1`, and their opposites.
pub fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// What [`go_bool`] takes, for messages.
pub const GO_BOOL: &str = "one of 1, t, T, TRUE, true, True, 0, f, F, FALSE, false and False";

/// A truth value of Traefik's labels.
///
/// Source: Go's `strconv.ParseBool`, by which traefik/paerser decodes labels; any other word is an error there.
pub fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Whether a label of ours that needs no value (`register.ignore`) is set: any text is yes but for the words of no.
pub fn is_set(text: &str) -> bool {
    switch(text) != Some(false) && !text.is_empty()
}

/// Whether a switch of Registrator's is set: it asks for any text at all, so `SERVICE_IGNORE=false` ignores, too.
///
/// Source: gliderlabs/registrator, bridge.go (`ignore != ""`), consul.go (`check_tcp`).
pub fn is_set_for_registrator(text: &str) -> bool {
    !text.is_empty()
}

/// What [`port_list`] takes, for messages.
pub const PORT_LIST: &str = "a comma list of ports, ranges and port/udp, 256 ports at most";

/// `80`, `80,9000/udp`, `8000-8003`.
pub fn port_list(text: &str) -> Option<Vec<(Port, Option<Transport>)>> {
    const MOST: usize = 256;
    let mut ports = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (numbers, transport) = match part.split_once('/') {
            Some((numbers, word)) => (numbers, Some(word.parse::<Transport>().ok()?)),
            None => (part, None),
        };
        let (from, to) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let (from, to) = (from.parse::<Port>().ok()?, to.parse::<Port>().ok()?);
        if from > to || usize::from(to.get() - from.get()) + ports.len() >= MOST {
            return None;
        }
        ports.extend((from.get()..=to.get()).filter_map(Port::new).map(|port| (port, transport)));
    }
    Some(ports)
}

/// `host`, `host:port`, `[v6]:port`, a bare IPv6 address.
pub fn host_and_port(text: &str) -> Option<(Host, Option<Port>)> {
    if let Ok(host) = text.parse() {
        return Some((host, None));
    }
    let (host, port) = text.rsplit_once(':')?;
    Some((host.parse().ok()?, Some(port.parse().ok()?)))
}

/// Tags between commas; `\,` is a comma within one. Joined again the same way, empty ones left out.
pub fn tags(text: &str) -> String {
    let mut tags = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek(), tags.last_mut()) {
            ('\\', Some(','), Some(tag)) => {
                tag.push_str("\\,");
                chars.next();
            }
            (',', _, _) => tags.push(String::new()),
            (c, _, Some(tag)) => tag.push(c),
            (_, _, None) => {}
        }
    }
    let tags: Vec<&str> = tags.iter().map(|tag| tag.trim()).filter(|tag| !tag.is_empty()).collect();
    tags.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_or_refused() {
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("5"), Some(Duration::from_secs(5)));
        for bad in ["", "0", "0s", "-1s", "x", "25h", "99999999999999999999s", "1e9"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        assert_eq!(port_list("80, 53/udp,8000-8001").unwrap().len(), 4);
        for bad in ["", "0", "70000", "80-79", "1-65535", "80/icmp", "80,,81"] {
            assert_eq!(port_list(bad), None, "{bad}");
        }
        for (word, go, own, set) in [
            ("true", Some(true), Some(true), true),
            ("T", Some(true), None, true),
            ("1", Some(true), Some(true), true),
            ("TRUE", Some(true), Some(true), true),
            ("tRUE", None, Some(true), true),
            ("yes", None, Some(true), true),
            ("0", Some(false), Some(false), false),
            ("f", Some(false), None, true),
            ("False", Some(false), Some(false), false),
            ("no", None, Some(false), false),
            ("off", None, Some(false), false),
            ("x", None, None, true),
            ("", None, None, false),
        ] {
            assert_eq!((go_bool(word), switch(word), is_set(word)), (go, own, set), "{word:?}");
            assert_eq!(is_set_for_registrator(word), !word.is_empty(), "{word:?}");
        }
        assert_eq!(host_and_port("[::1]:80"), Some(("::1".parse().unwrap(), Port::new(80))));
        assert_eq!(host_and_port("fe80::1"), Some(("fe80::1".parse().unwrap(), None)));
        assert_eq!(host_and_port("h:0"), None);
        assert_eq!(tags(r"a, b\,c,,d "), r"a,b\,c,d");
    }
}
