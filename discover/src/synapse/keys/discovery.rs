//! Keys of `discovery`: where a service's backends come from.

use super::{Key, Kind, NATURAL, PORT_NUMBER, fork, key, ours};

/// The words of all methods.
pub const METHODS: &[&str] = &[
    "etcd",
    "file",
    "dns",
    "zookeeper",
    "zookeeper_poll",
    "zookeeper_dns",
    "zookeeper_dns_poll",
    "docker",
    "ec2tag",
    "marathon",
    "multi",
    "base",
];

/// Synapse's README has an older word for a method than Synapse itself.
const OLD_METHODS: &[(&str, &str)] = &[("awstag", "ec2tag")];

/// Where backends come from.
pub const DISCOVERY: &[Key] = &[
    key(
        "method",
        Kind::Spelled(METHODS, OLD_METHODS),
        "",
        "The kind of watcher; required. An old spelling of `ec2tag` is `awstag`.",
        "an_unknown_method_lists_the_known_ones",
    )
    .required(),
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
        "The first look comes at a random moment within so many seconds. zookeeper: changes are read at most so often; above 120 it is not used.",
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
    key(
        "image_name",
        Kind::Text,
        "",
        "docker: the image, with its registry and without its tag; required.",
        "docker_lists_what_an_image_publishes_on_each_host",
    ),
    key(
        "container_port",
        PORT_NUMBER,
        "",
        "docker: the port in the container; required.",
        "docker_lists_what_an_image_publishes_on_each_host",
    ),
    ours(
        "internal",
        Kind::Bool,
        "false",
        "docker: containers at their own addresses, published or not.",
        "docker_takes_containers_own_addresses_and_the_labels_of_filters",
    ),
    ours(
        "network",
        Kind::Text,
        "any",
        "docker: the network whose address counts as a container's own.",
        "docker_takes_containers_own_addresses_and_the_labels_of_filters",
    ),
    key("tag_name", Kind::Text, "", "ec2tag: the tag's key; required.", "ec2tag_finds_running_instances_by_their_tag"),
    key("tag_value", Kind::Text, "", "ec2tag: its value; required.", "ec2tag_finds_running_instances_by_their_tag"),
    key(
        "aws_region",
        Kind::Text,
        "AWS_REGION, else us-east-1",
        "ec2tag: the region.",
        "ec2tag_finds_running_instances_by_their_tag",
    ),
    key(
        "aws_access_key_id",
        Kind::Text,
        "the standard chain",
        "ec2tag: credentials; better left to environment, shared files, SSO, web identity, ECS or EC2's metadata.",
        "ec2tag_credentials_come_from_the_config_or_the_standard_chain",
    ),
    key(
        "aws_secret_access_key",
        Kind::Text,
        "the standard chain",
        "ec2tag: the same.",
        "ec2tag_credentials_come_from_the_config_or_the_standard_chain",
    ),
    ours(
        "aws_endpoint_url",
        Kind::Text,
        "AWS_ENDPOINT_URL_EC2, AWS_ENDPOINT_URL",
        "ec2tag: another endpoint than AWS' own.",
        "ec2tag_finds_running_instances_by_their_tag",
    ),
    key(
        "marathon_api_url",
        Kind::Lines,
        "",
        "marathon: its URL, or several, of which the first that answers is asked; a user and password in one count. Required.",
        "marathon_has_several_urls_and_either_authentication",
    ),
    key(
        "marathon_api_path",
        Kind::Text,
        "/v2/apps/%{app}/tasks",
        "marathon: where an application's tasks are.",
        "marathon_lists_the_started_tasks_of_an_application",
    ),
    ours(
        "marathon_authorization",
        Kind::Text,
        "",
        "marathon: the header Authorization, such as `token=…`.",
        "marathon_has_several_urls_and_either_authentication",
    ),
    key(
        "application_name",
        Kind::Text,
        "",
        "marathon: the application's id; required.",
        "marathon_lists_the_started_tasks_of_an_application",
    ),
    key(
        "port_index",
        NATURAL,
        "0",
        "marathon: which of a task's ports.",
        "marathon_lists_the_started_tasks_of_an_application",
    ),
    key(
        "watchers",
        Kind::Any,
        "",
        "multi: watchers by name, each an object like this one.",
        "multi_watchers_have_keys_and_filters_of_their_own",
    ),
    key("resolver", Kind::Object(RESOLVER), "", "multi: how their answers become one.", "multi_names_what_is_wrong"),
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

/// How several watchers become one.
const RESOLVER: &[Key] = &[
    key(
        "method",
        Kind::Text,
        "",
        "`union`: all backends of all watchers, of two at one address the earlier watcher's; `sequential`: the first watcher that works and has a backend; `fallback`: the first that has a backend, though it fail; `s3_toggle`: one drawn by weight; `base`: none. Required.",
        "multi_union_has_what_any_watcher_has",
    ),
    key(
        "sequential_order",
        Kind::Lines,
        "",
        "sequential: each watcher once, the preferred one first; required.",
        "multi_sequential_passes_on_when_a_watcher_fails",
    ),
    ours(
        "fallback_order",
        Kind::Lines,
        "the order of the file",
        "fallback: each watcher once, the preferred one first.",
        "multi_fallback_passes_on_only_when_a_watcher_has_no_backend",
    ),
    key(
        "s3_url",
        Kind::Text,
        "",
        "s3_toggle: `s3://BUCKET/KEY` of a YAML object watcher: weight; required.",
        "multi_s3_toggle_draws_a_watcher_when_the_weights_change",
    ),
    key(
        "s3_polling_interval_seconds",
        Kind::Number,
        "",
        "s3_toggle: between two looks; required.",
        "multi_s3_toggle_draws_a_watcher_when_the_weights_change",
    ),
    ours(
        "aws_region",
        Kind::Text,
        "AWS_REGION, else us-east-1",
        "s3_toggle: the bucket's region.",
        "multi_s3_toggle_draws_a_watcher_when_the_weights_change",
    ),
    ours(
        "aws_access_key_id",
        Kind::Text,
        "the standard chain",
        "s3_toggle: credentials.",
        "multi_s3_toggle_draws_a_watcher_when_the_weights_change",
    ),
    ours(
        "aws_secret_access_key",
        Kind::Text,
        "the standard chain",
        "s3_toggle: the same.",
        "multi_s3_toggle_draws_a_watcher_when_the_weights_change",
    ),
    ours(
        "aws_endpoint_url",
        Kind::Text,
        "AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL",
        "s3_toggle: another endpoint than AWS' own.",
        "multi_s3_toggle_draws_a_watcher_when_the_weights_change",
    ),
];

/// One of `servers`.
const SERVER: &[Key] = &[
    key("name", Kind::Text, "", "The backends' name.", "dns_makes_a_backend_of_each_address"),
    key(
        "host",
        Kind::Text,
        "",
        "dns: a name or address; docker: the daemon's host, or its URL (`unix:///…`, `tcp://…`, `https://…`). Required.",
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
        "cert_path",
        Kind::Text,
        "",
        "docker: TLS, by this directory's `ca.pem`, `cert.pem` and `key.pem`.",
        "docker_hosts_speak_tls_with_certificates",
    ),
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
