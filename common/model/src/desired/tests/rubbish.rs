//! Labels and variables that mean nothing harm nobody.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::{Mode, Transport};

fn any_key() -> impl Strategy<Value = String> {
    let own = proptest::sample::select(LABEL_KEYS);
    prop_oneof![
        own.clone().prop_map(|key| format!("register.{key}")),
        (0..70_000_u32, own).prop_map(|(port, key)| format!("register.{port}.{key}")),
        "register\\.\\PC{0,12}",
        "SERVICE_(80_)?(udp_)?(NAME|ID|TAGS|IGNORE|CHECK_HTTP|CHECK_CMD|X|\\PC{0,6})",
        "VIRTUAL_(HOST|PORT|PATH|DEST|PROTO)",
        "traefik\\.http\\.routers\\.[ab]\\.(rule|service|priority|middlewares|\\PC{0,6})",
        "traefik\\.http\\.services\\.[ab]\\.loadbalancer\\.(server\\.port|sticky\\.cookie|\\PC{0,6})",
        "traefik\\.(enable|tcp\\.x|http\\.middlewares\\.[ab]\\.(stripprefix\\.prefixes|redirectscheme\\.scheme))",
        "caddy(_1)?(\\.reverse_proxy|\\.\\PC{0,4})?",
        "\\PC{0,10}",
    ]
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,30}",
        "[0-9]{1,6}",
        "(true|false|http|tcp|exec|/a|10s|-1|\n|\u{0})",
        "(Host|PathPrefix)\\(`[a-c./]{1,9}`\\)( (&&|\\|\\|) (Host|PathPrefix|X)\\(`/?[a-c.;&']{1,9}`\\)){0,4}",
        "(~|\\*\\.)?[a-c.,:]{1,20}|/[a-c/.%;&']{0,9}|\\{\\{upstreams (80|x)\\}\\}",
        Just("é".repeat(100_000)),
        Just("a,b,".repeat(10_000)),
        Just("x".repeat(1000))
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn rubbish_harms_nobody_else_and_decisions_are_reproducible(
        labels in proptest::collection::btree_map(any_key(), any_value(), 0..12),
        env in proptest::collection::btree_map(any_key(), any_value(), 0..12),
        name in "\\PC{0,20}",
        image in "\\PC{0,20}|[a-z:/@]{0,20}",
        internal: bool,
    ) {
        let settings = Settings { internal, ..settings() };
        let good = container(1, "good").ports(&[PUBLISHED]);
        let bad = Container { labels, env, name, image, ..container(2, "bad").ports(&["80=0.0.0.0:2", "53/udp=0.0.0.0:3"]) };
        let alone = decide(&map([good.clone()]), &settings);
        let together = decide(&map([good, bad]), &settings);
        prop_assert_eq!(&alone[..], &together[..alone.len()]);
        for decision in &together {
            let text = decision.to_string();
            prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n'));
            prop_assert!(text.len() < 300_000);
            if let Some(c) = decision.candidate() {
                let usable = |ip: IpAddr| !ip.is_unspecified() && !ip.is_loopback();
                prop_assert!(c.backend.host.ip().is_none_or(usable), "{:?}", c.backend);
                prop_assert_eq!(c.backend.transport == Transport::Udp, decision.port.unwrap().1 == Transport::Udp);
                let value = crate::encode(&c.backend, crate::ValueFormat::Json);
                let read = crate::decode(&c.backend.id, value.as_bytes());
                let written = crate::Backend { left_out: None, ..c.backend.clone() };
                prop_assert_eq!(read, Ok(crate::Decoded::Backend(Box::new(written))));
                let safe = |b: u8| b.is_ascii_alphanumeric() || b"-._~!*+,:=@%/".contains(&b);
                let mut texts = c.backend.routes.iter().flat_map(|route| [route.host.as_str(), route.path.as_str()]);
                prop_assert!(texts.all(|text| text.bytes().all(safe)), "{:?}", c.backend.routes);
                let meant = c.backend.mode == Some(Mode::Http);
                prop_assert!(c.backend.routes.is_empty() || meant, "{:?}", c.backend);
            }
        }
    }
}
