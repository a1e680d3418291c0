//! The names of registrations in ZooKeeper, as Nerve writes them and Synapse reads them.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The longest encoded payload that becomes part of a name, in characters: lists of children have a limit of their own.
///
/// Source: Nerve 0.9.7, `PATH_ENCODING_MAX_LENGTH`.
pub const MOST_ENCODED: usize = 65_536;

/// What an encoded name begins with.
const ENCODED: &str = "base64_";

/// Written with padding as Ruby does; read with and without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The name of an agent's registration, up to the number that ZooKeeper adds to a sequential node: `<instance>_`.
pub fn plain(instance: &str) -> String {
    format!("{instance}_")
}

/// The name with the payload in it, so that nobody needs to read the node: `base64_<length>_<payload>_`. `None` where that
/// would be too long.
pub fn encoded(payload: &[u8]) -> Option<String> {
    let text = BASE64.encode(payload);
    (text.len() <= MOST_ENCODED).then(|| format!("{ENCODED}{}_{text}_", text.len()))
}

/// The payload in a name; `None` where there is none that can be read.
pub fn payload(name: &str) -> Option<Vec<u8>> {
    let (length, rest) = name.strip_prefix(ENCODED)?.split_once('_')?;
    let text = rest.get(..length.parse().ok().filter(|length| *length <= MOST_ENCODED)?)?;
    BASE64.decode(text).ok()
}

/// The number that ZooKeeper gave: the digits behind the last underscore. Among the children of one node it grows with each.
pub fn number(name: &str) -> Option<u64> {
    let (_, digits) = name.rsplit_once('_')?;
    if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_nerves() {
        assert_eq!(plain("i-1"), "i-1_");
        // Ruby: Base64.urlsafe_encode64('{"host":"h?>"}')
        let name = encoded(br#"{"host":"h?>"}"#).unwrap();
        assert_eq!(name, "base64_20_eyJob3N0IjoiaD8-In0=_");
        assert_eq!(payload(&format!("{name}0000000003")).unwrap(), br#"{"host":"h?>"}"#);
        assert_eq!(
            [number("i_1_0000000012"), number("i-1_"), number("i-1"), number("a_-1")],
            [Some(12), None, None, None]
        );
        assert!(encoded(&[0; 50_000]).is_none());
    }

    #[test]
    fn what_is_no_payload_is_none() {
        for name in
            ["i_0000000001", "base64_", "base64_x_y_", "base64_99_ab_", "base64_2_$$_", "base64_3_é_", "base64_1_é_"]
        {
            assert_eq!(payload(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_payload_comes_back_out_of_its_name(bytes in prop::collection::vec(any::<u8>(), 0..200), number in 0u32..) {
            let name = format!("{}{number:010}", encoded(&bytes).unwrap());
            prop_assert_eq!(payload(&name), Some(bytes));
            prop_assert_eq!(super::number(&name), Some(number.into()));
        }

        #[test]
        fn no_name_panics(name in "(base64_)?[0-9]{0,6}_?\\PC{0,20}") {
            let _ = (payload(&name), number(&name));
        }
    }
}
