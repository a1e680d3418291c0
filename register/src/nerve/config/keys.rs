//! Every key of Nerve's config: one table, from which come the checks, the JSON Schema and the reference in the docs.

use agent::config::table::{Key, Kind};

use crate::nerve::reporters;

agent::keys_of! { key: Nerve, ours: Ours, go: GoNerve }

const NATURAL: Kind = Kind::Whole { min: 0, max: i64::MAX };
const COUNT: Kind = Kind::Whole { min: 1, max: 1000 };
const PORT: Kind = Kind::Digits { min: 1, max: 65_535 };

/// The whole file.
pub const ROOT: &[Key] = &[
    key(
        "instance_id",
        Kind::Text,
        "",
        "Required. The `name` of every registration, and part of its key or node. `-i` and NERVE_INSTANCE_ID win.",
        "instance_id_is_required_and_the_flag_wins",
    ),
    key(
        "services",
        Kind::Map(&Kind::Object(SERVICE)),
        "{}",
        "Services by name. Required, here or in service_conf_dir.",
        "a_file_without_services_or_of_another_shape_is_refused",
    ),
    key(
        "service_conf_dir",
        Kind::Text,
        "",
        "Directory of further services, `NAME.json` or `NAME.yaml` each; one of the same name takes the place of the other.",
        "service_conf_dir_adds_and_replaces_services",
    ),
    key(
        "heartbeat_path",
        Kind::Text,
        "",
        "A file that is touched every 10 s while the agent works.",
        "the_heartbeat_file_is_touched",
    ),
    key(
        "max_repeated_report_failures",
        COUNT,
        "10",
        "After so many failed tries in a row a reporter of ZooKeeper's throws its connection away and makes a new one; etcd's is renewed after any failure. None ever gives up.",
        "top_level_keys_have_their_defaults_and_values",
    ),
    key(
        "statsd",
        Kind::Object(STATSD),
        "",
        "Counts go there as Nerve's did, by UDP. Without this section nothing is sent; `/metrics` has everything.",
        "statsd_hears_nerves_names_when_it_is_configured",
    ),
    key("listen_port", Kind::Any, "", "Taken and not used.", "listen_port_and_unknown_keys_are_tolerated"),
];

const STATSD: &[Key] = &[
    key("host", Kind::Text, "localhost", "Where StatsD listens.", "statsd_hears_nerves_names_when_it_is_configured"),
    key(
        "port",
        Kind::Whole { min: 1, max: 65_535 },
        "8125",
        "Its UDP port.",
        "statsd_hears_nerves_names_when_it_is_configured",
    ),
];

/// What a service has itself; its reporters' keys come on top.
const OWN: &[Key] = &[
    key(
        "host",
        Kind::Text,
        "",
        "Required. What is published, and what checks dial.",
        "the_payload_is_nerves_byte_for_byte",
    )
    .required(),
    key(
        "port",
        PORT,
        "",
        "Required. What is published, and what checks dial; published as it is written, number or text.",
        "the_payload_is_nerves_byte_for_byte",
    )
    .required(),
    key(
        "check_interval",
        Kind::Number,
        "0.5",
        "Seconds from the end of one round of checks to the next.",
        "checks_run_one_after_the_other_and_stop_at_the_first_failure",
    ),
    key(
        "check_mocked",
        Kind::Bool,
        "false",
        "No check is run; the service counts as up.",
        "a_mocked_service_and_one_without_checks_are_up",
    ),
    key(
        "checks",
        Kind::Objects(CHECK),
        "[]",
        "All must pass, one after the other; without any the service is always up.",
        "checks_run_one_after_the_other_and_stop_at_the_first_failure",
    ),
    key(
        "weight",
        Kind::Digits { min: 0, max: i64::MAX },
        "",
        "Published as a number. HAProxy takes at most 256.",
        "the_payload_is_nerves_byte_for_byte",
    ),
    key("haproxy_server_options", Kind::Text, "", "Published as it is.", "the_payload_is_nerves_byte_for_byte"),
    key("labels", Kind::Any, "", "An object, published as it is.", "the_payload_is_nerves_byte_for_byte"),
    key(
        "rate_limiting",
        Kind::Object(RATE_LIMITING),
        "",
        "How often the service may come and go.",
        "reports_are_limited_unless_in_shadow_mode",
    ),
    key(
        "load_test_concurrency",
        NATURAL,
        "",
        "So many copies of the service, named `NAME_0` and on; at most 10,000.",
        "load_test_concurrency_makes_copies",
    ),
    ours(
        "nerve_first_result",
        Kind::Bool,
        "false",
        "The first result of a check decides at once, as in Nerve; otherwise `rise` counts from the start.",
        "rise_counts_from_the_start_unless_nerves_way_is_asked_for",
    ),
    key(
        "reporter_type",
        Kind::Lines,
        "zookeeper",
        "zookeeper, etcd or base; or a list of them.",
        "a_service_may_have_several_reporters",
    ),
    go(
        "reporters",
        Kind::Objects(REPORTER),
        "",
        "Several reporters, each with keys that take the place of the service's own.",
        "a_service_may_have_several_reporters",
    ),
];

const RATE_LIMITING: &[Key] = &[
    key(
        "shadow_mode",
        Kind::Bool,
        "true",
        "Only say what would be held back.",
        "reports_are_limited_unless_in_shadow_mode",
    ),
    key(
        "average_rate",
        Kind::Number,
        "infinite",
        "Reports a second; also how many are free at the start.",
        "reports_are_limited_unless_in_shadow_mode",
    ),
    key(
        "max_burst",
        Kind::Number,
        "infinite",
        "How many reports may be saved up, at least 1.",
        "reports_are_limited_unless_in_shadow_mode",
    ),
];

const CHECK: &[Key] = &[
    key(
        "type",
        Kind::Text,
        "",
        "Required: tcp, http, redis, rabbitmq, noop; ours: grpc, exec. base always fails, as in Nerve.",
        "an_unknown_check_names_the_known_ones",
    )
    .required(),
    key("name", Kind::Text, "", "For people.", "each_check_has_its_options"),
    key(
        "module",
        Kind::Text,
        "",
        "A gem of Nerve's: an error, as there are none.",
        "an_unknown_check_names_the_known_ones",
    ),
    key("host", Kind::Text, "the service's", "What is dialled; a name is resolved.", "each_check_has_its_options"),
    key("port", PORT, "the service's", "What is dialled.", "each_check_has_its_options"),
    key(
        "timeout",
        Kind::Number,
        "1",
        "Seconds that one try may take. Nerve's default of 0.1 failed what was merely busy.",
        "each_check_has_its_options",
    ),
    key(
        "rise",
        COUNT,
        "1",
        "So many passes in a row make it pass.",
        "rise_counts_from_the_start_unless_nerves_way_is_asked_for",
    ),
    key(
        "fall",
        COUNT,
        "1",
        "So many failures in a row make it fail.",
        "rise_counts_from_the_start_unless_nerves_way_is_asked_for",
    ),
    key("uri", Kind::Text, "", "http: required; path and query.", "each_check_has_its_options"),
    key("ssl", Kind::Bool, "false", "http, grpc: over TLS.", "each_check_has_its_options"),
    ours(
        "ssl_verify",
        Kind::Bool,
        "true",
        "http, grpc: whether the certificate is verified, which Nerve never did.",
        "each_check_has_its_options",
    ),
    ours("ca_file", Kind::Text, "the system's", "http, grpc: authorities to trust, PEM.", "each_check_has_its_options"),
    key("headers", Kind::Map(&Kind::Text), "{}", "http: more request headers.", "each_check_has_its_options"),
    key(
        "expect",
        Kind::Text,
        "",
        "http: what the body must contain (in its first 64 kB).",
        "each_check_has_its_options",
    ),
    key(
        "read_timeout",
        Kind::Number,
        "timeout",
        "http: seconds from the request to the answer.",
        "each_check_has_its_options",
    ),
    key("open_timeout", Kind::Number, "timeout", "http: seconds to connect.", "each_check_has_its_options"),
    key("ssl_timeout", Kind::Number, "timeout", "http: seconds for the TLS handshake.", "each_check_has_its_options"),
    key("username", Kind::Text, "guest", "rabbitmq: who to be.", "each_check_has_its_options"),
    key("password", Kind::Text, "guest", "rabbitmq, redis: the password.", "each_check_has_its_options"),
    ours("vhost", Kind::Text, "/", "rabbitmq: the virtual host.", "each_check_has_its_options"),
    ours("service", Kind::Text, "", "grpc: the service asked about.", "each_check_has_its_options"),
    go(
        "command",
        Kind::Lines,
        "",
        "exec: a program with its arguments, or a line for the shell; passes when it ends with 0.",
        "each_check_has_its_options",
    ),
];

const OWN_REPORTER: &[Key] = &[key(
    "reporter_type",
    Kind::Lines,
    "the service's",
    "zookeeper, etcd or base.",
    "a_service_may_have_several_reporters",
)];

/// One service.
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
