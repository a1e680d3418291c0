use super::*;

const STATE: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n3 b0 1 s1 127.0.0.3 0 0 9 5 7 8 2 0 6 0 0 0 - 99 - 0 0 - - 0\n3 b0 2 y ::1 2 1 1 1 0 1 0 2 2 0 0 0 a.example 1 - 0 0 - - 0\n\n";

#[test]
fn servers_state_is_read_by_its_header() {
    let rows = servers_state(STATE).unwrap();
    assert_eq!(rows.len(), 2);
    let (down, maint) = (&rows[0], &rows[1]);
    assert_eq!((down.section.as_str(), down.name.as_str(), down.id, down.port), ("b0", "s1", 1, 99));
    assert_eq!((down.oper, down.weight, down.since), (OperState::Stopped, 9, Duration::from_secs(7)));
    assert!(down.check.enabled() && !down.admin.in_maintenance());
    assert_eq!(maint.addr, Some("::1".parse().unwrap()));
    assert!(maint.admin.forced_maintenance() && maint.check.0 & 0x02 != 0 && !maint.check.enabled());
}

#[test]
fn columns_may_be_added_or_move() {
    let text = "1\n# be_id srv_name be_name new_one srv_id srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_state srv_agent_state srv_fqdn srv_port\n3 s b x 1 127.0.0.1 2 8 1 1 0 6 22 - 80\n";
    let rows = servers_state(text).unwrap();
    assert_eq!((rows[0].section.as_str(), rows[0].name.as_str()), ("b", "s"));
    assert!(rows[0].admin.draining() && rows[0].agent.enabled());
}

#[test]
fn a_reply_that_is_no_table_is_an_error() {
    for text in ["", "Can't find backend.\n", "1\n# be_id be_name\n3 b0\n", &STATE.replace(" 99 ", " ninety ")] {
        assert!(servers_state(text).is_err(), "{text:?}");
    }
    assert!(info("Unknown command").is_err());
    assert!(map_entries("Unknown map identifier. Please use #<id> or <file>.").is_err());
}

#[test]
fn info_tells_an_old_worker_apart() {
    let text = "Name: HAProxy\nVersion: 2.6.12-1+deb12u4\nPid: 12045\nUptime: 0d 0h00m00s\nUptime_sec: 61\nMaxconn: 9979\nCurrConns: 3\nMaxsock: 20100\nStopping: 1\nUnstoppable Jobs: 1\n";
    let info = info(text).unwrap();
    assert_eq!((info.pid, info.maxconn), (12045, 9979));
    assert!(info.stopping && info.version.branch() == (2, 6));
}

#[test]
fn map_values_may_hold_spaces() {
    let entries = map_entries("0x55 /x b1\n0x56 /y b 2\n").unwrap();
    assert_eq!(entries, [("/x".to_owned(), "b1".to_owned()), ("/y".to_owned(), "b 2".to_owned())]);
}
