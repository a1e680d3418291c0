//! When a reporter may end; the test is the reporter.

use serde_json::json;

use super::*;
use crate::nerve::reporters::{Reading, Want};

fn placement(service: &str, kind: &str) -> Placement {
    let fields = json!({"zk_hosts": ["here"], "zk_path": format!("/nerve/{service}"), "node_type": kind});
    let mut report = agent::config::Report::default();
    let reading = Reading { fields: fields.as_object().unwrap(), path: "services.web", report: &mut report };
    let target = AnyTarget::read("zookeeper", reading).unwrap();
    Placement { service: service.into(), instance: "i-1".into(), target }
}

fn payload() -> Payload {
    r#"{"host":"h","port":80,"name":"i-1"}"#.into()
}

/// An outlet that has `want`ed something, and its reporter's side.
fn outlet(placement: &Placement, want: Want) -> (Outlet, watch::Receiver<Arc<Wanted>>, watch::Sender<Standing>) {
    let wanted: Wanted = [(placement.clone(), want)].into();
    let (outlet, (receiver, out)) = Outlets::default().outlet(wanted, Ends::default(), false);
    (outlet, receiver, out)
}

#[tokio::test]
async fn an_outlet_owes_what_outlives_the_agent_until_it_is_confirmed() {
    let rows = [
        ("persistent", Want::Publish(payload()), true),
        ("persistent", Want::Leave(payload()), true),
        ("persistent", Want::Absent(payload()), true),
        ("persistent_sequential", Want::Publish(payload()), true),
        ("ephemeral", Want::Publish(payload()), false),
        ("ephemeral_sequential", Want::Leave(payload()), false),
    ];
    for (kind, want, owes) in rows {
        let placement = placement("web", kind);
        let (mut outlet, wanted, out) = outlet(&placement, want.clone());
        let now = Instant::now();
        outlet.bring_to(Wanted::new(), now);
        outlet.bring_to(Wanted::new(), now + FAREWELL * 2);
        assert_eq!((outlet.closing, outlet.owes), (Some(now), owes), "{kind} {want:?}");
        let still = owes.then(|| Want::Absent(payload()));
        assert_eq!(wanted.borrow().get(&placement).cloned(), still, "{kind} {want:?}");
        out.send_modify(|s| s.absent = [placement.clone()].into());
        outlet.bring_to(Wanted::new(), now);
        assert!(!outlet.owes && wanted.borrow().is_empty(), "{kind} {want:?}");
    }
}

#[tokio::test]
async fn what_is_wanted_again_is_not_owed() {
    let placement = placement("web", "persistent");
    let (mut outlet, wanted, _out) = outlet(&placement, Want::Publish(payload()));
    let now = Instant::now();
    outlet.bring_to(Wanted::new(), now);
    outlet.bring_to([(placement.clone(), Want::Publish(payload()))].into(), now);
    assert_eq!((outlet.closing, outlet.owes), (None, false));
    assert_eq!(wanted.borrow().get(&placement), Some(&Want::Publish(payload())));
}

#[tokio::test]
async fn a_reporter_with_something_to_remove_is_neither_ended_nor_asked_again_and_again() {
    let placement = placement("web", "persistent");
    let mut outlets = Outlets::default();
    let wanted: Wanted = [(placement.clone(), Want::Publish(payload()))].into();
    let (outlet, (_receiver, out)) = outlets.outlet(wanted, Ends::default(), false);
    outlets.open.insert("there".to_owned(), outlet);
    let frame = crate::nerve::services::tests::frame(crate::nerve::statsd::Statsd::off());
    outlets.bring_to(BTreeMap::new(), &frame);
    if let Some(outlet) = outlets.open.get_mut("there") {
        outlet.closing = Instant::now().checked_sub(FAREWELL);
    }
    outlets.bring_to(BTreeMap::new(), &frame);
    assert!(outlets.open.contains_key("there"), "ZooKeeper has not confirmed it");
    assert_eq!(outlets.deadline(), None);
    out.send_modify(|s| s.absent = [placement].into());
    outlets.bring_to(BTreeMap::new(), &frame);
    assert!(outlets.open.is_empty());
}
