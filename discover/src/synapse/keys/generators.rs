//! Keys of the other generators' own sections, and of a service's parts for them.

use super::{Key, Kind, NATURAL, key, nginx, ours};

pub(super) const DISABLED: &[Key] =
    &[key("disabled", Kind::Bool, "false", "No file for this service.", "file_output_can_be_disabled_for_a_service")];

pub(super) const FILE_OUTPUT: &[Key] = &[key(
    "output_directory",
    Kind::Text,
    "",
    "One `SERVICE.json` for each service; other `*.json` there are deleted. Required.",
    "file_output_writes_changed_files_and_removes_others",
)];

pub(super) const NGINX: &[Key] = &[
    nginx(
        "contexts",
        Kind::Map(&Kind::Lines),
        "",
        "Lines of `main`, `events` (both required), `http`, `stream`, and any other context.",
        "nginx_http_and_stream",
    ),
    nginx("do_writes", Kind::Bool, "true", "nginx.conf is written.", "nginx_needs_its_commands"),
    nginx("do_reloads", Kind::Bool, "true", "nginx is reloaded.", "nginx_needs_its_commands"),
    nginx("config_file_path", Kind::Text, "", "nginx.conf; required with do_writes.", "nginx_needs_its_commands"),
    nginx(
        "check_command",
        Kind::Text,
        "nginx -t -c CANDIDATE",
        "Shell command; `{candidate}` is the file to try.",
        "nginx_needs_its_commands",
    ),
    nginx("reload_command", Kind::Text, "", "Shell command; required with do_reloads.", "nginx_needs_its_commands"),
    nginx(
        "start_command",
        Kind::Text,
        "",
        "Shell command, run once before the first reload.",
        "nginx_needs_its_commands",
    ),
    nginx("restart_interval", NATURAL, "2", "Least seconds between two reloads.", "nginx_needs_its_commands"),
    nginx(
        "restart_jitter",
        Kind::Number,
        "0",
        "Up to this share of the interval is added at random.",
        "nginx_needs_its_commands",
    ),
    nginx("listen_address", Kind::Text, "localhost", "The address of every server.", "nginx_http_and_stream"),
];

/// A service's part of nginx.conf.
pub const SERVICE_NGINX: &[Key] = &[
    nginx("disabled", Kind::Bool, "false", "Nothing is written for this service.", "nginx_http_and_stream"),
    nginx("mode", Kind::Word(&["http", "tcp"]), "http", "Which context it is in.", "nginx_http_and_stream"),
    nginx("port", Kind::Port, "", "The server's port; without this key there is no server.", "nginx_http_and_stream"),
    nginx("upstream", Kind::Lines, "[]", "Lines of its upstream.", "nginx_http_and_stream"),
    nginx("server", Kind::Lines, "[]", "Lines of its server.", "nginx_http_and_stream"),
    nginx("listen_address", Kind::Text, "nginx.listen_address", "The server's address.", "nginx_http_and_stream"),
    nginx("listen_options", Kind::Text, "", "Words behind the address.", "nginx_http_and_stream"),
    nginx(
        "upstream_order",
        Kind::Text,
        "asc",
        "asc, desc, no_shuffle; anything else shuffles.",
        "nginx_http_and_stream",
    ),
    nginx("upstream_name", Kind::Text, "the service's name", "The upstream's name.", "nginx_http_and_stream"),
    nginx("server_options", Kind::Text, "", "Words of every server line.", "nginx_http_and_stream"),
];

pub(super) const TEMPLATE: &[Key] = &[
    ours("source", Kind::Text, "", "The Tera template; required.", "templates_are_rendered_and_their_commands_run")
        .required(),
    ours("destination", Kind::Text, "", "The file; required.", "templates_are_rendered_and_their_commands_run")
        .required(),
    ours("mode", Kind::Text, "0644", "Its mode, octal.", "templates_are_rendered_and_their_commands_run"),
    ours("owner", Kind::Text, "", "USER or USER:GROUP.", "templates_are_rendered_and_their_commands_run"),
    ours(
        "check_command",
        Kind::Text,
        "",
        "Shell command; `{candidate}` is the file to try. A failure keeps the old file.",
        "templates_are_rendered_and_their_commands_run",
    ),
    ours(
        "reload_command",
        Kind::Text,
        "",
        "Shell command after a change.",
        "templates_are_rendered_and_their_commands_run",
    ),
    ours("quiet", Kind::Number, "0", "A change is written after this many quiet seconds …", "templates_wait_for_quiet"),
    ours("max_wait", Kind::Number, "quiet × 4", "… and at the latest after this many.", "templates_wait_for_quiet"),
];

pub(super) const PROMETHEUS: &[Key] = &[
    ours("file", Kind::Text, "", "The file_sd file, JSON; required.", "prometheus_targets_carry_labels").required(),
    ours(
        "label_prefix",
        Kind::Text,
        "label_",
        "Put before the names of the registrations' own labels; what would then be a label of Prometheus' (`job`, `instance`) begins with `label_` in any case.",
        "prometheus_targets_carry_labels",
    ),
];

pub(super) const SERVICE_PROMETHEUS: &[Key] = &[
    ours("disabled", Kind::Bool, "false", "No targets for this service.", "prometheus_targets_carry_labels"),
    ours("labels", Kind::Map(&Kind::Text), "{}", "Further labels of its targets.", "prometheus_targets_carry_labels"),
];
