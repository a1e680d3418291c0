//! HAProxy's processes: starting, adopting, reloading, dying.

use super::*;

/// Trap: after a reload the session stays with the old worker, which answers and changes nothing that counts.
#[tokio::test]
async fn a_session_sticks_to_the_old_worker_after_a_reload_until_it_is_reopened() {
    for program in programs() {
        let lab = Lab::start(&program, &format!("{EMPTY}    server s1 127.0.0.1:1\n")).await;
        let (mut api, master) = (lab.runtime(), lab.launch.master());
        let old = api.info().await.unwrap().pid;
        let ReloadOutcome::Loaded { worker, .. } = master.reload().await.unwrap() else { panic!("{}", lab.version) };
        let stuck = api.info().await.unwrap();
        assert_eq!(stuck.pid, old, "{}: the trap", lab.version);
        assert!(stuck.stopping, "and this is how it can be told");
        let _ = api.run(Op::SetWeight(server("s1"), 9)).await;
        api.reopen();
        let fresh = api.info().await.unwrap();
        assert_eq!((fresh.pid, fresh.stopping), (worker, false));
        assert_eq!(
            named(&api.servers_state(None).await.unwrap(), "s1").weight,
            1,
            "what the old worker was told is lost"
        );
        let procs = master.show_proc().await.unwrap();
        assert_eq!(procs.current_worker(), Some(worker));
        let told = one_shot(
            &Endpoint::Unix(master.path().to_owned()),
            Prefix::CurrentWorker,
            &Command::new(["show", "info"]).unwrap(),
            Deadlines::default(),
        )
        .await
        .unwrap();
        assert!(told.text().contains(&format!("Pid: {worker}\n")), "@1 reaches the current worker");
        lab.stop().await;
    }
}

#[tokio::test]
async fn a_reload_with_bad_syntax_fails_with_the_reason_and_the_old_worker_goes_on() {
    for program in programs() {
        let lab = Lab::start(&program, EMPTY).await;
        let master = lab.launch.master();
        let before = master.show_proc().await.unwrap().current_worker();
        lab.write(&format!("{EMPTY}    no-such-keyword\n"));
        match check::check(&lab.launch.program, &lab.launch.config, check::CHECK_TIMEOUT).await {
            Err(CheckError::Refused { output, .. }) => assert!(output.contains("no-such-keyword"), "{output}"),
            other => panic!("{other:?}"),
        }
        for failures in 1..=2 {
            match master.reload().await.unwrap() {
                ReloadOutcome::Failed { log } => assert!(log.contains("no-such-keyword"), "{}: {log}", lab.version),
                other => panic!("{}: {other:?}", lab.version),
            }
            let now = master.show_proc().await.unwrap();
            // 3.4 does not count further; where the reload itself tells nothing, the count does.
            let counts = !Capabilities::of(&lab.version).sync_reload;
            let known = if counts { failures..=failures } else { 1..=failures };
            assert_eq!(now.current_worker(), before, "{}", lab.version);
            assert!(known.contains(&now.failed_reloads), "{}: {}", lab.version, now.failed_reloads);
        }
        lab.runtime().info().await.unwrap();
        lab.write(EMPTY);
        check::check(&lab.launch.program, &lab.launch.config, check::CHECK_TIMEOUT).await.unwrap();
        let outcome = master.reload().await.unwrap();
        assert!(matches!(outcome, ReloadOutcome::Loaded { worker, .. } if Some(worker) != before), "{outcome:?}");
        lab.stop().await;
    }
}

/// Trap: `haproxy -c` likes a config whose port is taken; the reload then fails, and meanwhile every listener is closed. So: test-bind first.
#[tokio::test]
async fn a_bind_conflict_passes_the_check_fails_the_reload_and_is_found_by_the_test_bind() {
    for program in programs() {
        let port = free_port();
        let good = format!("frontend f\n    bind 127.0.0.1:{port}\n    default_backend b\n{EMPTY}");
        let lab = Lab::start(&program, &good).await;
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        lab.write(&format!("{good}frontend g\n    bind {address}\n    default_backend b\n"));
        assert_eq!(bindable(address).unwrap_err().reason, BindReason::InUse);
        check::check(&lab.launch.program, &lab.launch.config, check::CHECK_TIMEOUT).await.unwrap();
        match lab.launch.master().reload().await.unwrap() {
            ReloadOutcome::Failed { log } => assert!(log.contains("cannot bind"), "{}: {log}", lab.version),
            other => panic!("{}: {other:?}", lab.version),
        }
        assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok(), "it listens again");
        lab.stop().await;
    }
}

#[tokio::test]
async fn a_haproxy_that_cannot_start_says_why() {
    for program in programs() {
        let lab = Lab::new(&program, "backend b\n    no-such-keyword\n");
        match lab.launch.spawn().await {
            Err(ProcessError::Ended { log, .. }) => assert!(log.contains("no-such-keyword"), "{log}"),
            other => panic!("{other:?}"),
        }
        assert!(adopt(&lab.launch.master()).await.unwrap().is_none());
    }
    let lab = Lab::new(&programs()[0], EMPTY);
    let missing =
        discover::haproxy::process::launch::Launch { program: "/no/such/haproxy".into(), ..lab.launch.clone() };
    assert!(matches!(missing.spawn().await, Err(ProcessError::Run { .. })));
    assert!(check::version(std::path::Path::new("/no/such/haproxy")).await.is_err());
}

#[tokio::test]
async fn a_running_haproxy_is_adopted_and_not_started_again() {
    for program in programs() {
        let mut lab = Lab::start(&program, EMPTY).await;
        assert_eq!(check::version(&program).await.unwrap(), lab.version);
        let adopted = adopt(&lab.launch.master()).await.unwrap().unwrap();
        let started = lab.running.take().unwrap();
        assert_eq!((adopted.master, adopted.child.is_none()), (started.master, true));
        assert_eq!(adopted.procs.current_worker(), started.procs.current_worker());
        // Dropping the handles must not end it.
        drop(adopted);
        let master = MasterCli::new(&lab.launch.master_socket);
        assert!(master.show_proc().await.is_ok());
        let pid = started.master;
        started.stop(Duration::from_secs(5)).await.unwrap();
        assert!(!process::alive(pid), "a graceful stop ends an idle HAProxy");
    }
}

/// A worker that dies takes the master with it: both sockets then answer with errors and nothing hangs.
#[tokio::test]
async fn a_worker_that_dies_is_an_error_on_both_sockets() {
    for program in programs() {
        let mut lab = Lab::start(&program, EMPTY).await;
        let mut api = lab.runtime();
        let worker = api.info().await.unwrap().pid;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker), nix::sys::signal::Signal::SIGKILL).unwrap();
        let mut child = lab.running.take().unwrap().child.unwrap();
        tokio::time::timeout(Duration::from_secs(10), child.wait()).await.unwrap().unwrap();
        assert!(api.info().await.is_err());
        assert!(lab.launch.master().reload().await.is_err());
        lab.running = Some(lab.launch.spawn().await.unwrap());
        assert_eq!(api.servers_state(None).await.unwrap(), []);
        let states = api.servers_state(Some("b")).await.unwrap();
        assert!(states.iter().all(|s| s.oper == OperState::Running));
        lab.stop().await;
    }
}
