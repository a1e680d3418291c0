//! Keys of a service, and of its default servers.

use super::generators::{DISABLED, SERVICE_NGINX, SERVICE_PROMETHEUS};
use super::{DISCOVERY, Key, Kind, NATURAL, SERVICE_HAPROXY, key, nginx, ours};

/// One service.
pub const SERVICE: &[Key] = &[
    key(
        "discovery",
        Kind::Object(DISCOVERY),
        "",
        "Where its backends come from; required.",
        "a_service_without_discovery_is_named",
    )
    .required(),
    key(
        "discovery_multi",
        Kind::Object(DISCOVERY),
        "",
        "Further watchers, merged with `discovery` (watcher `primary`) by a resolver.",
        "discovery_multi_adds_watchers_to_the_primary_one",
    ),
    key(
        "default_servers",
        Kind::Objects(REGISTRATION),
        "[]",
        "What counts before discovery answers, and when it answers that there is none.",
        "default_servers_fill_in_for_no_answer_and_for_none",
    ),
    key(
        "keep_default_servers",
        Kind::Bool,
        "false",
        "default_servers are added to every answer.",
        "keep_default_servers_adds_them_to_every_answer",
    ),
    key(
        "use_previous_backends",
        Kind::Bool,
        "true",
        "Without default_servers an empty answer keeps the last backends.",
        "use_previous_backends_keeps_the_last_ones",
    ),
    key(
        "backend_port_override",
        Kind::Whole { min: 0, max: 65_535 },
        "",
        "The port of every backend, whatever was registered.",
        "backend_port_override_and_its_old_spelling",
    ),
    key(
        "leader_election",
        Kind::Bool,
        "false",
        "Only the backend with the lowest `id` counts.",
        "leader_election_keeps_the_lowest_id",
    ),
    key(
        "load_test_concurrency",
        NATURAL,
        "",
        "That many copies of the service, `NAME_0` and on.",
        "load_test_concurrency_makes_copies",
    ),
    key(
        "haproxy",
        Kind::Object(SERVICE_HAPROXY),
        "{}",
        "Its part of haproxy.cfg.",
        "a_service_without_a_haproxy_section_gets_a_backend",
    ),
    key("file_output", Kind::Object(DISABLED), "{}", "Its file.", "file_output_can_be_disabled_for_a_service"),
    nginx("nginx", Kind::Object(SERVICE_NGINX), "{}", "Its part of nginx.conf.", "nginx_http_and_stream"),
    ours(
        "template",
        Kind::Any,
        "",
        "Free to use in templates, as `service.config`.",
        "templates_see_the_services_own_config",
    ),
    ours("prometheus", Kind::Object(SERVICE_PROMETHEUS), "{}", "Its targets.", "prometheus_targets_carry_labels"),
];

const REGISTRATION: &[Key] = &[
    key("host", Kind::Text, "", "Where it listens.", "default_servers_fill_in_for_no_answer_and_for_none"),
    key("port", Kind::Any, "", "The port on `host`.", "default_servers_fill_in_for_no_answer_and_for_none"),
    key("name", Kind::Any, "", "A name for people.", "default_servers_fill_in_for_no_answer_and_for_none"),
    key("id", Kind::Any, "", "Its number, for leader_election.", "leader_election_keeps_the_lowest_id"),
    key("weight", Kind::Any, "", "Its share.", "use_nerve_weights_moves_the_weight_to_the_end"),
    key("labels", Kind::Any, "", "Labels.", "label_filters_are_anded"),
    key("haproxy_server_options", Kind::Any, "", "Words for its server line.", "both_options_are_templates"),
    key("haproxy_server_id", Kind::Any, "", "Its id in HAProxy.", "ids_explicit_ones_first"),
];
