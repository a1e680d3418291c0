//! What restricts access, what has no effect, and what our own labels add to routes in other words.

use super::tests::{assert_refused, decisions, routes};

const A: &str = "traefik.http.routers.a.rule=Host(`a.example`)";
const AUTH: &str = "traefik.http.middlewares.auth.basicauth.users=bob:s3cr3t";

#[test]
fn what_restricts_access_closes_its_places_to_the_containers_other_routes() {
    let admin = format!(
        "traefik.http.routers.p.rule=Host(`a.example`) && PathPrefix(`/admin`)\n{AUTH}\ntraefik.http.routers.p.middlewares=auth"
    );
    let whole = format!("{A}\n{AUTH}\ntraefik.http.routers.a.middlewares=auth");
    let redirect = "traefik.http.routers.r.rule=Host(`a.example`)\ntraefik.http.routers.r.middlewares=https
        traefik.http.middlewares.https.redirectscheme.scheme=https";
    let other = "traefik.http.routers.b.rule=Host(`b.example`)";
    let public = "traefik.http.routers.b.rule=Host(`a.example`) && PathPrefix(`/public`)";
    let unreadable = format!(
        "traefik.http.routers.p.rule=Host(`a.example`) && Method(`POST`)\n{AUTH}\ntraefik.http.routers.p.middlewares=auth"
    );
    for (text, expected) in [
        (whole.clone(), &[][..]),
        (format!("{whole}\n{redirect}"), &[]),
        (format!("{A}\n{admin}"), &[]),
        (format!("{other}\n{admin}"), &["80 b.example/"]),
        (format!("{public}\n{whole}"), &["80 a.example/public"]),
        (format!("{other}\n{unreadable}"), &[]),
        (format!("{whole}\n$VIRTUAL_HOST=a.example"), &[]),
        (format!("{whole}\nregister.vhost=a.example"), &["80 a.example/"]),
        (format!("{A}\ntraefik.http.routers.a.tls.options=mtls@file"), &[]),
        (format!("{A}\ntraefik.http.routers.a.tls.options=default"), &["80 a.example/"]),
        (format!("{A}\ntraefik.http.routers.a.middlewares=auth@file\n{redirect}"), &[]),
        ("caddy=a.example\ncaddy.basic_auth.bob=x\n$VIRTUAL_HOST=a.example".to_owned(), &[]),
        ("caddy=a.example\ncaddy.basic_auth.bob=x\n$VIRTUAL_HOST=b.example".to_owned(), &["80 b.example/"]),
    ] {
        assert_eq!(routes(&[80], &text).0, expected, "{text}");
    }
    for restricting in [
        "basicauth.users=bob:x",
        "digestauth.usersfile=/f",
        "forwardauth.address=http://auth",
        "ipallowlist.sourcerange=10.0.0.0/8",
        "ipwhitelist.sourcerange=10.0.0.0/8",
        "inflightreq.amount=3",
        "ratelimit.average=3",
        "plugin.x.y=z",
        "chain.middlewares=x",
    ] {
        let middleware = format!("traefik.http.middlewares.m.{restricting}\ntraefik.http.routers.a.middlewares=m");
        let (found, warnings) = routes(&[80], &format!("{A}\n{middleware}\n{redirect}"));
        assert!(
            found.is_empty() && warnings.iter().any(|w| w.contains("would be open")),
            "{restricting}: {warnings:?}"
        );
    }
    let harmless = "traefik.http.middlewares.m.headers.framedeny=true\ntraefik.http.routers.a.middlewares=m";
    assert_eq!(routes(&[80], &format!("{A}\n{harmless}\n{redirect}")).0, ["80 a.example/ (redirected to https)"]);
}

#[test]
fn what_restricts_the_container_keeps_it_out_and_is_said() {
    for (text, by) in [
        ("$VIRTUAL_HOST=a.example\n$NETWORK_ACCESS=internal", "NETWORK_ACCESS"),
        ("$NETWORK_ACCESS=Internal\nregister.vhost=a.example", "NETWORK_ACCESS"),
        ("com.github.nginx-proxy.nginx-proxy.ssl_verify_client=on", "ssl_verify_client"),
    ] {
        let decisions = decisions(&[80], text);
        assert!(decisions.iter().all(|decision| decision.candidate().is_none()), "{text}");
        assert!(decisions[0].to_string().contains(by) && decisions[0].warnings[0].contains(by), "{}", decisions[0]);
    }
    for text in ["external", "none"] {
        let (found, _) = routes(&[80], &format!("$VIRTUAL_HOST=a.example\n$NETWORK_ACCESS={text}"));
        assert_eq!(found, ["80 a.example/"], "{text}");
    }
}

#[test]
fn every_word_of_a_vocabulary_is_accounted_for() {
    let nginx = "$VIRTUAL_HOST=a.example\n$VIRTUAL_PORT=80\n$VIRTUAL_PATH=/x\n$VIRTUAL_ROOT=/www\n$HTTPS_METHOD=nohttps
        $HSTS=off\n$CERT_NAME=shared\n$SSL_POLICY=Mozilla-Modern\n$LETSENCRYPT_HOST=a.example\n$NETWORK_ACCESS=external
        com.github.nginx-proxy.nginx-proxy.keepalive=64\ncom.github.nginx-proxy.nginx-proxy.loadbalance=ip_hash;";
    let traefik = "traefik.http.routers.a.rule=Host(`a.example`)\ntraefik.http.routers.a.entrypoints=websecure
        traefik.http.routers.a.tls.certresolver=le\ntraefik.http.routers.a.service=s\ntraefik.docker.network=front
        traefik.http.services.s.loadbalancer.server.port=80\ntraefik.http.services.s.loadbalancer.healthcheck.path=/h
        traefik.http.services.s.loadbalancer.responseforwarding.flushinterval=1s\ntraefik.http.middlewares.m.compress=true";
    let caddy = "caddy=a.example\ncaddy.reverse_proxy={{upstreams 80}}\ncaddy.tls.dns=route53\ncaddy.encode=gzip\ncaddy_1.email=x@a.example";
    for text in [nginx, traefik, caddy] {
        let explained: String = decisions(&[80], text).iter().map(ToString::to_string).collect();
        for line in text.lines().map(|line| line.trim().trim_start_matches('$')) {
            let (name, _) = line.split_once('=').unwrap();
            assert!(explained.contains(name), "{name} is not in:\n{explained}");
        }
        assert!(explained.contains("a.example"), "{explained}");
    }
    // An entry point that may be an internal one is warned of.
    for (points, warned) in [("web,websecure", false), ("WEB, https", false), ("internal", true), ("web,admin", true)] {
        let text =
            format!("traefik.http.routers.a.rule=Host(`a.example`)\ntraefik.http.routers.a.entrypoints={points}");
        assert_eq!(routes(&[80], &text).1.iter().any(|w| w.contains("entrypoints has no effect")), warned, "{points}");
    }
    // An application's own variables are no business of nginx-proxy's.
    let (_, warnings) = routes(&[80], "$VIRTUAL_ENV=/venv\n$HSTS=on\n$CERT_NAME=x\n$HTTPS_METHOD=GET");
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn https_method_redirects_where_it_says_so() {
    for (method, expected, warns) in [
        ("redirect", "80 a.example/ (redirected to https)", false),
        ("nohttp", "80 a.example/ (redirected to https)", false),
        ("noredirect", "80 a.example/", false),
        ("nohttps", "80 a.example/", true),
        ("sometimes", "80 a.example/", true),
    ] {
        let (found, warnings) = routes(&[80], &format!("$VIRTUAL_HOST=a.example\n$HTTPS_METHOD={method}"));
        assert_eq!((found, !warnings.is_empty()), (vec![expected.to_owned()], warns), "{method}: {warnings:?}");
    }
}

#[test]
fn our_own_labels_add_to_routes_in_other_words_or_are_named() {
    for words in ["$VIRTUAL_HOST=a.example", A, "caddy=a.example\ncaddy.reverse_proxy={{upstreams}}"] {
        let own = "register.redirect-https=true\nregister.80.sticky=true\nregister.path=/x\nregister.priority=3";
        let (found, warnings) = routes(&[80], &format!("{words}\n{own}"));
        assert_eq!(found, ["80 a.example/x (priority 3, sticky, redirected to https)"], "{words}: {warnings:?}");
    }
    let (found, _) = routes(&[80], "$VIRTUAL_HOST=a.example\n$HTTPS_METHOD=redirect\nregister.redirect-https=false");
    assert_eq!(found, ["80 a.example/"]);
    let clash = "$VIRTUAL_HOST=a.example\n$VIRTUAL_PATH=/y\nregister.path=/x";
    assert_refused(&[80], clash, "its path is /y, and the label register.path says /x");
    assert_refused(
        &[80],
        "register.sticky=true",
        "label register.sticky is not used: no port that it is about has a route",
    );
    let (_, warnings) = routes(&[80, 81], "register.80.vhost=a.example\nregister.81.path=/x");
    assert_eq!(warnings, ["label register.81.path is not used: no port that it is about has a route"]);
}

#[test]
fn traefiks_switch_is_read_as_go_reads_it() {
    for (word, serves) in [
        ("true", true),
        ("1", true),
        ("t", true),
        ("", false),
        ("0", false),
        ("f", false),
        ("False", false),
        ("no", false),
        ("yes", false),
    ] {
        let (found, warnings) = routes(&[80], &format!("{A}\ntraefik.enable={word}"));
        assert_eq!(!found.is_empty(), serves, "{word:?}");
        assert_eq!(
            warnings.iter().any(|w| w.contains("ParseBool") || w.contains("1, t, T")),
            ["", "no", "yes"].contains(&word),
            "{word:?}: {warnings:?}"
        );
    }
}

#[test]
fn no_message_shows_the_value_of_another_programs_label() {
    let text = format!(
        "{A}\ntraefik.http.routers.a.middlewares=m,s3cr3t s3cr3t\ntraefik.http.middlewares.m.basicauth.users=s3cr3t
        traefik.http.services.s.loadbalancer.server.scheme=s3cr3t\ntraefik.http.routers.b.rule=Header(`x`, `s3cr3t`) s3cr3t
        traefik.http.routers.a.priority=s3cr3t\ntraefik.http.s3=s3cr3t\ntraefik.enable=true
        caddy=c.example\ncaddy.basic_auth.bob=s3cr3t\ncaddy.reverse_proxy=s3cr3t\ncaddy_1.x=s3cr3t
        $VIRTUAL_HOST=a.example\n$VIRTUAL_PROTO=s3cr3t\n$VIRTUAL_DEST=s3cr3t\n$LETSENCRYPT_EMAIL=s3cr3t\n$HTTPS_METHOD=s3cr3t
        com.github.nginx-proxy.nginx-proxy.x=s3cr3t\nother.password=s3cr3t\n$PASSWORD=s3cr3t\nregister.check.command=s3cr3t\0"
    );
    for decision in decisions(&[80, 81], &text) {
        assert!(!decision.to_string().contains("s3cr3t"), "{decision}");
    }
}
