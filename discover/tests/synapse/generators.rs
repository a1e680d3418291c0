use super::*;
use discover::generators::file_output::FileOutput;
use discover::generators::nginx::Nginx;
use discover::generators::prometheus::Prometheus;
use discover::generators::template::{Template, render_once};
use discover::generators::{Generator, Outcome};
use discover::reconcile::Desired;

async fn turn<G: Generator>(generator: &mut G, desired: Desired) -> Result<Outcome, G::Error> {
    let plan = generator.plan(&desired, Instant::now());
    generator.apply(plan).await
}

fn world_with(section: &str, value: Value, service: Value) -> World {
    let mut config = config_of(json!({}), service);
    config[section] = value;
    World::new(load(&config).unwrap().config, None)
}

#[tokio::test]
async fn file_output_writes_changed_files_and_removes_others() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("deep/out");
    std::fs::create_dir_all(&out).unwrap();
    for (name, text) in [("gone.json", "[]"), ("s.json", "{ corrupt"), ("keep.txt", "x"), (".hidden.json", "x")] {
        std::fs::write(out.join(name), text).unwrap();
    }
    let mut world = world_with("file_output", json!({"output_directory": out}), json!({}));
    let mut generator = FileOutput::new(&world.config).unwrap();
    let desired = world.desired(Some(json!([{"host": "h", "port": 1, "extra": 1}])));
    turn(&mut generator, desired.clone()).await.unwrap();
    assert_eq!(std::fs::read_to_string(out.join("s.json")).unwrap(), r#"[{"host":"h","port":1,"extra":1}]"#);
    let mut names: Vec<String> =
        std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, [".hidden.json", "keep.txt", "s.json"]);
    // What says the same is not written again, in whatever form.
    std::fs::write(out.join("s.json"), r#"[{"extra": 1, "host": "h", "port": 1}]"#).unwrap();
    turn(&mut FileOutput::new(&world.config).unwrap(), desired).await.unwrap();
    assert!(std::fs::read_to_string(out.join("s.json")).unwrap().contains("\"extra\": 1"));
}

#[test]
fn file_output_can_be_disabled_for_a_service() {
    let mut world =
        world_with("file_output", json!({"output_directory": "x"}), json!({"file_output": {"disabled": true}}));
    let generator = FileOutput::new(&world.config).unwrap();
    assert!(generator.plan(&world.desired(None), Instant::now()).writes.is_empty());
}

fn nginx_section() -> Value {
    json!({"contexts": {"main": ["worker_processes 1"], "events": ["worker_connections 64"], "http": ["access_log off"], "stream": []},
        "do_writes": false, "do_reloads": false, "listen_address": "127.0.0.1"})
}

#[test]
fn nginx_http_and_stream() {
    let mut config = config_of(
        json!({}),
        json!({"nginx": {"port": 81, "server": ["server_tokens off"], "upstream": ["least_conn"],
        "server_options": "max_fails=1", "listen_options": "reuseport"}}),
    );
    config["nginx"] = nginx_section();
    let base = json!({"method": "base"});
    config["services"]["t"] = json!({"discovery": base, "nginx": {"mode": "tcp", "port": 82, "upstream_name": "tt", "upstream_order": "desc", "listen_address": "::1"}});
    config["services"]["off"] = json!({"discovery": base, "nginx": {"disabled": true, "port": 83}});
    let mut world = World::new(load(&config).unwrap().config, None);
    let nginx = Nginx::new(&world.config).unwrap();
    let text = nginx.text(&world.desired(Some(hosts(&[2, 1]))));
    let want = [
        "worker_processes 1;",
        "events {",
        "\tworker_connections 64;",
        "}",
        "http {",
        "\taccess_log off;",
        "\tserver {",
        "\t\tlisten 127.0.0.1:81 reuseport;",
        "\t\tserver_tokens off;",
        "\t\tlocation / {",
        "\t\t\tproxy_pass http://s;",
        "\t\t}",
        "\t}",
        "\tupstream s {",
        "\t\tleast_conn;",
        "\t\tserver 10.0.0.1:80 max_fails=1;",
        "\t\tserver 10.0.0.2:80 max_fails=1;",
        "\t}",
        "}",
        "stream {",
        "\tserver {",
        "\t\tlisten ::1:82;",
        "\t\tproxy_pass tt;",
        "\t}",
        "\tupstream tt {",
        "\t\tserver 10.0.0.2:80;",
        "\t\tserver 10.0.0.1:80;",
        "\t}",
        "}",
    ];
    assert_eq!(bare(&text), want);
    let empty =
        Nginx::new(&world.config).unwrap().text(&Desired { services: Default::default(), ..world.desired(None) });
    assert!(empty.contains("return 503;") && !empty.contains("82") && !empty.contains("upstream"), "{empty}");
}

#[tokio::test]
async fn nginx_needs_its_commands() {
    let dir = tempfile::tempdir().unwrap();
    let (conf, log) = (dir.path().join("nginx.conf"), dir.path().join("log"));
    let mut section = nginx_section();
    for (key, value) in [("do_writes", json!(true)), ("do_reloads", json!(true))] {
        section[key] = value;
    }
    let mut config = config_of(json!({}), json!({"nginx": {"port": 81}}));
    config["nginx"] = section.clone();
    let told = load(&config).unwrap_err().to_string();
    assert!(
        told.contains("nginx.config_file_path: is required") && told.contains("nginx.reload_command: is required"),
        "{told}"
    );
    let say = |word: &str| format!("echo {word} >> {}", log.display());
    for (key, value) in [
        ("config_file_path", json!(conf)),
        ("start_command", json!(say("start"))),
        ("reload_command", json!(say("reload"))),
        ("check_command", json!(format!("! grep -q 10.0.0.3 {}", conf.display()))),
        ("restart_interval", json!(0)),
        ("restart_jitter", json!(0)),
    ] {
        section[key] = value;
    }
    config["nginx"] = section;
    let mut world = World::new(load(&config).unwrap().config, None);
    let mut nginx = Nginx::new(&world.config).unwrap();
    turn(&mut nginx, world.desired(Some(hosts(&[1])))).await.unwrap();
    turn(&mut nginx, world.desired(Some(hosts(&[1])))).await.unwrap();
    turn(&mut nginx, world.desired(Some(hosts(&[2])))).await.unwrap();
    let refused = turn(&mut nginx, world.desired(Some(hosts(&[3])))).await.unwrap_err().to_string();
    assert!(refused.contains("check_command"), "{refused}");
    assert!(std::fs::read_to_string(&conf).unwrap().contains("10.0.0.2"), "the last good file stays");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "start\nreload\nreload\n");
}

#[test]
fn prometheus_targets_carry_labels() {
    let service = json!({"prometheus": {"labels": {"team": "t"}}});
    let mut world = world_with("prometheus", json!({"file": "/x/targets.json", "label_prefix": "l_"}), service);
    let desired = world.desired(Some(json!([{"host": "::1", "port": 1, "name": "n", "labels": {"az-1": "x"}}])));
    let text = Prometheus::new(&world.config).unwrap().text(&desired);
    let want = json!([{"targets": ["[::1]:1"], "labels": {"l_az_1": "x", "team": "t", "service": "s", "name": "n"}}]);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), want);
    // No registration names a label that means something to Prometheus, or one of ours.
    let odd = [
        "job",
        "instance",
        "__address__",
        "__metrics_path__",
        "__scheme__",
        "service",
        "name",
        "9 lives",
        "",
        "é",
        "j-ob",
    ];
    let odd: Value =
        odd.into_iter().map(|name| (name.to_owned(), json!("evil"))).collect::<serde_json::Map<_, _>>().into();
    for prefix in [None, Some(""), Some("__"), Some("j")] {
        let settings = prefix.map_or(json!({"file": "/x/t"}), |p| json!({"file": "/x/t", "label_prefix": p}));
        let mut world = world_with("prometheus", settings, json!({}));
        let labels = if prefix == Some("j") { json!({"ob": "evil"}) } else { odd.clone() };
        let desired = world.desired(Some(json!([{"host": "::1", "port": 1, "name": "n", "labels": labels}])));
        let text = Prometheus::new(&world.config).unwrap().text(&desired);
        let targets: Value = serde_json::from_str(&text).unwrap();
        let labels = targets[0]["labels"].as_object().unwrap();
        assert_eq!((&labels["service"], &labels["name"]), (&json!("s"), &json!("n")), "{text}");
        for name in labels.keys() {
            let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            assert!(name.bytes().all(good) && !name.starts_with("__"), "{name:?}");
            assert!(!["job", "instance"].contains(&name.as_str()), "{text}");
        }
    }
    let mut off =
        world_with("prometheus", json!({"file": "/x/targets.json"}), json!({"prometheus": {"disabled": true}}));
    let desired = off.desired(Some(hosts(&[1])));
    assert_eq!(Prometheus::new(&off.config).unwrap().text(&desired), "[]\n");
}

fn template_world(dir: &Path, text: &str, more: Value) -> World {
    std::fs::write(dir.join("t.tera"), text).unwrap();
    let mut settings = json!({"source": dir.join("t.tera"), "destination": dir.join("out.conf"), "mode": "0600"});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world_with("template", json!({"t": settings}), json!({"template": {"zone": "x"}}))
}

fn template(world: &World) -> Template {
    let (name, settings) = &world.config.templates[0];
    Template::new(name, settings).unwrap()
}

#[tokio::test]
async fn templates_are_rendered_and_their_commands_run() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (log, out) = (dir.path().join("log"), dir.path().join("out.conf"));
    let owner = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap().unwrap().name;
    let more = json!({"reload_command": format!("echo reload >> {}", log.display()), "check_command": "! grep -q 10.0.0.3 {candidate}", "owner": owner});
    let text = "{% for service in services %}{% for b in service.backends %}{{ service.name }} {{ b.address }}\n{% endfor %}{% endfor %}";
    let mut world = template_world(dir.path(), text, more);
    let mut generator = template(&world);
    for _ in 0..2 {
        turn(&mut generator, world.desired(Some(hosts(&[1])))).await.unwrap();
    }
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "s 10.0.0.1:80\n");
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(turn(&mut generator, world.desired(Some(hosts(&[3])))).await.is_err());
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "s 10.0.0.1:80\n");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "reload\n");
}

#[tokio::test(start_paused = true)]
async fn templates_wait_for_quiet() {
    let dir = tempfile::tempdir().unwrap();
    let text = "{% for b in pools.s %}{{ b.host }}{% endfor %}";
    let mut world = template_world(dir.path(), text, json!({"quiet": 2, "max_wait": 5}));
    let mut generator = template(&world);
    turn(&mut generator, world.desired(Some(hosts(&[1])))).await.unwrap();
    let read = || std::fs::read_to_string(dir.path().join("out.conf")).unwrap();
    assert_eq!(read(), "10.0.0.1", "the first one waits for nothing");
    for n in 2..=5 {
        let outcome = turn(&mut generator, world.desired(Some(hosts(&[n])))).await.unwrap();
        assert!(matches!(outcome, Outcome::Again(_)));
        tokio::time::advance(std::time::Duration::from_millis(1500)).await;
    }
    assert_eq!(read(), "10.0.0.1");
    turn(&mut generator, world.desired(Some(hosts(&[6])))).await.unwrap();
    assert_eq!(read(), "10.0.0.6", "never quiet, but five seconds are over");
}

#[test]
fn templates_see_the_services_own_config() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = template_world(dir.path(), "{{ services[0].config.template.zone }}", json!({}));
    let text = render_once(&dir.path().join("t.tera"), &world.desired(None)).unwrap();
    assert_eq!(text, "x");
}

#[test]
fn an_undefined_name_is_an_error_with_line_and_column() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = template_world(dir.path(), "a\nb {{ nothing.here }}\n", json!({}));
    let error = render_once(&dir.path().join("t.tera"), &world.desired(None)).unwrap_err().to_string();
    assert!(error.contains("t.tera") && error.contains("nothing") && error.contains('2'), "{error}");
}
