//! The edge, from the words on a container to a request's answer: ours, Traefik's and nginx-proxy's, all at once.

use e2e::agents::{Discover, Register};
use e2e::docker::{Container, Spec};
use e2e::http::Client;
use e2e::scene::{PATIENCE, loopback, workers};
use e2e::{Etcd, Result, free_port, haproxy, in_lab, wait};

#[test]
fn a_containers_own_words_bring_it_to_the_edge_without_a_reload() -> Result<()> {
    in_lab(async |lab| {
        let (docker, etcd, port) = (lab.docker().await?, Etcd::start(), free_port());
        let _register = Register::new("register").start(lab, &etcd).await?;
        let listen = format!("127.0.0.1:{port}");
        let discover =
            Discover::new("discover", &haproxy::newest()?).args(&["--edge", &listen, "--service-ports", "none"]);
        let _discover = discover.start(lab, &etcd).await?;
        let before = workers(lab).await?;

        let asks =
            async |host: &str, path: &str| Client::new(loopback(port), false, PATIENCE).host(host).get(path).await;
        let answers = async |host: &str, path: &str, from: &Container| {
            let what = format!("{host}{path} answered by {}", from.short());
            let whose = async || asks(host, path).await.is_ok_and(|reply| reply.name() == from.short());
            wait::until_true(&what, PATIENCE, whose).await
        };
        let shop = docker.run(&Spec::whoami("shop").label("register.80.vhost", "shop.example, *.shop.example")).await?;
        let rule = "Host(`shop.example`) && PathPrefix(`/api`)";
        let api = docker.run(&Spec::whoami("api").label("traefik.http.routers.api.rule", rule)).await?;
        let mut blog = Spec::whoami("blog");
        blog.env.push("VIRTUAL_HOST=blog.example".to_owned());
        let blog = docker.run(&blog).await?;
        answers("shop.example", "/", &shop).await?;
        answers("eu.shop.example", "/", &shop).await?;
        answers("shop.example", "/api/orders", &api).await?;
        answers("shop.example", "/apis", &shop).await?;
        answers("blog.example", "/", &blog).await?;

        // The newcomer takes over before the old one is gone.
        let next = docker.run(&Spec::whoami("blog").label("register.80.vhost", "blog.example")).await?;
        answers("blog.example", "/", &next).await?;
        blog.kill().await?;
        answers("blog.example", "/", &next).await?;
        let unknown = asks("nobody.example", "/").await.map(|reply| reply.status);
        assert!(matches!(unknown, Ok(404)), "an unknown host was answered with {unknown:?}");
        assert_eq!(workers(lab).await?, before, "HAProxy was reloaded or restarted");
        Ok(())
    })
}
