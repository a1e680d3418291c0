use super::*;
use discover::synapse::keys::METHODS;

#[test]
fn an_unknown_method_lists_the_known_ones() {
    let wrong = config_of(json!({}), json!({"discovery": {"method": "carrier-pigeon"}}));
    let error = load(&wrong).unwrap_err().to_string();
    assert!(
        error.contains("services.s.discovery.method")
            && error.contains("carrier-pigeon")
            && METHODS.iter().all(|known| error.contains(known)),
        "{error}"
    );
}

/// The first example of Synapse's README.
#[test]
fn an_old_spelling_of_a_method_is_read_with_a_notice() {
    let awstag = json!({"method": "awstag", "tag_name": "n", "tag_value": "v"});
    for (discovery, at) in [
        (awstag.clone(), "discovery"),
        (
            json!({"method": "multi", "resolver": {"method": "union"}, "watchers": {"ec2": awstag}}),
            "discovery.watchers.ec2",
        ),
    ] {
        let service = json!({"discovery": discovery, "backend_port_override": 80});
        let loaded = load(&config_of(json!({}), service)).unwrap();
        let notices: Vec<String> = loaded.notices.iter().map(ToString::to_string).collect();
        assert!(
            notices
                .iter()
                .any(|n| n.ends_with(&format!("services.s.{at}.method: awstag is an old spelling of ec2tag"))),
            "{notices:?}"
        );
        discover::watchers::configured(&loaded.config).unwrap();
    }
}

#[test]
fn etcd_is_found_in_each_forks_spelling() {
    for (discovery, want) in [
        (json!({"hosts": ["a:1", "b"], "path": "/p/s"}), Ok(vec!["http://a:1", "http://b:2379"])),
        (json!({"host": "a", "port": 7, "path": "p"}), Ok(vec!["http://a:7"])),
        (json!({"hosts": ["a:1"]}), Err("path")),
    ] {
        let mut discovery = discovery;
        discovery["method"] = json!("etcd");
        let config = config(json!({}), json!({"discovery": discovery}));
        match (discover::watchers::configured(&config), want) {
            (Ok(watchers), Ok(want)) => assert_eq!(watchers[0].servers(), want, "{discovery}"),
            (Err(error), Err(word)) => assert!(error.to_string().contains(word), "{error}"),
            (got, want) => panic!("{discovery}: {:?} instead of {want:?}", got.map(|w| w.len())),
        }
    }
}
