//! A registration's words on real HAProxies: what our grammar takes, each of them takes, or refuses with the line of that server.

use discover::haproxy::process::check::{self, CheckError};
use discover::haproxy::words::options::{Place, parse};
use model::Mode;

use super::support::{Lab, making, programs};

/// Keywords, each with ordinary and odd arguments. What the grammar refuses is passed over.
const ODD: &[(&str, &[&str])] = &[
    ("weight", &["0", "1", "007", "256", "257", "-1"]),
    ("inter", &["0", "1", "100ms", "100000us", "2147483647", "2147483648", "24d", "25d", "99999999999999"]),
    ("fastinter", &["0", "100ms", "24d"]),
    ("downinter", &["100ms", "35791m"]),
    ("slowstart", &["0", "1us", "24d", "596h", "597h"]),
    ("rise", &["0", "1", "100000", "2147483647"]),
    ("fall", &["1", "100000"]),
    ("maxconn", &["0", "2147483647", "4294967296"]),
    ("minconn", &["0", "2147483647"]),
    ("maxqueue", &["0", "2147483647"]),
    ("error-limit", &["0", "1", "2147483647"]),
    ("id", &["0", "7", "2147483647", "2147483648"]),
    ("cookie", &["a", "a=/+~:@-_.", "%[src]", "x,y"]),
    ("port", &["0", "1", "65535", "65536"]),
    ("observe", &["none", "layer4", "layer7", "layer9"]),
    ("on-error", &["fastinter", "fail-check", "sudden-death", "mark-down", "x"]),
    ("on-marked-down", &["shutdown-sessions", "x"]),
    ("on-marked-up", &["shutdown-backup-sessions", "x"]),
    ("proto", &["h1", "h2", "none", "fcgi", "quic", "spop"]),
    ("check-proto", &["h1", "h2", "none", "fcgi"]),
    ("ws", &["auto", "h1", "h2", "x"]),
    ("alpn", &["h2", "h2,http/1.1", ",", "h2,"]),
    ("npn", &["h2"]),
    ("check-alpn", &["h2", "http/1.1"]),
    ("sni", &["a.example", "str(a.example)", "str(a_b)", "env(HOME)", "str(a),map_str(/dev/zero)", "str("]),
    ("pool-conn-name", &["a.example", "str(a.example)", "env(HOME)"]),
    ("check-sni", &["a.example", "env(HOME)"]),
    ("check-pool-conn-name", &["a.example"]),
    ("verifyhost", &["a.example"]),
    ("verify", &["none", "required", "optional"]),
    ("ciphers", &["AES128-SHA", "ECDHE+AESGCM:!aNULL:@STRENGTH", "nonsense"]),
    ("ciphersuites", &["TLS_AES_128_GCM_SHA256", "nonsense"]),
    ("curves", &["P-256", "nonsense"]),
    ("sigalgs", &["RSA+SHA256", "nonsense"]),
    ("client-sigalgs", &["RSA+SHA256"]),
    ("ssl-min-ver", &["TLSv1.0", "TLSv1.3", "TLSv1.4", "SSLv3"]),
    ("ssl-max-ver", &["TLSv1.2", "TLSv1.3"]),
    ("pool-max-conn", &["-1", "0", "2147483647", "-2"]),
    ("pool-low-conn", &["0", "2147483647"]),
    ("pool-purge-delay", &["0", "5s", "24d"]),
    ("max-reuse", &["-1", "0", "5"]),
    ("proxy-v2-options", &["ssl", "ssl,cert-cn,ssl-cipher,cert-sig,cert-key,authority,crc32c,unique-id", "x"]),
    ("resolve-opts", &["allow-dup-ip,ignore-weight,prevent-dup-ip"]),
    ("resolve-prefer", &["ipv4", "ipv6"]),
    ("init-state", &["up", "down", "fully-up", "fully-down", "none"]),
    ("idle-ping", &["0", "5s"]),
    ("tcp-ut", &["0", "5s", "24d"]),
    ("track", &["first", "a", "other/server"]),
];

const FLAGS: &str = "allow-0rtt backup check check-reuse-pool check-send-proxy check-ssl disabled enabled force-tlsv10 force-tlsv11 force-tlsv12 \
    force-tlsv13 no-backup no-check no-check-send-proxy no-check-ssl no-send-proxy no-send-proxy-v2 no-send-proxy-v2-ssl no-send-proxy-v2-ssl-cn \
    no-ssl no-ssl-reuse no-sslv3 no-tfo no-tls-tickets no-tlsv10 no-tlsv11 no-tlsv12 no-tlsv13 non-stick send-proxy send-proxy-v2 \
    send-proxy-v2-ssl send-proxy-v2-ssl-cn sni-auto ssl ssl-reuse stick strict-maxconn tfo tls-tickets";

/// Every text of words that is tried: alone, and with TLS.
fn texts() -> Vec<String> {
    let with_argument = ODD.iter().flat_map(|(keyword, odd)| odd.iter().map(move |value| format!("{keyword} {value}")));
    let alone: Vec<String> = with_argument.chain(FLAGS.split_whitespace().map(str::to_owned)).collect();
    alone.iter().flat_map(|text| [text.clone(), format!("ssl verify none {text}")]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_word_that_a_registration_may_say_is_taken_or_refused_with_its_servers_line() {
    for program in programs().into_iter().chain(making()) {
        let (mut tried, mut refused) = (0, Vec::new());
        for mode in [Mode::Http, Mode::Tcp] {
            let place = Place { tracked: &|name| name == "first" || name == "a", ..Place::of_mode(mode) };
            let taken: Vec<String> = texts().iter().filter_map(|t| Some(parse(t, &place).ok()?.to_string())).collect();
            tried += taken.len();
            // Each in a section of its own; what is refused is left out until the rest is taken.
            let mut left = taken;
            for _ in 0..40 {
                let section = |(n, words): (usize, &String)| {
                    let name = mode.as_str();
                    format!(
                        "backend {name}{n}\n    mode {name}\n    server first 127.0.0.1:1 check inter 2s\n    server a 127.0.0.1:2 check inter 2s {words}\n"
                    )
                };
                let body: String = left.iter().enumerate().map(section).collect();
                let lab = Lab::new(&program, &body);
                let text = std::fs::read_to_string(&lab.launch.config).unwrap();
                let Err(error) = check::check(&program, &lab.launch.config, check::CHECK_TIMEOUT).await else { break };
                let CheckError::Refused { output, .. } = error else { panic!("{error}") };
                let lines: Vec<&str> = text.lines().collect();
                // Warnings name lines, too.
                let alerts = output.lines().filter(|line| line.contains("[ALERT]"));
                let guilty: Vec<usize> = alerts
                    .flat_map(|line| line.split("haproxy.cfg:").skip(1))
                    .filter_map(|rest| rest.split(']').next()?.parse().ok())
                    .collect();
                let words: Vec<&str> = guilty
                    .iter()
                    .filter_map(|n| lines.get(n - 1)?.split_once("check inter 2s "))
                    .map(|(_, words)| words)
                    .collect();
                assert!(!words.is_empty(), "no line of a server is named: {output}");
                refused.extend(words.iter().map(|w| (*w).to_owned()));
                left.retain(|w| !words.contains(&w.as_str()));
            }
        }
        assert!(tried > 300, "{tried}");
        refused.sort();
        refused.dedup();
        // What is left to HAProxy depends on its version, on its TLS library, or on the words around it.
        let of_version = [
            "check-pool-conn-name",
            "check-reuse-pool",
            "check-ssl",
            "ciphers",
            "ciphersuites",
            "client-sigalgs",
            "curves",
            "idle-ping",
            "init-state",
            "npn",
            "pool-conn-name",
            "sigalgs",
            "sni-auto",
            "ssl",
            "strict-maxconn",
            "track",
            "force-tlsv10",
            "force-tlsv11",
            "ssl verify required",
        ];
        let unexpected: Vec<&String> = refused
            .iter()
            .filter(|text| {
                let word = text.strip_prefix("ssl verify none ").unwrap_or(text);
                !of_version.iter().any(|known| word.starts_with(known))
            })
            .collect();
        assert!(unexpected.is_empty(), "{}: {unexpected:?}", program.display());
    }
}

/// What is in our environment is not in HAProxy's, whatever a config asks: cargo gives every test `CARGO_MANIFEST_DIR`.
#[tokio::test]
async fn haproxy_knows_nothing_of_the_agents_environment() {
    for program in programs() {
        let port = super::free_port();
        let body = format!(
            "frontend f\n    bind 127.0.0.1:{port}\n    http-request return status 200 content-type text/plain lf-string \"%[env(CARGO_MANIFEST_DIR)]|%[env(PATH)]\"\n"
        );
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        let lab = Lab::start(&program, &body).await;
        let said = super::get(port).await;
        assert!(!said.contains(env!("CARGO_MANIFEST_DIR")) && said.contains("/bin"), "{said}");
        lab.stop().await;
    }
}
