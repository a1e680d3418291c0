//! deploy/docker-proxy.cfg before the real Docker: register does its work through it, and nothing else gets through.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use e2e::agents::{Register, binary};
use e2e::docker::Spec;
use e2e::haproxy::Haproxy;
use e2e::http::Client;
use e2e::process::Process;
use e2e::scene::{PATIENCE, each_haproxy, loopback};
use e2e::{Etcd, Lab, Result, free_port, wait};
use testing::certs::Certs;

const CONFIG: &str = include_str!("../../deploy/docker-proxy.cfg");

/// The proxy with these settings, listening.
async fn proxy(lab: &Lab, haproxy: &Haproxy, text: &str, environment: &[(&str, &str)], port: u16) -> Result<Process> {
    let name = format!("docker-proxy-{port}");
    let path = lab.dir().join(format!("{name}.cfg"));
    fs::write(&path, text).unwrap();
    let process = Process::spawn(lab, &name, &haproxy.path, ["-db", "-f", &path.display().to_string()], environment)?;
    wait::until_true("the proxy listening", PATIENCE, async || {
        tokio::net::TcpStream::connect(loopback(port)).await.is_ok()
    })
    .await?;
    Ok(process)
}

/// What would be registered, with this in the environment.
fn plan(filter: &str, environment: &[(&str, &str)]) -> Result<Output> {
    let mut command = Command::new(binary("register")?);
    command.args(["plan", "--allow-loopback", "--host-ip", "127.0.0.1", "--filter", filter]);
    Ok(command.envs(environment.iter().copied()).output().unwrap())
}

#[test]
fn register_reads_docker_through_a_proxy_that_lets_nothing_else_through() -> Result<()> {
    each_haproxy(async |lab, haproxy| {
        let (docker, etcd) = (lab.docker().await?, Etcd::start());
        let plain = docker.run(&Spec::whoami("plain")).await?;
        let checked = Spec::whoami("checked").label("register.check", "exec").label("register.check.command", "true");
        let checked = docker.run(&checked).await?;
        let ports = [free_port(), free_port()];
        let binds = ports.map(|port| format!("127.0.0.1:{port}"));
        let _reading = proxy(lab, haproxy, CONFIG, &[("DOCKER_PROXY_BIND", &binds[0])], ports[0]).await?;
        let exec = [("DOCKER_PROXY_BIND", &*binds[1]), ("DOCKER_PROXY_EXEC", "on")];
        let _running = proxy(lab, haproxy, CONFIG, &exec, ports[1]).await?;

        let id = plain.id();
        let archive = format!("/containers/{id}/archive?path=/etc/shadow");
        let dots = format!("/containers/{id}/json/../../../images/json");
        let (run, kill) = (format!("/containers/{id}/exec"), format!("/containers/{id}/kill"));
        let stop = format!("/containers/{id}/stop");
        for (method, path) in [
            ("GET", archive.as_str()),
            ("GET", "/images/json"),
            ("GET", "/v1.41/containers/json"),
            ("GET", "/containers/../images/json"),
            ("GET", &dots),
            ("GET", "/containers/%2e%2e/images/json"),
            ("GET", "/secrets"),
            ("POST", "/containers/create"),
            ("POST", "/containers/json"),
            ("POST", &kill),
            ("POST", &stop),
            ("POST", &run),
            ("POST", "/build"),
            ("DELETE", &run),
        ] {
            let mut client = Client::new(loopback(ports[0]), false, Duration::from_secs(10));
            let status = client.request(method, path, "").await.map(|reply| reply.status);
            assert_eq!(status.ok(), Some(403), "{method} {path}");
        }

        // With the right to read alone, the check by a command tells why it does not pass; with both all are registered.
        for (port, expected) in [(ports[0], vec!["plain"]), (ports[1], vec!["checked", "plain"])] {
            let host = format!("tcp://127.0.0.1:{port}");
            let register = Register::new("proxied").args(&["--docker-host", &host]).start(lab, &etcd).await?;
            let services = async || -> Vec<String> {
                let mut client = etcd.operator().await;
                let options = etcd_client::GetOptions::new().with_prefix();
                let found = client.get("/backends/", Some(options)).await.unwrap();
                let mut names: Vec<_> =
                    found.kvs().iter().map(|kv| kv.key_str().unwrap().split('/').nth(2).unwrap().to_owned()).collect();
                names.sort();
                names
            };
            wait::until_true("what may be registered", PATIENCE, async || services().await == expected).await?;
            if expected.len() == 1 {
                let told = async || register.status().await.is_ok_and(|status| status.to_string().contains("403"));
                wait::until_true("the refusal in the status", PATIENCE, told).await?;
            }
        }
        let stopping = free_port();
        let bind = format!("127.0.0.1:{stopping}");
        let environment = [("DOCKER_PROXY_BIND", &*bind), ("DOCKER_PROXY_STOP", "on")];
        let _stopping = proxy(lab, haproxy, CONFIG, &environment, stopping).await?;
        for (path, allowed) in [(&kill, 403), (&run, 403), (&stop, 204)] {
            let mut client = Client::new(loopback(stopping), false, Duration::from_secs(20));
            let status = client.request("POST", path, "").await.map(|reply| reply.status);
            assert_eq!(status.ok(), Some(allowed), "{path}");
        }
        drop((plain, checked));
        Ok(())
    })
}

#[test]
fn docker_behind_tls_is_read_with_a_certificate_and_not_without() -> Result<()> {
    each_haproxy(async |lab, haproxy| {
        let docker = lab.docker().await?;
        let container = docker.run(&Spec::whoami("tls")).await?;
        let (dir, other) = (lab.subdir("certs")?, lab.subdir("others")?);
        let certs = Certs::make(&dir);
        let pair = ["server.pem", "server.key"].map(|name| fs::read_to_string(certs.path(name)).unwrap()).concat();
        fs::write(dir.join("pair.pem"), pair).unwrap();
        let as_docker_has_it = |dir: &Path| {
            fs::copy(dir.join("client.pem"), dir.join("cert.pem")).unwrap();
            fs::copy(dir.join("client.key"), dir.join("key.pem")).unwrap();
        };
        as_docker_has_it(&dir);
        Certs::make(&other);
        as_docker_has_it(&other);
        let port = free_port();
        let own = |name: &str| dir.join(name).display().to_string();
        let text = CONFIG
            .replace("    bind \"${DOCKER_PROXY_BIND-127.0.0.1:2375}\"\n", "")
            .replace("#bind :2376", &format!("bind 127.0.0.1:{port}"))
            .replace("/certs/server.pem", &own("pair.pem"))
            .replace("/certs/ca.pem", &own("ca.pem"));
        let _proxy = proxy(lab, haproxy, &text, &[], port).await?;
        let filter = format!("label={}={}", e2e::lab::MARK, lab.mark());
        let host = format!("tcp://127.0.0.1:{port}");
        let with = |dir: &Path| -> Result<(bool, String)> {
            let dir = dir.display().to_string();
            let environment = [("DOCKER_HOST", &*host), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", &dir)];
            let output = plan(&filter, &environment)?;
            let text = [output.stdout, output.stderr].map(|o| String::from_utf8_lossy(&o).into_owned()).concat();
            Ok((output.status.success(), text))
        };
        let (ok, text) = with(&dir)?;
        assert!(ok && text.contains(container.short()), "{text}");
        let (ok, text) = with(&other)?;
        assert!(!ok && text.contains("certificate"), "another authority's certificate: {text}");
        fs::copy(other.join("cert.pem"), dir.join("cert.pem")).unwrap();
        fs::copy(other.join("key.pem"), dir.join("key.pem")).unwrap();
        let (ok, text) = with(&dir)?;
        assert!(!ok && !text.contains(container.short()), "a client whom the proxy does not know: {text}");
        let plain = plan(&filter, &[("DOCKER_HOST", &host)])?;
        assert!(!plain.status.success(), "no TLS at all");
        Ok(())
    })
}
