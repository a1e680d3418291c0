//! The edge and the agents' pages as people meet them: in a browser. One browser run for all of it.

mod pages;
mod socket;

use std::path::Path;

use e2e::agents::{Agent, Discover, Register};
use e2e::browser::{Browser, PATIENCE, missing};
use e2e::docker::Spec;
use e2e::http::Client;
use e2e::scene::{free_ports, loopback};
use e2e::server::Server;
use e2e::{Context, Etcd, Lab, Result, haproxy, in_lab, wait};
use serde_json::{Value, json};
use testing::certs::self_signed;

/// A directory for pictures of what the browser saw, if somebody wants them.
const SHOTS: &str = "E2E_SCREENSHOTS";

/// The edge with both of its ports, and the browser before it.
struct Visit {
    browser: Browser,
    discover: Agent,
    etcd: Etcd,
    http: u16,
    https: u16,
}

#[test]
fn a_browser_finds_cookies_redirects_sockets_and_pages_as_they_should_be() -> Result<()> {
    if let Some(why) = missing() {
        testing::skipped(why);
        return Ok(());
    }
    in_lab(async |lab| {
        let mut visit = Visit::start(lab).await?;
        visit.cookies().await?;
        visit.redirect().await?;
        visit.sockets().await?;
        visit.error_pages().await?;
        visit.status_pages(lab).await?;
        visit.what_is_wrong().await?;
        visit.many_services(lab).await?;
        visit.browser.close().await
    })
}

impl Visit {
    async fn start(lab: &Lab) -> Result<Self> {
        let (etcd, ports) = (Etcd::start(), free_ports(2)?);
        let (http, https) = (ports[0], ports[1]);
        let certs = lab.subdir("certs")?;
        self_signed(&certs, "edge", &["secure.example", "socket.example"]);
        let config = lab.dir().join("edge.yaml");
        let text = json!({"listen": format!("127.0.0.1:{http}"), "https_port": https, "certificates": [certs]});
        std::fs::write(&config, text.to_string()).during("writing the edge's config")?;
        // What nobody drained is held; here it is to go.
        let args = ["--edge-config", &config.to_string_lossy(), "--hold", "0s"];
        let program = Discover::new("discover", &haproxy::newest()?).args(&args);
        // The browser takes the longest, and needs nothing of the others.
        let (browser, discover) = tokio::join!(Browser::start(lab), program.start(lab, &etcd));
        Ok(Self { browser: browser?, discover: discover?, etcd, http, https })
    }

    async fn put(&self, key: &str, at: std::net::SocketAddr, route: Value) -> Result<()> {
        let value = json!({"host": at.ip(), "port": at.port(), "routes": [route]}).to_string();
        self.etcd.operator().await.put(key, value, None).await.during(format!("putting {key}")).map(drop)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.etcd.operator().await.delete(key, None).await.during(format!("deleting {key}")).map(drop)
    }

    /// Waits until the edge answers so.
    async fn answers(&self, host: &str, what: &str, right: impl Fn(u16, &str) -> bool) -> Result<()> {
        let mut client = Client::new(loopback(self.http), false, PATIENCE).host(host);
        let what = format!("{what} from {host}");
        wait::until_true(&what, PATIENCE, async || {
            client.get("/").await.is_ok_and(|reply| right(reply.status, reply.name()))
        })
        .await
    }

    async fn goto(&mut self, host: &str, path: &str) -> Result<()> {
        let url = format!("http://{host}:{}{path}", self.http);
        self.browser.goto(&url).await
    }

    async fn shot(&mut self, name: &str) -> Result<()> {
        match std::env::var_os(SHOTS) {
            Some(dir) => self.browser.screenshot(&Path::new(&dir).join(name)).await,
            None => Ok(()),
        }
    }

    /// The names of who answers the page's next requests.
    async fn asked(&mut self, options: &str) -> Result<Vec<String>> {
        let script = format!(
            "(async () => {{ const names = []; for (let n = 0; n < 6; n++) \
             names.push((await (await fetch('/', {options})).text()).trim()); return names; }})()"
        );
        let names = self.browser.evaluate(&script).await?;
        serde_json::from_value(names).during("names of who answered")
    }

    /// A sticky cookie is kept by the browser, hidden from scripts, and leads to the same backend through changes.
    async fn cookies(&mut self) -> Result<()> {
        let (a, b, c) = (Server::start("a").await?, Server::start("b").await?, Server::start("c").await?);
        let sticky = json!({"host": "sticky.example", "sticky": true});
        for (key, server) in [("/backends/sticky/a", &a), ("/backends/sticky/b", &b)] {
            self.put(key, server.address, sticky.clone()).await?;
            self.answers("sticky.example", &server.name, |_, name| *name == *server.name).await?;
        }
        self.goto("sticky.example", "/").await?;
        let mine = self.browser.text("document.body.innerText.trim()").await?;
        assert!(mine == "a" || mine == "b", "{mine}");
        assert_eq!(self.browser.text("document.cookie").await?, "", "the cookie is none of a script's business");
        assert_eq!(self.asked("{}").await?, [&*mine; 6]);
        let others = self.asked("{credentials: 'omit'}").await?;
        assert!(others.iter().any(|name| *name != mine), "without the cookie all get their share: {others:?}");

        self.put("/backends/sticky/c", c.address, sticky.clone()).await?;
        self.answers("sticky.example", "c", |_, name| name == "c").await?;
        assert_eq!(self.asked("{}").await?, [&*mine; 6], "another came");
        self.delete(if mine == "a" { "/backends/sticky/b" } else { "/backends/sticky/a" }).await?;
        self.discover.crash_and_restart().await?;
        self.goto("sticky.example", "/").await?;
        assert_eq!(
            self.browser.text("document.body.innerText.trim()").await?,
            mine,
            "another went, discover was killed"
        );

        let gone = format!("/backends/sticky/{mine}");
        self.delete(&gone).await?;
        self.answers("sticky.example", "c alone", |_, name| name == "c").await?;
        let left = wait::until("c for everybody", PATIENCE, async || {
            let names = self.asked("{}").await.ok()?;
            names.iter().all(|name| name == "c").then_some(names)
        });
        assert_eq!(left.await?, ["c"; 6], "one's own backend went");
        Ok(())
    }

    /// From HTTP to HTTPS, path and query kept, and there by HTTP/2.
    async fn redirect(&mut self) -> Result<()> {
        let server = Server::start("secure").await?;
        let route = json!({"host": "secure.example", "redirect_https": true});
        self.put("/backends/secure/a", server.address, route).await?;
        self.answers("secure.example", "a redirect", |status, _| status == 308).await?;
        self.goto("secure.example", "/deep/er?x=1&y=%20").await?;
        let arrived = format!("https://secure.example:{}/deep/er?x=1&y=%20", self.https);
        assert_eq!(self.browser.text("location.href").await?, arrived);
        assert_eq!(self.browser.text("document.body.innerText.trim()").await?, "secure");
        let protocol = "performance.getEntriesByType('navigation')[0].nextHopProtocol";
        assert_eq!(self.browser.text(protocol).await?, "h2");
        Ok(())
    }

    /// What a page sends over a WebSocket comes back, over HTTP and, on a stream of HTTP/2, over HTTPS.
    async fn sockets(&mut self) -> Result<()> {
        self.put("/backends/socket/a", socket::echo("socket").await?, json!({"host": "socket.example"})).await?;
        self.answers("socket.example", "socket", |_, name| name == "socket").await?;
        for (page, socket) in [("http", "ws"), ("https", "wss")] {
            let port = if page == "http" { self.http } else { self.https };
            self.browser.goto(&format!("{page}://socket.example:{port}/")).await?;
            let long = "x".repeat(1000);
            let script = format!(
                "new Promise((done, failed) => {{ const heard = []; const socket = new WebSocket('{socket}://socket.example:{port}/');
                 socket.onopen = () => ['hello', 'grüß dich', '{long}'].forEach((text) => socket.send(text));
                 socket.onmessage = (e) => {{ heard.push(e.data); if (heard.length === 3) socket.close(1000); }};
                 socket.onerror = () => failed('no socket');
                 socket.onclose = (e) => done([e.code, e.wasClean, ...heard]); }})"
            );
            let heard = self.browser.evaluate(&script).await?;
            assert_eq!(heard, json!([1000, true, "hello", "grüß dich", long]), "{socket}");
        }
        Ok(())
    }

    /// A host that is nobody's, and one that nobody serves any more: two pages that say so.
    async fn error_pages(&mut self) -> Result<()> {
        let server = Server::start("gone").await?;
        self.put("/backends/gone/a", server.address, json!({"host": "gone.example"})).await?;
        self.answers("gone.example", "gone", |_, name| name == "gone").await?;
        self.delete("/backends/gone/a").await?;
        self.answers("gone.example", "503", |status, _| status == 503).await?;
        for (host, status, says) in [
            ("nobody.example", 404, "There is no service here."),
            ("gone.example", 503, "No backend of this service is up."),
        ] {
            self.goto(host, "/").await?;
            let got = self.browser.evaluate("performance.getEntriesByType('navigation')[0].responseStatus").await?;
            assert_eq!(got, status, "{host}");
            let shown = self.browser.text("document.body.innerText").await?;
            assert!(shown.contains(says), "{host}: {shown}");
            self.shot(&format!("{status}.png")).await?;
        }
        Ok(())
    }

    /// The agents' pages: what changes is there without loading them again, and nothing of them is refused.
    async fn status_pages(&mut self, lab: &Lab) -> Result<()> {
        let docker = lab.docker().await?;
        let register = Register::new("register").start(lab, &self.etcd).await?;
        let pages = [("discover", self.discover.address(), "services"), ("register", register.address(), "containers")];
        for (name, address, rows) in pages {
            self.browser.complaints(); // about pages before it
            self.browser.goto(&format!("http://{address}/")).await?;
            self.browser.until("document.getElementById('link').textContent === 'live'").await?;
            self.browser.until("document.getElementById('ready').textContent === 'ready'").await?;
            self.browser.evaluate("window.sameAsBefore = true").await?;
            let service = format!("seen-by-{name}");
            let container = docker.run(&Spec::whoami(&service)).await?;
            self.browser.until(&format!("document.getElementById('{rows}').innerText.includes('{service}')")).await?;
            self.shot(&format!("{name}.png")).await?;
            container.remove().await?;
            let gone = format!("!document.getElementById('{rows}').innerText.includes('{service}')");
            self.browser.until(&gone).await?;
            assert_eq!(
                self.browser.evaluate("window.sameAsBefore").await?,
                json!(true),
                "{name}'s page was loaded again"
            );
            assert_eq!(self.browser.complaints(), Vec::<String>::new(), "{name}");
        }
        Ok(())
    }
}
