use super::*;

fn s() -> ServerRef {
    ServerRef::new("web", "web_10.0.0.1:80").unwrap()
}

fn judge(op: &Op, text: &str) -> Result<(), RefusalKind> {
    op.judge(&Reply::from_text(text)).map_err(|r| r.kind)
}

#[test]
fn each_operation_has_its_command() {
    let address: SocketAddr = "[::1]:80".parse().unwrap();
    let params = ServerParams::parse("check inter 1s weight 3").unwrap();
    let is = |op: Op, line: &str| assert_eq!(op.command().unwrap().to_string(), line);
    is(Op::AddServer(s(), address, params), "add server web/web_10.0.0.1:80 [::1]:80 check inter 1s weight 3");
    is(Op::SetAddr(s(), address), "set server web/web_10.0.0.1:80 addr ::1 port 80");
    is(Op::SetWeight(s(), 0), "set server web/web_10.0.0.1:80 weight 0");
    is(Op::Maint(s()), "set server web/web_10.0.0.1:80 state maint");
    is(Op::EnableAgent(s()), "enable agent web/web_10.0.0.1:80");
    is(Op::AgentUp(s()), "set server web/web_10.0.0.1:80 agent up");
    is(Op::DisableAgent(s()), "disable agent web/web_10.0.0.1:80");
}

#[test]
fn nothing_can_be_injected() {
    for bad in ["", "a/b", "a b", "a;b", "a\nb", "a%", "#1"] {
        assert!(ServerRef::new("web", bad).is_err(), "{bad:?}");
        assert!(ServerRef::new(bad, "s").is_err(), "{bad:?}");
    }
    assert!(ServerParams::parse("check;disable server a/b").is_err());
    assert!(ServerParams::parse("weight 3\nshow info").is_ok(), "a newline only separates words");
    let map = |map: &str, key: &str, value: &str| {
        Op::MapAdd { map: map.into(), key: key.into(), value: value.into() }.command()
    };
    assert!(map("/m", "a.example", "web").is_ok());
    for (m, k, v) in [
        ("#1", "a", "b"),
        ("@1", "a", "b"),
        ("/m", "#0x1", "b"),
        ("/m", "a b", "c"),
        ("/m", "a", "b;c"),
        ("/m", "a", ""),
    ] {
        assert!(map(m, k, v).is_err(), "{m} {k} {v}");
    }
}

#[test]
fn only_known_replies_are_a_success() {
    use RefusalKind::*;
    let address: SocketAddr = "127.0.0.1:80".parse().unwrap();
    let add = Op::AddServer(s(), address, ServerParams::default());
    assert_eq!(judge(&add, "New server registered.\n"), Ok(()));
    assert_eq!(judge(&add, ""), Err(Other));
    assert_eq!(judge(&add, "Already exists a server with the same name in backend.\n"), Err(Exists));
    assert_eq!(
        judge(&add, "Backend must use a dynamic load balancing to support dynamic servers.\n"),
        Err(StaticAlgorithm)
    );
    assert_eq!(judge(&add, "unknown keyword 'bogus'.\n"), Err(Other));
    let del = Op::DelServer(s());
    assert_eq!(judge(&del, "Server deleted."), Ok(()));
    assert_eq!(judge(&del, "No such server."), Err(NotFound));
    assert_eq!(judge(&del, "Server still has connections attached to it, cannot remove it."), Err(Busy));
    assert_eq!(judge(&del, "Only servers in maintenance mode can be deleted."), Err(NotInMaintenance));
    assert_eq!(judge(&Op::Ready(s()), "\n"), Ok(()));
    assert_eq!(judge(&Op::Ready(s()), "Proxy is disabled.\n"), Err(StoppedWorker));
    assert_eq!(judge(&Op::Maint(s()), "Permission denied\n"), Err(Other));
}

#[test]
fn an_address_that_is_already_right_counts_as_set() {
    let op = Op::SetAddr(s(), "127.0.0.2:99".parse().unwrap());
    let by = "by 'stats socket command'";
    let good = [
        format!("IP changed from '127.0.0.1' to '127.0.0.2', port changed from '1' to '99' {by}"),
        format!("no need to change the addr, no need to change the port {by}"),
        format!("no need to change the addr, port changed from '1' to '99' {by}"),
        "nothing changed".to_owned(),
    ];
    for text in good {
        assert_eq!(judge(&op, &text), Ok(()), "{text}");
    }
    for text in [
        format!("Invalid addr 'zzz' {by}"),
        format!("no need to change the addr, can't change port {by}"),
        String::new(),
    ] {
        assert_eq!(judge(&op, &text), Err(RefusalKind::Other), "{text}");
    }
}

/// Texts of 3.4.3, where a deletion repeats what happened to the section's servers before.
#[test]
fn sections_come_and_go_from_3_4_on() {
    let name = || SectionName::new("api").unwrap();
    let add = Op::AddSection { name: name(), defaults: SectionName::new("http").unwrap() };
    assert_eq!(add.command().unwrap().to_string(), "add backend api from http");
    assert_eq!(judge(&add, "New backend registered.\n"), Ok(()));
    let taken = "Error during backend creation : name is already used by other proxy 'backend api'.";
    assert_eq!(judge(&add, taken), Err(RefusalKind::Exists));
    assert_eq!(judge(&Op::PublishSection(name()), "Backend published."), Ok(()));
    assert_eq!(judge(&Op::UnpublishSection(name()), "Backend unpublished."), Ok(()));
    let del = Op::DelSection(name());
    let long = "Server api/s is going DOWN for maintenance.\nbackend 'api' has no server available!\nServer deleted.\nBackend deleted.\n";
    assert_eq!(judge(&del, long), Ok(()));
    assert_eq!(judge(&del, "Server deleted."), Err(RefusalKind::Other));
    assert_eq!(judge(&del, "Backend must be unpublished prior to its deletion."), Err(RefusalKind::NotInMaintenance));
    assert_eq!(judge(&del, "Only a backend without server can be deleted."), Err(RefusalKind::Busy));
    assert!(SectionName::new("a/b").is_err() && SectionName::new("").is_err());
}
