//! Ports that nobody named, and hosts that a label may not publish.

use super::*;

fn on_host(mut container: Container) -> Container {
    container.network_mode = "host".to_owned();
    container.networks.clear();
    container
}

fn settings() -> Settings {
    Settings { host_ip: Some([10, 0, 0, 5].into()), ..Settings::default() }
}

fn decided(container: Container, settings: &Settings) -> Vec<Decision> {
    decide(&[(container.id.clone(), Arc::new(container))].into(), settings)
}

/// The registered ports, and the reasons for the others.
fn outcome(container: Container, settings: &Settings) -> (Vec<String>, Vec<String>) {
    let mut outcome = (Vec::new(), Vec::new());
    for decision in decided(container, settings) {
        match &decision.outcome {
            Outcome::Register(_) => {
                let (port, transport) = decision.port.unwrap();
                outcome.0.push(format!("{port}/{transport}"));
            }
            Outcome::Skip(skip) => outcome.1.push(skip.to_string()),
        }
    }
    outcome
}

fn range(from: u16, to: u16, transport: &str) -> Vec<String> {
    (from..=to).map(|port| format!("{port}/{transport}")).collect()
}

fn exposing(ports: &[String]) -> Container {
    container(0xabc, "media").ports(&ports.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn of_ports_that_nobody_named_the_lowest_are_registered_and_the_rest_is_said_once() {
    let flood = || on_host(exposing(&[range(80, 81, "tcp"), range(10_000, 20_000, "tcp")].concat()));
    let (registered, left_out) = outcome(flood(), &settings());
    assert_eq!((registered.len(), &registered[..3]), (32, &["80/tcp", "81/tcp", "10000/tcp"].map(str::to_owned)[..]));
    assert_eq!(left_out.len(), 1, "{left_out:?}");
    assert!(
        left_out[0].contains("9971 more ports, 10030 to 20000") && left_out[0].contains("register.port"),
        "{left_out:?}"
    );
    let warnings: Vec<_> = decided(flood(), &settings()).into_iter().flat_map(|d| d.warnings).collect();
    assert_eq!(warnings, left_out, "one line in the log");
    // What a label names is no flood, and does not count.
    let (registered, left_out) = outcome(flood().label("register.10000-10999.service=media"), &settings());
    assert_eq!((registered.len(), left_out.len()), (1032, 1), "{left_out:?}");
    let listed = range(10_000, 10_099, "tcp").join(",");
    let (registered, _) = outcome(flood().label(&format!("register.port={listed}")), &settings());
    assert_eq!(registered, range(10_000, 10_099, "tcp"));
    let wide = Settings { max_ports: MaxPorts(20_000), ..settings() };
    assert_eq!(outcome(flood(), &wide).0.len(), 10_003);
    let none = Settings { max_ports: MaxPorts(0), ..settings() };
    assert_eq!(outcome(flood().label("register.80.service=web"), &none).0, ["80/tcp"]);
    // TCP and UDP count together; what is not published does not count.
    let published: Vec<String> =
        (1..=40).flat_map(|n| [format!("{n}=0.0.0.0:{n}"), format!("{n}/udp=0.0.0.0:{n}")]).collect();
    let (registered, left_out) = outcome(exposing(&[range(50, 90, "tcp"), published].concat()), &settings());
    assert_eq!((registered.len(), registered.last().unwrap().as_str()), (32, "16/udp"));
    assert_eq!(left_out.len(), 42, "41 that are not published, and one line");
}

#[test]
fn udp_on_the_hosts_network_is_registered_by_label_only() {
    let media =
        || on_host(exposing(&[vec!["8080".to_owned(), "53/udp".to_owned()], range(10_000, 20_000, "udp")].concat()));
    let (registered, left_out) = outcome(media(), &settings());
    assert_eq!((registered, left_out.len()), (vec!["8080/tcp".to_owned()], 1));
    assert!(left_out[0].contains("10002 ports, 53 to 20000") && left_out[0].contains("53/udp"), "{left_out:?}");
    assert_eq!(outcome(media().label("register.port=53/udp"), &settings()).0, ["53/udp"]);
    assert_eq!(outcome(media().label("register.53.service=dns"), &settings()).0, ["53/udp", "8080/tcp"]);
    assert_eq!(outcome(media().env("SERVICE_53_UDP_NAME=dns"), &settings()).0, ["53/udp", "8080/tcp"]);
    // Published ones are no guess.
    let dns = exposing(&["53/udp=0.0.0.0:53".to_owned()]);
    assert_eq!(outcome(dns, &settings()).0, ["53/udp"]);
}

#[test]
fn an_address_label_publishes_no_address_of_nobody_and_nothing_where_it_is_forbidden() {
    let web = |address: &str| exposing(&["80=0.0.0.0:8080".to_owned()]).label(&format!("register.address={address}"));
    let forbidden = Settings { no_address_labels: true, ..settings() };
    for bad in [
        "0.0.0.0",
        "::",
        "[::]:80",
        "::ffff:0.0.0.0",
        "169.254.169.254",
        "169.254.169.254:80",
        "::ffff:169.254.169.254",
        "fe80::1",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "2130706433",
        "127.1",
        "127.0.0.1",
        "::ffff:127.0.0.1",
        "localhost",
    ] {
        let (registered, left_out) = outcome(web(bad), &settings());
        assert_eq!((registered.len(), left_out.len()), (0, 1), "{bad}");
        let [own] = &decided(web(bad), &forbidden)[..] else { panic!("{bad}") };
        assert_eq!(own.candidate().unwrap().backend.address(), "10.0.0.5:8080", "{bad}");
        assert!(
            own.warnings.iter().any(|w| w.contains("register.address") && w.contains("--no-address-labels")),
            "{own:?}"
        );
    }
    let [own] = &decided(web("10.6.6.6"), &forbidden)[..] else { panic!() };
    assert_eq!(own.candidate().unwrap().backend.address(), "10.0.0.5:8080");
    let [other] = &decided(web("10.6.6.6"), &settings())[..] else { panic!() };
    assert_eq!(other.candidate().unwrap().backend.address(), "10.6.6.6:8080");
    // By the port's own label, too.
    let narrow = exposing(&["80=0.0.0.0:8080".to_owned()]).label("register.80.address=10.6.6.6");
    assert_eq!(decided(narrow, &forbidden)[0].candidate().unwrap().backend.address(), "10.0.0.5:8080");
}
