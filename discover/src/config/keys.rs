//! Every key of the config: one table, from which come the checks, the JSON Schema and the reference in the docs.

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// true or false; `yes`, `no`, `on`, `off` as YAML 1.1 had them.
    Bool,
    /// One line of text; a number is taken as its digits.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number, also as digits in a text.
    Whole {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// A number from 0 on.
    Number,
    /// A port or a range of them (`8000-8010`), or null.
    Port,
    /// Lines of text; one alone need not be in a list.
    Lines,
    /// Any JSON: Synapse passes over what it cannot use.
    Any,
    /// An object with these keys.
    Object(&'static [Key]),
    /// Such objects; one alone need not be in a list.
    Objects(&'static [Key]),
    /// Any names, each with such a value.
    Map(&'static Kind),
}

/// Whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Synapse's own.
    Synapse,
    /// synapse-nginx's.
    SynapseNginx,
    /// Of the clay.io or the etcd fork.
    Fork,
    /// Ours.
    Ours,
}

impl Origin {
    /// As the reference prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Synapse => "Synapse",
            Self::SynapseNginx => "synapse-nginx",
            Self::Fork => "a fork of Synapse",
            Self::Ours => "discover",
        }
    }
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// What counts without it, as the reference prints it; empty: nothing.
    pub default: &'static str,
    /// Whose it is.
    pub origin: Origin,
    /// What it does.
    pub doc: &'static str,
    /// The test that shows it.
    pub test: &'static str,
}

const fn key(name: &'static str, kind: Kind, default: &'static str, doc: &'static str, test: &'static str) -> Key {
    Key { name, kind, default, origin: Origin::Synapse, doc, test }
}

const fn ours(name: &'static str, kind: Kind, default: &'static str, doc: &'static str, test: &'static str) -> Key {
    Key { name, kind, default, origin: Origin::Ours, doc, test }
}

const fn fork(name: &'static str, kind: Kind, default: &'static str, doc: &'static str, test: &'static str) -> Key {
    Key { name, kind, default, origin: Origin::Fork, doc, test }
}

const fn nginx(name: &'static str, kind: Kind, default: &'static str, doc: &'static str, test: &'static str) -> Key {
    Key { name, kind, default, origin: Origin::SynapseNginx, doc, test }
}

const ANY_NUMBER: Kind = Kind::Whole { min: i64::MIN, max: i64::MAX };
const NATURAL: Kind = Kind::Whole { min: 0, max: i64::MAX };
const SERVER_ID: Kind = Kind::Whole { min: 1, max: 2_147_483_647 };
const PORT_NUMBER: Kind = Kind::Whole { min: 1, max: 65_535 };

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
    key("haproxy", Kind::Object(HAPROXY), "", "The haproxy generator.", "a_section_without_its_required_keys_is_named"),
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

/// One service.
pub const SERVICE: &[Key] = &[
    key(
        "discovery",
        Kind::Object(DISCOVERY),
        "",
        "Where its backends come from; required.",
        "a_service_without_discovery_is_named",
    ),
    key(
        "discovery_multi",
        Kind::Object(DISCOVERY),
        "",
        "Further watchers, merged with `discovery` (watcher `primary`) by a resolver.",
        "discovery_multi_is_read",
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

const DISABLED: &[Key] =
    &[key("disabled", Kind::Bool, "false", "No file for this service.", "file_output_can_be_disabled_for_a_service")];

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
        "other_methods_keys_are_known",
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

/// haproxy's own section.
pub const HAPROXY: &[Key] = &[
    key("global", Kind::Lines, "", "Lines of `global`; required.", "a_section_without_its_required_keys_is_named"),
    key("defaults", Kind::Lines, "", "Lines of `defaults`; required.", "a_section_without_its_required_keys_is_named"),
    key(
        "extra_sections",
        Kind::Map(&Kind::Lines),
        "{}",
        "Further sections: title → lines.",
        "extra_sections_and_their_old_titles",
    ),
    key(
        "config_file_path",
        Kind::Text,
        "",
        "haproxy.cfg; required with do_writes.",
        "a_section_without_its_required_keys_is_named",
    ),
    key(
        "socket_file_path",
        Kind::Lines,
        "",
        "HAProxy's sockets; required with do_socket.",
        "a_section_without_its_required_keys_is_named",
    ),
    key(
        "reload_command",
        Kind::Text,
        "",
        "Shell command; required with do_reloads.",
        "a_section_without_its_required_keys_is_named",
    ),
    key("do_writes", Kind::Bool, "true", "haproxy.cfg is written.", "do_switches"),
    key("do_socket", Kind::Bool, "true", "Changes go over the runtime API where they can.", "do_switches"),
    key("do_reloads", Kind::Bool, "true", "Other changes cause a reload.", "do_switches"),
    key(
        "do_checks",
        Kind::Bool,
        "false",
        "check_command judges the candidate before it becomes haproxy.cfg.",
        "do_switches",
    ),
    key(
        "check_command",
        Kind::Text,
        "",
        "Shell command; required with do_checks.",
        "a_section_without_its_required_keys_is_named",
    ),
    key(
        "candidate_config_file_path",
        Kind::Text,
        "config_file_path + \".tmp\"",
        "The file that is tried; required with do_checks.",
        "a_section_without_its_required_keys_is_named",
    ),
    key("bind_address", Kind::Text, "localhost", "The address of every frontend.", "bind_addresses_and_ports"),
    key(
        "shared_frontend",
        Kind::Lines,
        "",
        "First lines of `frontend shared-frontend`.",
        "shared_frontend_gathers_lines",
    ),
    key("restart_interval", NATURAL, "2", "Least seconds between two reloads.", "restart_interval_and_jitter_are_read"),
    key(
        "restart_jitter",
        Kind::Number,
        "0",
        "Up to this share of the interval is added at random.",
        "restart_interval_and_jitter_are_read",
    ),
    key(
        "state_file_path",
        Kind::Text,
        "",
        "Remembers servers and their ids over restarts.",
        "the_state_file_remembers_ids_and_servers",
    ),
    key(
        "state_file_ttl",
        NATURAL,
        "86400",
        "Seconds that a vanished server is remembered.",
        "the_state_file_forgets_after_its_ttl",
    ),
    key("server_order_seed", ANY_NUMBER, "from the host's name", "The seed of the shuffle.", "shuffles_as_ruby_does"),
    key("max_server_id", SERVER_ID, "65535", "The highest id that is given.", "max_server_id_ends_the_ids"),
    key(
        "use_nerve_weights",
        Kind::Bool,
        "false",
        "Weights of registrations are written.",
        "use_nerve_weights_moves_the_weight_to_the_end",
    ),
    ours(
        "harden",
        Kind::Bool,
        "false",
        "Adds to `defaults` what masks a dying server.",
        "harden_adds_what_masks_a_dying_server",
    ),
    ours(
        "allow_registry_options",
        Kind::Lines,
        "[]",
        "Server keywords that registrations may use although they name files, other hosts or redirects.",
        "registry_options_that_reach_elsewhere_are_quarantined",
    ),
];

/// A service's part of haproxy.cfg.
pub const SERVICE_HAPROXY: &[Key] = &[
    key("disabled", Kind::Bool, "false", "Nothing is written for this service.", "disabled_services_are_left_out"),
    key(
        "port",
        Kind::Port,
        "",
        "The frontend's port; without this key there is no frontend, with null the address stands alone.",
        "bind_addresses_and_ports",
    ),
    key("bind_address", Kind::Text, "haproxy.bind_address", "The frontend's address.", "bind_addresses_and_ports"),
    key("bind_options", Kind::Text, "", "Words behind the address.", "bind_addresses_and_ports"),
    key(
        "backend_name",
        Kind::Text,
        "the service's name",
        "The backend section's name.",
        "backend_name_renames_the_section",
    ),
    key("frontend", Kind::Lines, "[]", "Lines of its frontend.", "own_lines_come_first_and_unknown_ones_are_dropped"),
    key("backend", Kind::Lines, "[]", "Lines of its backend.", "own_lines_come_first_and_unknown_ones_are_dropped"),
    key("listen", Kind::Lines, "[]", "Lines for whichever of the two they fit.", "listen_lines_are_split"),
    key(
        "server_options",
        Kind::Any,
        "\"\"",
        "Words of every server line; `%{host}`, `%{port}`, `%{name}`, `%%`.",
        "both_options_are_templates",
    ),
    key(
        "server_port_override",
        Kind::Whole { min: 0, max: 65_535 },
        "",
        "The old spelling of backend_port_override.",
        "backend_port_override_and_its_old_spelling",
    ),
    key("backend_order", Kind::Text, "shuffle", "asc, desc, no_shuffle; anything else shuffles.", "orders"),
    key("cookie_value_method", Kind::Text, "name", "`hash`: the cookie is the SHA-1 of the server's name.", "cookies"),
    key("shared_frontend", Kind::Lines, "", "Its lines in the shared frontend.", "shared_frontend_gathers_lines"),
    key(
        "use_nerve_weights",
        Kind::Bool,
        "",
        "As in Synapse without effect here: it belongs into the top-level haproxy section.",
        "use_nerve_weights_moves_the_weight_to_the_end",
    ),
    fork(
        "server_backup_port",
        PORT_NUMBER,
        "",
        "Every backend is listed again at this port, as a backup.",
        "server_backup_port_lists_every_backend_again",
    ),
];

const FILE_OUTPUT: &[Key] = &[key(
    "output_directory",
    Kind::Text,
    "",
    "One `SERVICE.json` for each service; other `*.json` there are deleted. Required.",
    "file_output_writes_changed_files_and_removes_others",
)];

const NGINX: &[Key] = &[
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

const SERVICE_NGINX: &[Key] = &[
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

const TEMPLATE: &[Key] = &[
    ours("source", Kind::Text, "", "The Tera template; required.", "templates_are_rendered_and_their_commands_run"),
    ours("destination", Kind::Text, "", "The file; required.", "templates_are_rendered_and_their_commands_run"),
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

const PROMETHEUS: &[Key] = &[
    ours("file", Kind::Text, "", "The file_sd file, JSON; required.", "prometheus_targets_carry_labels"),
    ours(
        "label_prefix",
        Kind::Text,
        "",
        "Put before the names of the registrations' own labels.",
        "prometheus_targets_carry_labels",
    ),
];

const SERVICE_PROMETHEUS: &[Key] = &[
    ours("disabled", Kind::Bool, "false", "No targets for this service.", "prometheus_targets_carry_labels"),
    ours("labels", Kind::Map(&Kind::Text), "{}", "Further labels of its targets.", "prometheus_targets_carry_labels"),
];
