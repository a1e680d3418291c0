//! Keys of `discovery`: where a service's backends come from.

use super::{Key, Kind, NATURAL, PORT_NUMBER, fork, key, ours};

/// Where backends come from.
pub const DISCOVERY: &[Key] = &[
    key("method", Kind::Text, "", "The kind of watcher; required.", "an_unknown_method_lists_the_known_ones"),
    key(
        "label_filters",
        Kind::Objects(LABEL_FILTER),
        "[]",
        "Only backends that pass all of these count.",
        "label_filters_are_anded",
    ),
    key(
        "label_filter",
        Kind::Objects(LABEL_FILTER),
        "",
        "The old spelling of label_filters.",
        "label_filters_are_anded",
    ),
    key(
        "hosts",
        Kind::Lines,
        "",
        "zookeeper, etcd: the servers, `host` or `host:port`; zookeeper: with a chroot behind the last one, `host:port/path`.",
        "etcd_is_found_in_each_forks_spelling",
    ),
    key(
        "path",
        Kind::Text,
        "",
        "zookeeper, etcd: where the registrations lie. file: a JSON or YAML file, or a directory of them.",
        "etcd_is_found_in_each_forks_spelling",
    ),
    key(
        "decode",
        Kind::Object(DECODE),
        "nerve",
        "zookeeper: the format of the registrations.",
        "zookeeper_reads_nerves_and_serversets_registrations",
    ),
    ours(
        "zk_auth",
        Kind::Text,
        "",
        "zookeeper: who to be, `digest:USER:PASSWORD`; best as `${VARIABLE}`.",
        "zookeeper_below_a_chroot_and_as_a_user",
    ),
    key(
        "retry_policy",
        Kind::Object(RETRY_POLICY),
        "",
        "zookeeper: how refused requests are tried again; it never gives up.",
        "zookeeper_tries_again_as_its_policy_says",
    ),
    key(
        "discovery_jitter",
        Kind::Number,
        "0",
        "The first look comes at a random moment within so many seconds. zookeeper: changes are read at most so often, 0 to 120.",
        "a_fleet_that_starts_at_once_is_spread_out",
    ),
    key(
        "generator_config_path",
        Kind::Text,
        "path",
        "zookeeper: a node with the generators' config, or `disabled`.",
        "zookeeper_brings_the_generators_config",
    ),
    key(
        "polling_interval_sec",
        Kind::Number,
        "60",
        "zookeeper_poll, zookeeper_dns_poll: seconds between two looks.",
        "zookeeper_poll_looks_as_often_as_it_is_told",
    ),
    key(
        "nameserver",
        Kind::Lines,
        "/etc/resolv.conf",
        "dns, zookeeper_dns: name servers, each an address with its port or without.",
        "dns_asks_the_name_servers_that_it_is_given",
    ),
    key(
        "check_interval",
        Kind::Number,
        "10, 15 or 30",
        "dns, docker, ec2tag, file, marathon: seconds between two looks; a source's own signals and a record's shorter TTL come before.",
        "dns_looks_again_when_the_shortest_ttl_is_over",
    ),
    key(
        "servers",
        Kind::Objects(SERVER),
        "",
        "dns: the names to resolve. docker: the daemons.",
        "dns_makes_a_backend_of_each_address",
    ),
    key("image_name", Kind::Text, "", "docker: the image, without its tag.", "other_methods_keys_are_known"),
    key("container_port", PORT_NUMBER, "", "docker: the port in the container.", "other_methods_keys_are_known"),
    key("tag_name", Kind::Text, "", "ec2tag.", "other_methods_keys_are_known"),
    key("tag_value", Kind::Text, "", "ec2tag.", "other_methods_keys_are_known"),
    key("aws_region", Kind::Text, "", "ec2tag.", "other_methods_keys_are_known"),
    key("aws_access_key_id", Kind::Text, "", "ec2tag.", "other_methods_keys_are_known"),
    key("aws_secret_access_key", Kind::Text, "", "ec2tag.", "other_methods_keys_are_known"),
    key("marathon_api_url", Kind::Text, "", "marathon.", "other_methods_keys_are_known"),
    key("marathon_api_path", Kind::Text, "/v2/apps/%{app}/tasks", "marathon.", "other_methods_keys_are_known"),
    key("application_name", Kind::Text, "", "marathon.", "other_methods_keys_are_known"),
    key("port_index", NATURAL, "0", "marathon.", "other_methods_keys_are_known"),
    key("watchers", Kind::Any, "", "multi: watchers by name.", "other_methods_keys_are_known"),
    key("resolver", Kind::Any, "", "multi: how their answers become one.", "other_methods_keys_are_known"),
    fork("host", Kind::Text, "", "etcd: one server (ETCD_HOST without it).", "etcd_is_found_in_each_forks_spelling"),
    fork("port", PORT_NUMBER, "2379", "etcd: its port (ETCD_PORT without it).", "etcd_is_found_in_each_forks_spelling"),
];

/// `decode`.
const DECODE: &[Key] = &[
    key(
        "method",
        Kind::Word(&["nerve", "serverset"]),
        "",
        "Nerve's objects, or Twitter's server sets. Required.",
        "zookeeper_reads_nerves_and_serversets_registrations",
    ),
    key(
        "endpoint_name",
        Kind::Text,
        "the service's own endpoint",
        "serverset: which of the additional endpoints.",
        "zookeeper_reads_nerves_and_serversets_registrations",
    ),
];

/// `retry_policy`.
const RETRY_POLICY: &[Key] = &[
    key("base_interval", Kind::Number, "0.5", "Seconds before the first new attempt.", RETRIES),
    key("max_interval", Kind::Number, "60", "Seconds between two attempts at most.", RETRIES),
    key(
        "max_attempts",
        Kind::Number,
        "10",
        "Without effect: the last answer stays, and it is tried for ever.",
        RETRIES,
    ),
    key("max_delay", Kind::Number, "600", "Without effect, as `max_attempts`.", RETRIES),
];
const RETRIES: &str = "zookeeper_tries_again_as_its_policy_says";

/// One of `servers`.
const SERVER: &[Key] = &[
    key("name", Kind::Text, "", "The backends' name.", "dns_makes_a_backend_of_each_address"),
    key(
        "host",
        Kind::Text,
        "",
        "dns: a name or address; docker: the daemon's host. Required.",
        "dns_makes_a_backend_of_each_address",
    ),
    key(
        "port",
        Kind::Any,
        "docker: 4243",
        "dns: the backends' port (an SRV record has its own); docker: the daemon's.",
        "dns_makes_a_backend_of_each_address",
    ),
    key("labels", Kind::Any, "", "dns: the backends' labels.", "dns_makes_a_backend_of_each_address"),
    ours(
        "record",
        Kind::Word(&["address", "srv"]),
        "srv for _NAME._PROTO.… without port",
        "dns: what is asked for: addresses (A and AAAA), or SRV.",
        "dns_srv_records_bring_ports_weights_and_backups",
    ),
];

const LABEL_FILTER: &[Key] = &[
    key("label", Kind::Text, "", "The label's name.", "label_filters_are_anded"),
    key("value", Kind::Any, "", "What it is compared with.", "label_filters_are_anded"),
    key(
        "condition",
        Kind::Text,
        "",
        "`equals` or `not-equals`; any other word lets nothing pass.",
        "label_filters_are_anded",
    ),
];
