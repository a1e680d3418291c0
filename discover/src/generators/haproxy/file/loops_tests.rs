use proptest::prelude::*;

use super::super::server::Server;
use super::*;

fn section(name: &str, bind: &str, servers: &[&str]) -> Arc<Section> {
    let server = |(n, at): (usize, &&str)| Server::parse(&format!("server s{n} {at} check")).unwrap();
    let servers = servers.iter().enumerate().map(server).collect();
    let skeleton = format!("listen {name}\n\tbind {bind}\n\tmode tcp\n").into();
    Arc::new(Section { name: name.into(), skeleton, servers, inherited: "".into(), text: Default::default() })
}

fn layout(sections: Vec<Arc<Section>>) -> Layout {
    Layout { header: "global\n\tmaxconn 9\n".into(), sections, ..Layout::default() }
}

fn loops(own: &[&str], admin: Option<&str>) -> Loops {
    let mut loops = Loops::new(admin.map(|at| at.parse().unwrap()));
    loops.listeners.own = own.iter().map(|ip| ip.parse().unwrap()).collect();
    loops
}

/// The servers of the first section that stay.
fn left(loops: &mut Loops, mut layout: Layout, running: &Layout) -> Vec<String> {
    loops.leave_out(&mut layout, running);
    layout.sections[0].servers.iter().map(|server| server.address.to_string()).collect()
}

#[test]
fn no_server_is_where_the_layout_listens() {
    let cases: [(&str, &[&str], &[&str]); 14] = [
        ("*:80", &["127.0.0.1:80", "127.9.9.9:80", "10.0.0.5:80", "0.0.0.0:80"], &["10.0.0.6:80", "[::1]:80"]),
        (":80", &["127.0.0.1:80", "[::ffff:10.0.0.5]:80"], &["127.0.0.1:81"]),
        (":::80 v4v6", &["[::1]:80", "127.0.0.1:80", "[fd00::5]:80", "[::]:80", "10.0.0.5:80"], &["[fd00::6]:80"]),
        ("127.0.0.1:80", &["127.0.0.1:80", "[::ffff:127.0.0.1]:80", "0.0.0.0:80"], &["127.0.0.2:80", "10.0.0.5:80"]),
        ("[::ffff:10.0.0.5]:80", &["10.0.0.5:80"], &["127.0.0.1:80"]),
        ("localhost:80", &["127.0.0.1:80", "[::1]:80"], &["10.0.0.5:80", "127.0.0.2:80"]),
        ("a-name:80", &["127.0.0.1:80", "10.0.0.5:80", "[fd00::5]:80"], &["10.0.0.6:80"]),
        ("10.0.0.7:80", &["10.0.0.7:80"], &["10.0.0.5:80"]),
        ("*:79-81", &["127.0.0.1:79", "127.0.0.1:80", "10.0.0.5:81"], &["127.0.0.1:82"]),
        ("127.0.0.1:1,127.0.0.2:80 name x", &["127.0.0.1:1", "127.0.0.2:80"], &["127.0.0.1:80"]),
        ("ipv6@:80", &["[::1]:80"], &["[fd00::6]:80"]),
        ("ipv4@10.0.0.5:80", &["10.0.0.5:80"], &["127.0.0.1:80"]),
        ("\"*:80\"", &["127.0.0.1:80"], &["127.0.0.1:81"]),
        ("/run/a:80", &[], &["127.0.0.1:80"]),
    ];
    for (bind, out, stay) in cases {
        let mut loops = loops(&["10.0.0.5", "fd00::5"], None);
        let all = [out, stay].concat();
        let there = layout(vec![section("a", "127.3.3.3:1", &all), section("b", bind, &[])]);
        assert_eq!(left(&mut loops, there, &Layout::default()), stay, "{bind}");
        let named: Vec<String> = loops.reasons().map(|(server, _)| server).collect();
        assert_eq!(named, (0..out.len()).map(|n| format!("a/s{n}")).collect::<Vec<_>>(), "{bind}");
    }
}

#[test]
fn the_header_the_footer_and_what_still_runs_listen_too() {
    let header = |line: &str| Layout { header: format!("global\n\t{line}\n").into(), ..layout(vec![]) };
    let server = || vec![section("a", "127.0.0.1:1", &["127.0.0.1:80"])];
    let stays = |there: Layout, running: &Layout| !left(&mut loops(&[], None), there, running).is_empty();
    assert!(stays(layout(server()), &Layout::default()));
    for line in
        ["bind :80", "stats socket 127.0.0.1:80 level admin", "stats socket ipv4@127.0.0.1:80", "peer me 127.0.0.1:80"]
    {
        assert!(!stays(Layout { sections: server(), ..header(line) }, &Layout::default()), "{line}");
    }
    assert!(stays(Layout { sections: server(), ..header("stats timeout 80") }, &Layout::default()));
    assert!(stays(Layout { sections: server(), ..header("# bind :80") }, &Layout::default()));
    let footer = Layout { footer: "frontend edge\n\tbind :::80 v4v6\n".into(), ..layout(server()) };
    assert!(!stays(footer, &Layout::default()));
    let running = layout(vec![section("b", "*:80", &[])]);
    assert!(!stays(layout(server()), &running), "the listener goes with the reload, the server comes after it");
}

#[test]
fn discovers_own_admin_server_is_nobodys_backend() {
    let at = |admin: &str, server: &str| {
        let there = layout(vec![section("a", "127.0.0.1:1", &[server])]);
        let mut loops = loops(&["10.0.0.5"], Some(admin));
        let out = left(&mut loops, there, &Layout::default()).is_empty();
        out.then(|| loops.reasons().next().unwrap().1)
    };
    let said = at("127.0.0.1:9181", "127.0.0.1:9181").unwrap();
    assert_eq!(said, "127.0.0.1:9181: discover itself listens there");
    assert!(at("127.0.0.1:9181", "[::ffff:127.0.0.1]:9181").is_some());
    assert!(at("0.0.0.0:9181", "10.0.0.5:9181").is_some() && at("[::]:9181", "[::1]:9181").is_some());
    assert!(at("127.0.0.1:9181", "10.0.0.5:9181").is_none() && at("127.0.0.1:9181", "127.0.0.1:9180").is_none());
}

#[test]
fn a_server_goes_with_the_listener_that_begins_and_returns_when_it_is_gone() {
    let (mut loops, one) = (loops(&[], None), section("a", "127.0.0.1:1", &["127.0.0.1:80", "127.0.0.1:90"]));
    let without = || layout(vec![one.clone()]);
    let with = || layout(vec![one.clone(), section("b", "127.0.0.1:80", &[])]);
    let mut first = without();
    assert!(!loops.leave_out(&mut first, &without()));
    assert!(Arc::ptr_eq(&first.sections[0], &one), "nothing is made anew");
    let mut second = with();
    assert!(loops.leave_out(&mut second, &without()));
    assert_eq!(second.sections[0].servers.len(), 1);
    let mut again = with();
    assert!(!loops.leave_out(&mut again, &with()), "told once");
    assert!(Arc::ptr_eq(&again.sections[0], &second.sections[0]), "nothing is made anew");
    assert_eq!(left(&mut loops, without(), &with()).len(), 1);
    assert_eq!(left(&mut loops, without(), &without()).len(), 2);
    assert_eq!(loops.reasons().count(), 0);
}

proptest! {
    /// What the system answers decides: a connection to a server's address must not arrive at the listener.
    #[test]
    fn the_rule_agrees_with_the_system(
        listen in prop::sample::select(vec!["127.0.0.1", "127.0.0.2", "0.0.0.0", "::", "::1", "::ffff:127.0.0.1"]),
        target in prop::sample::select(vec!["127.0.0.1", "127.0.0.2", "127.255.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"]),
    ) {
        let (listen, target): (IpAddr, IpAddr) = (listen.parse().unwrap(), target.parse().unwrap());
        if let Ok(listener) = std::net::TcpListener::bind((listen, 0)) {
            let port = listener.local_addr().unwrap().port();
            let arrives = std::net::TcpStream::connect((target, port)).is_ok();
            let mut loops = Loops::new(None);
            loops.look(true, Instant::now());
            let bind = SocketAddr::new(listen, port).to_string();
            let there = layout(vec![section("a", &bind, &[&SocketAddr::new(target, port).to_string()])]);
            let out = left(&mut loops, there, &Layout::default()).is_empty();
            prop_assert!(out || !arrives, "{} to {}", target, bind);
        }
    }
}
