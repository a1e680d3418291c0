//! Keys of `discovery`: where a service's backends come from.

use super::{Key, Kind, NATURAL, PORT_NUMBER, fork, key};

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
        "zookeeper, etcd: the servers, `host` or `host:port`.",
        "etcd_is_found_in_each_forks_spelling",
    ),
    key(
        "path",
        Kind::Text,
        "",
        "zookeeper, etcd: where the registrations lie.",
        "etcd_is_found_in_each_forks_spelling",
    ),
    key(
        "decode",
        Kind::Any,
        "",
        "zookeeper: `{method: nerve|serverset, endpoint_name}`.",
        "other_methods_keys_are_known",
    ),
    key(
        "retry_policy",
        Kind::Any,
        "",
        "zookeeper: retries are paced by discover itself.",
        "other_methods_keys_are_known",
    ),
    key("discovery_jitter", Kind::Number, "0", "zookeeper: seconds.", "other_methods_keys_are_known"),
    key(
        "generator_config_path",
        Kind::Text,
        "path",
        "zookeeper: a node with the generators' config, or `disabled`.",
        "a_section_from_the_registry_takes_the_place_of_the_configs",
    ),
    key("polling_interval_sec", Kind::Number, "60", "zookeeper_poll.", "other_methods_keys_are_known"),
    key("nameserver", Kind::Text, "", "dns, zookeeper_dns.", "other_methods_keys_are_known"),
    key(
        "check_interval",
        Kind::Number,
        "15 or 30",
        "dns, docker, ec2tag, marathon: seconds between two looks.",
        "other_methods_keys_are_known",
    ),
    key("servers", Kind::Any, "", "dns, docker: `[{name, host, port, labels}]`.", "other_methods_keys_are_known"),
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
