//! The whole file.

use super::generators::{FILE_OUTPUT, NGINX, PROMETHEUS, TEMPLATE};
use super::{EDGE, HAPROXY, Key, Kind, PORT_NUMBER, SERVICE, key, nginx, ours};

/// The whole file.
pub const ROOT: &[Key] = &[
    key(
        "services",
        Kind::Map(&Kind::Object(SERVICE)),
        "{}",
        "Services by name, in the order of haproxy.cfg.",
        "services_keep_the_order_of_the_file",
    ),
    key(
        "service_conf_dir",
        Kind::Text,
        "",
        "Directory of further services, `NAME.json` or `NAME.yaml` each; one of the same name takes the place of the other.",
        "service_conf_dir_adds_and_replaces_services",
    ),
    ours(
        "backend_networks",
        Kind::Lines,
        "[]",
        "Networks or addresses that backends may have; with `!` before it, that they may not. Without one that is listed: all but special ones, loopback among them.",
        "backend_networks_say_which_addresses_count",
    ),
    key("haproxy", Kind::Object(HAPROXY), "", "The haproxy generator.", "a_section_without_its_required_keys_is_named"),
    ours(
        "edge",
        Kind::Object(EDGE),
        "",
        "The HTTP edge, routed by host and path.",
        "the_edge_is_read_from_its_section",
    ),
    ours(
        "owners",
        Kind::Map(&Kind::Lines),
        "{}",
        "Which nodes may register a service, by its name, `*` standing for anything: others, and keys without `@NODE` in their path, are left out. The most specific name counts. For `method: etcd`.",
        "owners_are_read_and_only_their_nodes_registrations_count",
    ),
    key(
        "file_output",
        Kind::Object(FILE_OUTPUT),
        "",
        "The file_output generator.",
        "file_output_writes_changed_files_and_removes_others",
    ),
    nginx("nginx", Kind::Object(NGINX), "", "The nginx generator.", "nginx_http_and_stream"),
    ours(
        "template",
        Kind::Map(&Kind::Object(TEMPLATE)),
        "",
        "Files rendered from Tera templates, by a name of your choice.",
        "templates_are_rendered_and_their_commands_run",
    ),
    ours(
        "prometheus",
        Kind::Object(PROMETHEUS),
        "",
        "Targets for Prometheus' file_sd.",
        "prometheus_targets_carry_labels",
    ),
    key("statsd", Kind::Object(STATSD), "", "Taken and not used: metrics are at `/metrics`.", "statsd_is_tolerated"),
];

const STATSD: &[Key] = &[
    key("host", Kind::Text, "localhost", "Not used.", "statsd_is_tolerated"),
    key("port", PORT_NUMBER, "8125", "Not used.", "statsd_is_tolerated"),
    key("sample_rate", Kind::Any, "", "Not used.", "statsd_is_tolerated"),
];
