//! What a certificate says of itself, read from its DER: serial number, time of validity, names. Pure.
//!
//! No more of X.509 is needed here: the signature is the client's to judge, the key is matched by rustls.
//! Source: RFC 5280 section 4.1 (`Certificate`), 4.2.1.6 (`subjectAltName`); X.690 for DER.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`, the version.
const VERSION: u8 = 0xa0;
/// `[3]`, the extensions.
const EXTENSIONS: u8 = 0xa3;
/// 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The serial number in upper-case hexadecimal digits, without leading zeros.
    pub serial: String,
    /// From when on it is valid.
    pub not_before: SystemTime,
    /// Until when it is valid.
    pub not_after: SystemTime,
    /// The names it is for, in lower case: DNS names and addresses, or the subject's common name where there are none.
    pub names: Vec<String>,
}

/// One element: its tag, its content, and what follows it.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The content of the next element, which must have that tag.
fn expect<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (found, content, rest) = element(input)?;
    *input = rest;
    (found == tag).then_some(content)
}

/// The elements in a content; what is broken ends them.
fn elements(mut content: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (tag, inner, rest) = element(content)?;
        content = rest;
        Some((tag, inner))
    })
}

/// Reads a certificate; `None`: it is none.
pub fn read(der: &[u8]) -> Option<Facts> {
    let mut certificate = expect(&mut &*der, SEQUENCE)?;
    let mut body = expect(&mut certificate, SEQUENCE)?;
    if element(body)?.0 == VERSION {
        expect(&mut body, VERSION)?;
    }
    let serial = expect(&mut body, INTEGER)?;
    let _algorithm = expect(&mut body, SEQUENCE)?;
    let _issuer = expect(&mut body, SEQUENCE)?;
    let mut validity = elements(expect(&mut body, SEQUENCE)?).map(|(tag, text)| time(tag, text));
    let (not_before, not_after) = (validity.next()??, validity.next()??);
    let subject = expect(&mut body, SEQUENCE)?;
    let mut names = alternative_names(body);
    if names.is_empty() {
        names.extend(common_name(subject));
    }
    let significant = serial.iter().position(|byte| *byte != 0).unwrap_or(serial.len());
    let serial: String = serial[significant..].iter().map(|byte| format!("{byte:02X}")).collect();
    let serial = serial.trim_start_matches('0').to_owned();
    Some(Facts { serial, not_before, not_after, names })
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, the only forms that RFC 5280 allows.
fn time(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let text = match (tag, text.len()) {
        // RFC 5280 section 4.1.2.5.1: years from 50 on are those of 1900.
        (UTC_TIME, 12) => format!("{}{text}", if text.get(..2)? >= "50" { "19" } else { "20" }),
        (GENERALIZED_TIME, 14) => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize| text.get(from..from + 2);
    let (date, clock) = ([part(4)?, part(6)?].join("-"), [part(8)?, part(10)?, part(12)?].join(":"));
    humantime::parse_rfc3339(&format!("{}-{date}T{clock}Z", text.get(..4)?)).ok()
}

fn alternative_names(rest: &[u8]) -> Vec<String> {
    let Some((_, extensions)) = elements(rest).find(|(tag, _)| *tag == EXTENSIONS) else { return Vec::new() };
    let extensions = element(extensions).map_or(&[][..], |(_, list, _)| list);
    let wanted = elements(extensions).find_map(|(_, extension)| {
        let mut parts = elements(extension);
        let (_, id) = parts.next()?;
        // A flag `critical` may stand between the two.
        if id == SUBJECT_ALT_NAME { parts.last() } else { None }
    });
    let Some((SEQUENCE, list, _)) = wanted.and_then(|(_, octets)| element(octets)) else { return Vec::new() };
    elements(list).filter_map(|(tag, name)| alternative_name(tag, name)).collect()
}

fn alternative_name(tag: u8, name: &[u8]) -> Option<String> {
    match tag {
        0x82 => plain(name),
        0x87 => match name.len() {
            4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(name).ok()?).to_string()),
            16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(name).ok()?).to_string()),
            _ => None,
        },
        _ => None,
    }
}

fn common_name(subject: &[u8]) -> Option<String> {
    elements(subject).flat_map(|(_, set)| elements(set)).find_map(|(_, attribute)| {
        let mut parts = elements(attribute);
        let (_, id) = parts.next()?;
        if id == COMMON_NAME { plain(parts.next()?.1) } else { None }
    })
}

/// A name of printable characters; others are for nobody.
fn plain(name: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(name).ok()?;
    let good = (1..=253).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    good.then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms_of_time_are_read_and_others_are_not() {
        let seconds = |tag, text: &str| time(tag, text.as_bytes()).map(|t| humantime::format_rfc3339(t).to_string());
        assert_eq!(seconds(UTC_TIME, "260102030405Z").as_deref(), Some("2026-01-02T03:04:05Z"));
        assert_eq!(seconds(UTC_TIME, "700102030405Z").as_deref(), Some("1970-01-02T03:04:05Z"));
        assert_eq!(seconds(GENERALIZED_TIME, "20510102030405Z").as_deref(), Some("2051-01-02T03:04:05Z"));
        for bad in ["", "Z", "260102030405", "2601020304Z", "261302030405Z", "26-102030405Z", "ééééééZ"] {
            assert_eq!(seconds(UTC_TIME, bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&bytes);
            let nested: Vec<u8> = [&[0x30, 0x82, 0, 84, 0x30, 0x81, 80][..], &bytes].concat();
            let _ = read(&nested);
        }
    }
}
