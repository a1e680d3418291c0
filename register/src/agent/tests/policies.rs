//! What checks, Docker's HEALTHCHECK and a warm-up make of a registration.

use super::*;

/// A server on loopback that answers HTTP requests with the status it is told to.
pub(super) async fn http_server() -> (u16, watch::Sender<u16>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (status, now) = watch::channel(200);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = format!("HTTP/1.1 {} x\r\ncontent-length: 0\r\n\r\n", *now.borrow());
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    (port, status)
}

#[tokio::test]
async fn a_failed_check_withdraws_or_marks_down_as_the_policy_says_and_the_row_tells_why() {
    for (policy, while_failing) in [("hide", None), ("down", Some(Status::Down))] {
        let (port, answers) = http_server().await;
        answers.send_replace(503);
        let mut web = container(1, port);
        for (label, value) in [("check", "http"), ("check.interval", "20ms"), ("health", policy)] {
            web.labels.insert(format!("register.{label}"), value.into());
        }
        let mut lab = Lab::start(&FakeStore::new(), None);
        lab.run(std::slice::from_ref(&web));
        let failing: Vec<_> = while_failing.map(|status| (&web, status)).into_iter().collect();
        let waiting = |rows: &Rows| rows.values().any(|r| r.checks.iter().any(|c| c.reason.is_some()));
        timeout(DEADLINE, lab.rows.wait_for(waiting)).await.unwrap().unwrap();
        lab.expect(&failing).await;
        answers.send_replace(200);
        lab.expect(&[(&web, Status::Up)]).await;
        answers.send_replace(500);
        lab.expect(&failing).await;
        let told = |rows: &Rows| rows.values().any(|r| r.reason == "a check fails: http: GET / answered 500");
        timeout(DEADLINE, lab.rows.wait_for(told)).await.unwrap().unwrap();
        answers.send_replace(200);
        lab.expect(&[(&web, Status::Up)]).await;
        lab.kill().await;
    }
}

#[tokio::test]
async fn the_healthcheck_is_followed_by_the_policy_of_each_container() {
    let (_listener, port) = listening();
    for (policy, starting, unhealthy) in [
        ("hide", None, None),
        ("down", Some(Status::Down), Some(Status::Down)),
        ("ignore", Some(Status::Up), Some(Status::Up)),
    ] {
        let mut web = container(1, port);
        web.labels.insert("register.health".into(), policy.into());
        let lab = Lab::start(&FakeStore::new(), None);
        for (health, status) in [
            (Health::Starting, starting),
            (Health::Healthy, Some(Status::Up)),
            (Health::Unhealthy, unhealthy),
            (Health::Healthy, Some(Status::Up)),
        ] {
            web.health = Some(health);
            lab.run(std::slice::from_ref(&web));
            let expected: Vec<_> = status.map(|status| (&web, status)).into_iter().collect();
            lab.expect(&expected).await;
        }
        lab.kill().await;
    }
}

#[tokio::test]
async fn a_weight_grows_while_its_backend_warms_up_and_each_step_is_one_write() {
    let (_listener, port) = listening();
    let mut web = container(1, port);
    web.labels.insert("register.warmup".into(), "500ms".into());
    web.labels.insert("register.weight".into(), "100".into());
    let store = FakeStore::new();
    let lab = Lab::start(&store, None);
    lab.run(std::slice::from_ref(&web));
    lab.expect(&[(&web, Status::Up)]).await;
    let mut weights = Vec::new();
    let grown = async {
        while weights.last() != Some(&100) {
            let value: Value = serde_json::from_slice(&store.entries("/backends/")[0].value).unwrap();
            let weight = value["weight"].as_u64().unwrap();
            if weights.last() != Some(&weight) {
                weights.push(weight);
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(DEADLINE, grown).await.unwrap();
    assert!(weights.len() <= 5 && weights.is_sorted() && weights[0] < 100, "{weights:?}");
}
