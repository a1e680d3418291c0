//! Every key of the config: what each means, for the schema and the docs, is in `tests/synapse/keys.txt`.

pub use agent::config::table::{Key, Kind, Origin};

agent::keys_of! { key: Synapse, ours: Ours, fork: Fork, nginx: SynapseNginx }

const ANY_NUMBER: Kind = Kind::Whole { min: i64::MIN, max: i64::MAX };
const NATURAL: Kind = Kind::Whole { min: 0, max: i64::MAX };
const SERVER_ID: Kind = Kind::Whole { min: 1, max: 2_147_483_647 };
const PORT_NUMBER: Kind = Kind::Whole { min: 1, max: 65_535 };

/// The whole file.
pub const ROOT: &[Key] = &[
    key("services", Kind::Map(&Kind::Object(SERVICE))),
    key("service_conf_dir", Kind::Text),
    ours("backend_networks", Kind::Lines),
    key("haproxy", Kind::Object(HAPROXY)),
    ours("edge", Kind::Object(EDGE)),
    ours("owners", Kind::Map(&Kind::Lines)),
    key("file_output", Kind::Object(FILE_OUTPUT)),
    nginx("nginx", Kind::Object(NGINX)),
    ours("template", Kind::Map(&Kind::Object(TEMPLATE))),
    ours("prometheus", Kind::Object(PROMETHEUS)),
    key("statsd", Kind::Object(STATSD)),
];

const STATSD: &[Key] = &[key("host", Kind::Text), key("port", PORT_NUMBER), key("sample_rate", Kind::Any)];

pub const SERVICE: &[Key] = &[
    key("discovery", Kind::Object(DISCOVERY)),
    key("discovery_multi", Kind::Object(DISCOVERY)),
    key("default_servers", Kind::Objects(REGISTRATION)),
    key("keep_default_servers", Kind::Bool),
    key("use_previous_backends", Kind::Bool),
    key("backend_port_override", Kind::Whole { min: 0, max: 65_535 }),
    key("leader_election", Kind::Bool),
    key("load_test_concurrency", NATURAL),
    key("haproxy", Kind::Object(SERVICE_HAPROXY)),
    key("file_output", Kind::Object(DISABLED)),
    nginx("nginx", Kind::Object(SERVICE_NGINX)),
    ours("template", Kind::Any),
    ours("prometheus", Kind::Object(SERVICE_PROMETHEUS)),
];

const REGISTRATION: &[Key] = &[
    key("host", Kind::Text),
    key("port", Kind::Any),
    key("name", Kind::Any),
    key("id", Kind::Any),
    key("weight", Kind::Any),
    key("labels", Kind::Any),
    key("haproxy_server_options", Kind::Any),
    key("haproxy_server_id", Kind::Any),
];

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
    key("method", Kind::Spelled(METHODS, OLD_METHODS)),
    key("label_filters", Kind::Objects(LABEL_FILTER)),
    key("label_filter", Kind::Objects(LABEL_FILTER)),
    key("hosts", Kind::Lines),
    key("path", Kind::Text),
    key("decode", Kind::Object(DECODE)),
    ours("zk_auth", Kind::Text),
    key("retry_policy", Kind::Object(RETRY_POLICY)),
    key("discovery_jitter", Kind::Number),
    key("generator_config_path", Kind::Text),
    key("polling_interval_sec", Kind::Number),
    key("nameserver", Kind::Lines),
    key("check_interval", Kind::Number),
    key("servers", Kind::Objects(SERVER)),
    key("image_name", Kind::Text),
    key("container_port", PORT_NUMBER),
    ours("internal", Kind::Bool),
    ours("network", Kind::Text),
    key("tag_name", Kind::Text),
    key("tag_value", Kind::Text),
    key("aws_region", Kind::Text),
    key("aws_access_key_id", Kind::Text),
    key("aws_secret_access_key", Kind::Text),
    ours("aws_endpoint_url", Kind::Text),
    key("marathon_api_url", Kind::Lines),
    key("marathon_api_path", Kind::Text),
    ours("marathon_authorization", Kind::Text),
    key("application_name", Kind::Text),
    key("port_index", NATURAL),
    key("watchers", Kind::Any),
    key("resolver", Kind::Object(RESOLVER)),
    fork("host", Kind::Text),
    fork("port", PORT_NUMBER),
];

const DECODE: &[Key] = &[key("method", Kind::Word(&["nerve", "serverset"])), key("endpoint_name", Kind::Text)];

const RETRY_POLICY: &[Key] = &[
    key("base_interval", Kind::Number),
    key("max_interval", Kind::Number),
    key("max_attempts", Kind::Number),
    key("max_delay", Kind::Number),
];

/// `resolver`: how several watchers become one.
const RESOLVER: &[Key] = &[
    key("method", Kind::Text),
    key("sequential_order", Kind::Lines),
    ours("fallback_order", Kind::Lines),
    key("s3_url", Kind::Text),
    key("s3_polling_interval_seconds", Kind::Number),
    ours("aws_region", Kind::Text),
    ours("aws_access_key_id", Kind::Text),
    ours("aws_secret_access_key", Kind::Text),
    ours("aws_endpoint_url", Kind::Text),
];

/// One of `servers`.
const SERVER: &[Key] = &[
    key("name", Kind::Text),
    key("host", Kind::Text),
    key("port", Kind::Any),
    key("labels", Kind::Any),
    ours("cert_path", Kind::Text),
    ours("record", Kind::Word(&["address", "srv"])),
];

const LABEL_FILTER: &[Key] = &[key("label", Kind::Text), key("value", Kind::Any), key("condition", Kind::Text)];

/// The HTTP edge; also the whole of a file for `--edge-config`.
pub const EDGE: &[Key] = &[
    ours("listen", Kind::Text),
    ours("https_port", PORT_NUMBER),
    ours("sni_port", PORT_NUMBER),
    ours("suffixes", Kind::Lines),
    ours("hosts", Kind::Map(&Kind::Lines)),
    ours("ownership", Kind::Word(&["path", "host", "shared"])),
    ours("rules", Kind::Objects(RULE)),
    ours("spare_sections", NATURAL),
    ours("trusted_proxies", Kind::Lines),
    ours("access_log", Kind::Text),
    ours("certificates", Kind::Lines),
    ours("cookie_key", Kind::Text),
];

const RULE: &[Key] = &[
    ours("host", Kind::Text),
    ours("path", Kind::Text),
    ours("service", Kind::Text),
    ours("sni", Kind::Bool),
    ours("strip_prefix", Kind::Bool),
    ours("sticky", Kind::Bool),
    ours("redirect_https", Kind::Bool),
    ours("priority", ANY_NUMBER),
];

/// haproxy's own section.
pub const HAPROXY: &[Key] = &[
    key("global", Kind::Lines),
    key("defaults", Kind::Lines),
    key("extra_sections", Kind::Map(&Kind::Lines)),
    key("config_file_path", Kind::Text),
    key("socket_file_path", Kind::Lines),
    key("reload_command", Kind::Text),
    key("do_writes", Kind::Bool),
    key("do_socket", Kind::Bool),
    key("do_reloads", Kind::Bool),
    key("do_checks", Kind::Bool),
    key("check_command", Kind::Text),
    key("candidate_config_file_path", Kind::Text),
    key("bind_address", Kind::Text),
    key("shared_frontend", Kind::Lines),
    key("restart_interval", NATURAL),
    key("restart_jitter", Kind::Number),
    key("state_file_path", Kind::Text),
    key("state_file_ttl", NATURAL),
    key("server_order_seed", ANY_NUMBER),
    key("max_server_id", SERVER_ID),
    key("use_nerve_weights", Kind::Bool),
    ours("harden", Kind::Bool),
    ours("allow_registry_options", Kind::Lines),
];

/// A service's part of haproxy.cfg.
pub const SERVICE_HAPROXY: &[Key] = &[
    key("disabled", Kind::Bool),
    key("port", Kind::Port),
    key("bind_address", Kind::Text),
    key("bind_options", Kind::Text),
    key("backend_name", Kind::Text),
    key("frontend", Kind::Lines),
    key("backend", Kind::Lines),
    key("listen", Kind::Lines),
    key("server_options", Kind::Any),
    key("server_port_override", Kind::Whole { min: 0, max: 65_535 }),
    key("backend_order", Kind::Text),
    key("cookie_value_method", Kind::Text),
    key("shared_frontend", Kind::Lines),
    key("use_nerve_weights", Kind::Bool),
    fork("server_backup_port", PORT_NUMBER),
];

const DISABLED: &[Key] = &[key("disabled", Kind::Bool)];

const FILE_OUTPUT: &[Key] = &[key("output_directory", Kind::Text)];

const NGINX: &[Key] = &[
    nginx("contexts", Kind::Map(&Kind::Lines)),
    nginx("do_writes", Kind::Bool),
    nginx("do_reloads", Kind::Bool),
    nginx("config_file_path", Kind::Text),
    nginx("check_command", Kind::Text),
    nginx("reload_command", Kind::Text),
    nginx("start_command", Kind::Text),
    nginx("restart_interval", NATURAL),
    nginx("restart_jitter", Kind::Number),
    nginx("listen_address", Kind::Text),
];

/// A service's part of nginx.conf.
pub const SERVICE_NGINX: &[Key] = &[
    nginx("disabled", Kind::Bool),
    nginx("mode", Kind::Word(&["http", "tcp"])),
    nginx("port", Kind::Port),
    nginx("upstream", Kind::Lines),
    nginx("server", Kind::Lines),
    nginx("listen_address", Kind::Text),
    nginx("listen_options", Kind::Text),
    nginx("upstream_order", Kind::Text),
    nginx("upstream_name", Kind::Text),
    nginx("server_options", Kind::Text),
];

const TEMPLATE: &[Key] = &[
    ours("source", Kind::Text),
    ours("destination", Kind::Text),
    ours("mode", Kind::Text),
    ours("owner", Kind::Text),
    ours("check_command", Kind::Text),
    ours("reload_command", Kind::Text),
    ours("quiet", Kind::Number),
    ours("max_wait", Kind::Number),
];

const PROMETHEUS: &[Key] = &[ours("file", Kind::Text), ours("label_prefix", Kind::Text)];

const SERVICE_PROMETHEUS: &[Key] = &[ours("disabled", Kind::Bool), ours("labels", Kind::Map(&Kind::Text))];
