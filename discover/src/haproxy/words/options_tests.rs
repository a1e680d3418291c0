use proptest::prelude::*;

use super::*;
use crate::haproxy::words::keywords::all;

fn place(mode: Mode, allowed: &[String]) -> Place<'_> {
    Place { allowed, tracked: &|server| server == "other", ..Place::of_mode(mode) }
}

fn read(text: &str) -> Result<String, String> {
    parse(text, &place(Mode::Http, &[])).map(|options| options.to_string())
}

#[test]
fn what_registrations_say_is_taken_in_its_normal_form() {
    for good in [
        "",
        "backup",
        "check inter 2s rise 3 fall 2",
        "check port 8080 inter 500ms fastinter 1s downinter 1m",
        "weight 0 maxconn 50 minconn 5 maxqueue 10",
        "id 4",
        "cookie web_h:80",
        "track other",
        "ssl verify none sni str(shop.example.com) alpn h2,http/1.1",
        "ssl verify required verifyhost shop.example.com check-sni shop.example.com",
        "ssl ciphers ECDHE+AESGCM:!aNULL:@STRENGTH ssl-min-ver TLSv1.2",
        "proto h2 ws h1",
        "send-proxy-v2 proxy-v2-options ssl,authority",
        "observe layer7 error-limit 10 on-error mark-down on-marked-down shutdown-sessions",
        "pool-max-conn -1 max-reuse 0 pool-purge-delay 5s",
        "slowstart 30s disabled",
    ] {
        assert_eq!(read(good).as_deref(), Ok(good));
    }
    for (text, normal) in [
        ("  check \t inter  02s ", "check inter 2s"),
        ("weight 007", "weight 7"),
        ("sni shop.example.com", "sni str(shop.example.com)"),
        ("pool-conn-name a", "pool-conn-name str(a)"),
    ] {
        assert_eq!(read(text).as_deref(), Ok(normal));
    }
    let tcp = parse("proto none send-proxy", &place(Mode::Tcp, &[])).unwrap();
    assert_eq!(tcp.to_string(), "proto none send-proxy");
    assert_eq!(
        parse("track other id 7", &place(Mode::Tcp, &[])).map(|o| (o.id(), o.tracks().is_some())),
        Ok((Some(7), true))
    );
}

#[test]
fn no_argument_is_an_expression_a_path_a_variable_or_another_section() {
    for word in [
        "sni",
        "pool-conn-name",
        "check-sni",
        "verifyhost",
        "check-pool-conn-name",
        "cookie",
        "alpn",
        "ciphers",
        "curves",
        "track",
        "ws",
    ] {
        for value in [
            "env(ETCD_PASSWORD)",
            "str(env(ETCD_PASSWORD))",
            "str(k),map_str(/file)",
            "str(a),map_str(/dev/zero)",
            "str(a)str(b)",
            "str(",
            "str()",
            "str(a.)",
            "var(proc.x)",
            "req.hdr(host)",
            "ssl_fc_sni",
            "${HOME}",
            "$HOME",
            "\"$HOME\"",
            "'a'",
            "a\\x24b",
            "a#b",
            "a;b",
            "%[env(HOME)]",
            "/etc/shadow",
            "../x",
            "other/server",
            "weight",
            "disabled",
            "a\u{a0}b",
        ] {
            // A path is a word like another in a cookie, and a fetch's name is one where nothing is an expression.
            let plain = matches!(word, "cookie" | "alpn") && value.contains('/')
                || value == "ssl_fc_sni" && !matches!(word, "sni" | "pool-conn-name" | "track" | "ws" | "alpn");
            if !plain || value.contains('(') {
                assert!(read(&format!("ssl verify none {word} {value}")).is_err(), "{word} {value}");
            }
        }
    }
}

#[test]
fn words_that_reach_elsewhere_or_that_haproxy_never_takes_are_refused() {
    for bad in [
        "crt /etc/passwd",
        "ca-file x",
        "addr 10.9.9.9",
        "redir http://x",
        "source 0.0.0.0",
        "namespace x",
        "resolvers r",
        "agent-check",
        "check-via-socks4",
        "socks4 1.2.3.4:5",
        "guid x",
        "hash-key id",
        "log-proto octet-count",
        "shard 1",
        "init-addr none",
        "set-proxy-v2-tlv-fmt(0x20) %[env(HOME)]",
        "tcp-md5sig x",
        "quux",
        "weight",
        "weight 257",
        "weight -1",
        "weight +5",
        "weight 1.5",
        "inter 0",
        "inter 1us",
        "inter 1ms",
        "inter 25d",
        "inter soon",
        "inter 2w",
        "inter 99999999999",
        "fastinter 0",
        "rise 0",
        "fall 0",
        "rise 2147483647",
        "error-limit 0",
        "id 0",
        "id 2147483648",
        "port 0",
        "port 65536",
        "proto fcgi",
        "proto none",
        "check-proto h2",
        "check-proto fcgi",
        "ws x",
        "verify optional",
        "observe layer9",
        "on-error x",
        "id 1 id 2",
        "check check",
        "check track other",
        "track nobody",
        "a;b",
        "check #",
        "check \"x",
        "ssl-min-ver TLSv1.3 ssl-max-ver TLSv1.2",
        "no-tlsv10 no-tlsv11 no-tlsv12 no-tlsv13",
        "proxy-v2-options ssl,ssl",
        "proxy-v2-options",
        "alpn ,",
        "cookie é",
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
    for bad in ["proto h2", "proto h1", "observe layer7"] {
        assert!(parse(bad, &place(Mode::Tcp, &[])).is_err(), "{bad}");
    }
    assert!(read(&"check-ssl ".repeat(33)).is_err());
    assert!(read(&format!("cookie {}", "x".repeat(257))).is_err());
}

#[test]
fn what_the_operator_permits_is_still_made_of_harmless_words() {
    let allowed = ["addr", "crt", "agent-check", "newest"].map(str::to_owned);
    let read = |text: &str| parse(text, &place(Mode::Http, &allowed)).map(|o| o.to_string());
    for good in ["addr 10.0.0.1 port 80", "crt /etc/x.pem", "agent-check", "newest backup"] {
        assert_eq!(read(good).as_deref(), Ok(good));
    }
    for bad in ["crt $HOME", "crt \"x\"", "addr env(X)", "crt a\\b", "addr a#", "newest x", "source 1.2.3.4"] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

/// Text that looks like what each keyword takes, and like what it must not take.
fn odd() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,11}(us|ms|s|m|h|d|w)?",
        "-?[0-9]{1,3}",
        "(str\\()?[a-z_.-]{0,8}\\)?",
        "(h2|h1|none|ssl|layer7|TLSv1.[0-4]|mark-down|,){1,3}",
        "\\PC{0,8}",
        "[ -~]{0,10}",
        Just("env(HOME)".to_owned()),
        Just("%[env(HOME)]".to_owned()),
    ]
}

fn words() -> impl Strategy<Value = String> {
    let names: Vec<&'static str> = all().map(|(name, _)| name).chain(DENIED.iter().map(|(name, _)| *name)).collect();
    prop::collection::vec((prop::sample::select(names), prop::option::of(odd())), 0..4).prop_map(|all| {
        all.into_iter()
            .map(|(name, value)| format!("{name} {}", value.unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(" ")
    })
}

proptest! {
    #[test]
    fn whatever_is_taken_is_harmless_and_is_read_back_as_it_is_written(text in prop_oneof![words(), "\\PC{0,40}"], http in any::<bool>()) {
        let place = place(if http { Mode::Http } else { Mode::Tcp }, &[]);
        if let Ok(options) = parse(&text, &place) {
            let shown = options.to_string();
            prop_assert!(shown.bytes().all(|b| b == b' ' || b.is_ascii_graphic() && !b"$\"'\\#;`%{}[]<>|&".contains(&b)), "{}", shown);
            prop_assert_eq!(shown.matches('(').count(), shown.matches(" str(").count(), "{}", &shown);
            prop_assert!(!shown.contains("  ") && shown.trim() == shown, "{}", &shown);
            prop_assert_eq!(parse(&shown, &place), Ok(options));
        }
    }
}
