use std::net::SocketAddr;
use std::sync::Arc;

use model::{BackendId, Port};

use super::*;
use crate::haproxy::api::stats::stat;

const HEADER: &str = "# pxname,svname,type,status,weight,act,bck,scur,stot,econ,eresp,req_tot,hrsp_5xx,";

fn seen(rows: &[&str]) -> Seen {
    Seen::of(stat(&format!("{HEADER}\n{}\n", rows.join("\n"))).unwrap())
}

fn backend(id: &str, port: u16) -> Backend {
    let to: SocketAddr = format!("10.0.0.1:{port}").parse().unwrap();
    let backend = Backend::new(id.parse::<BackendId>().unwrap(), to.ip().into(), to.port().try_into().unwrap());
    Backend { service_port: Port::new(80), ..backend }
}

fn pool(backends: Vec<Backend>) -> Pool {
    backends.into_iter().map(Arc::new).collect()
}

#[test]
fn a_backend_is_up_where_it_can_take_a_request() {
    let states = [
        ("UP", 1, BackendState::Up),
        ("UP 1/3", 1, BackendState::Up),
        ("no check", 1, BackendState::Up),
        ("UP", 0, BackendState::Draining),
        ("no check", 0, BackendState::Draining),
        ("NOLB", 1, BackendState::Draining),
        ("NOLB 1/2", 1, BackendState::Draining),
        ("DRAIN", 1, BackendState::Draining),
        ("DRAIN (agent)", 1, BackendState::Draining),
        ("DOWN", 1, BackendState::Down),
        ("DOWN 1/2", 1, BackendState::Down),
        ("DOWN (agent)", 1, BackendState::Down),
        ("MAINT", 1, BackendState::Maint),
        ("MAINT (resolution)", 1, BackendState::Maint),
        ("MAINT (via a/b)", 1, BackendState::Maint),
        ("what a later version may say", 1, BackendState::Down),
    ];
    for (status, weight, wanted) in states {
        let seen = seen(&[&format!("web,a,2,{status},{weight},1,0,0,0,0,0,0,0,")]);
        let web = seen.service(&"web".parse().unwrap(), &pool(vec![backend("a", 1)]), &Places::Native, &<_>::default());
        assert_eq!(web.unwrap().states, [wanted], "{status} {weight}");
    }
}

#[test]
fn a_backend_is_reached_by_each_section_that_its_service_has() {
    let web = "web".parse().unwrap();
    let sections = [(web, ["edge:1".to_owned()].into())].into();
    let edge = EdgePlaces(vec![&sections]);
    let web = &"web".parse().unwrap();
    let pool = pool(vec![backend("a", 1), backend("b@c", 2), backend("gone", 3)]);
    let seen = seen(&[
        "web,BACKEND,1,UP,1,1,0,2,10,1,0,10,3,",
        "web,a,2,DOWN,1,1,0,0,0,0,0,0,0,",
        "web,b.-at-c,2,DOWN,1,1,0,0,0,0,0,0,0,",
        "edge:1,BACKEND,1,UP,1,1,0,1,5,0,1,5,0,",
        "edge:1,a,2,UP,1,1,0,0,0,0,0,0,0,",
    ]);
    let traffic = seen.service(web, &pool, &Places::Native, &edge).unwrap();
    assert_eq!(traffic.states, [BackendState::Up, BackendState::Down, BackendState::Down]);
    let counts = traffic.counts.unwrap();
    assert_eq!((counts.sessions, counts.requests, counts.errors, counts.responses_5xx), (3, 15, 2, 3));
    let own = seen.service(web, &pool, &Places::Native, &EdgePlaces::default()).unwrap();
    assert_eq!(own.states, [BackendState::Down; 3]);
}

#[test]
fn what_asks_for_no_place_in_haproxy_is_not_haproxys() {
    let (web, none) = (&"web".parse().unwrap(), EdgePlaces::default());
    let portless = pool(vec![Backend { service_port: None, ..backend("a", 1) }]);
    let here = seen(&["web,a,2,UP,1,1,0,0,0,0,0,0,0,"]);
    assert_eq!(Seen::default().service(web, &portless, &Places::Native, &none), None);
    assert!(here.service(web, &portless, &Places::Native, &none).is_some(), "its last port still counts");
    let udp = pool(vec![Backend { transport: Transport::Udp, ..backend("a", 1) }]);
    assert_eq!(here.service(web, &udp, &Places::Native, &none).unwrap().states, [BackendState::Up]);
    let ported = pool(vec![backend("a", 1)]);
    let absent = Seen::default().service(web, &ported, &Places::Native, &none).unwrap();
    assert_eq!(absent.states, [BackendState::Down], "it asks for a port, and is in no section");
}

#[test]
fn synapses_names_are_its_own() {
    let web: ServiceName = "web".parse().unwrap();
    let places = Places::Synapse(Arc::new([(web.clone(), "renamed".into())].into()));
    let named = Backend { name: Some("n".into()), ..backend("a", 7) };
    let seen = seen(&["renamed,n_10.0.0.1:7,2,MAINT,1,1,0,0,0,0,0,0,0,"]);
    let state = |status| {
        let pool = pool(vec![Backend { status, ..named.clone() }]);
        seen.service(&web, &pool, &places, &EdgePlaces::default()).unwrap().states[0]
    };
    assert_eq!(
        (state(Status::Up), state(Status::Down)),
        (BackendState::Maint, BackendState::Down),
        "discover's own maintenance is `down`"
    );
    assert_eq!(places.service_of("renamed"), Some(web));
}
