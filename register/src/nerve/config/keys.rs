//! Every key of Nerve's config: what each means, for the schema and the docs, is in `tests/nerve/keys.txt`.

use agent::config::table::{Key, Kind};

use crate::nerve::reporters;

agent::keys_of! { key: Nerve, ours: Ours, go: GoNerve }

const NATURAL: Kind = Kind::Whole { min: 0, max: i64::MAX };
const COUNT: Kind = Kind::Whole { min: 1, max: 1000 };
const PORT: Kind = Kind::Digits { min: 1, max: 65_535 };

/// The whole file.
pub const ROOT: &[Key] = &[
    key("instance_id", Kind::Text),
    key("services", Kind::Map(&Kind::Object(SERVICE))),
    key("service_conf_dir", Kind::Text),
    key("heartbeat_path", Kind::Text),
    key("max_repeated_report_failures", COUNT),
    key("statsd", Kind::Object(STATSD)),
    key("listen_port", Kind::Any),
];

const STATSD: &[Key] = &[key("host", Kind::Text), key("port", Kind::Whole { min: 1, max: 65_535 })];

/// What a service has itself; its reporters' keys come on top.
const OWN: &[Key] = &[
    key("host", Kind::Text),
    key("port", PORT),
    key("check_interval", Kind::Number),
    key("check_mocked", Kind::Bool),
    key("checks", Kind::Objects(CHECK)),
    key("weight", Kind::Digits { min: 0, max: i64::MAX }),
    key("haproxy_server_options", Kind::Text),
    key("labels", Kind::Any),
    key("rate_limiting", Kind::Object(RATE_LIMITING)),
    key("load_test_concurrency", NATURAL),
    ours("nerve_first_result", Kind::Bool),
    key("reporter_type", Kind::Lines),
    go("reporters", Kind::Objects(REPORTER)),
];

const RATE_LIMITING: &[Key] =
    &[key("shadow_mode", Kind::Bool), key("average_rate", Kind::Number), key("max_burst", Kind::Number)];

const CHECK: &[Key] = &[
    key("type", Kind::Text),
    key("name", Kind::Text),
    key("module", Kind::Text),
    key("host", Kind::Text),
    key("port", PORT),
    key("timeout", Kind::Number),
    key("rise", COUNT),
    key("fall", COUNT),
    key("uri", Kind::Text),
    key("ssl", Kind::Bool),
    ours("ssl_verify", Kind::Bool),
    ours("ca_file", Kind::Text),
    key("headers", Kind::Map(&Kind::Text)),
    key("expect", Kind::Text),
    key("read_timeout", Kind::Number),
    key("open_timeout", Kind::Number),
    key("ssl_timeout", Kind::Number),
    key("username", Kind::Text),
    key("password", Kind::Text),
    ours("vhost", Kind::Text),
    ours("service", Kind::Text),
    go("command", Kind::Lines),
];

const OWN_REPORTER: &[Key] = &[key("reporter_type", Kind::Lines)];

pub const SERVICE: &[Key] = &joined::<{ OWN.len() + reporters_keys() }>(OWN);

/// One entry of `reporters`.
const REPORTER: &[Key] = &joined::<{ OWN_REPORTER.len() + reporters_keys() }>(OWN_REPORTER);

const fn reporters_keys() -> usize {
    let (mut n, mut all) = (0, 0);
    while n < reporters::KEYS.len() {
        all += reporters::KEYS[n].len();
        n += 1;
    }
    all
}

/// `first`, then the keys of every reporter.
const fn joined<const N: usize>(first: &[Key]) -> [Key; N] {
    let mut all = [first[0]; N];
    let (mut at, mut n) = (0, 0);
    while n < first.len() {
        all[at] = first[n];
        (at, n) = (at + 1, n + 1);
    }
    let mut part = 0;
    while part < reporters::KEYS.len() {
        let mut n = 0;
        while n < reporters::KEYS[part].len() {
            all[at] = reporters::KEYS[part][n];
            (at, n) = (at + 1, n + 1);
        }
        part += 1;
    }
    all
}
