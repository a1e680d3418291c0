//! discover's page with something wrong, with many services, in the dark and on a telephone.

use e2e::agents::Discover;
use e2e::server::Server;
use e2e::{Context, Etcd, Lab, Result, free_port, haproxy};
use etcd_client::{PutOptions, Txn, TxnOp};
use serde_json::{Value, json};

use super::Visit;

/// The size of a large installation.
const LARGE: (usize, usize) = (1_000, 20);
/// The most bytes of the page without its data.
const PAGE: usize = 60_000;

/// Each text that has too little contrast (WCAG 2.1, 1.4.3: 4.5 to 1), and what a keyboard or a screen reader finds without a name.
const AUDIT: &str = r"(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (css) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255, 255]; };
  const light = ([r, g, b]) => { const f = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const faults = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n = walk.nextNode(); n; n = walk.nextNode()) {
    const e = n.parentElement;
    if (!n.data.trim() || !e.checkVisibility() || e.closest('script, noscript, svg')) continue;
    const [a, b] = [light(rgba(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) faults.push(`${((a + 0.05) / (b + 0.05)).toFixed(1)} to 1: ${n.data.slice(0, 40)}`);
  }
  for (const e of document.querySelectorAll('a, button, input, table')) {
    const name = e.getAttribute('aria-label') || e.textContent.trim();
    if (!name) faults.push(`no name: ${e.outerHTML.slice(0, 60)}`);
  }
  for (const e of document.querySelectorAll('th')) if (!e.scope) faults.push(`no scope: ${e.textContent}`);
  return [...new Set(faults)];
})()";

impl Visit {
    /// What is wrong stands first, with its reason and the command that helps; the row unfolds by keyboard, and says since when and why.
    pub async fn what_is_wrong(&mut self) -> Result<()> {
        let (good, bad, port) = (Server::start("good").await?, Server::start("bad").await?, free_port());
        for (id, server) in [("good", &good), ("bad", &bad)] {
            let value = json!({"host": server.address.ip(), "port": server.address.port(), "service_port": port, "mode": "http", "name": format!("checkout-{id}")});
            let put = self.etcd.operator().await.put(format!("/backends/checkout/{id}"), value.to_string(), None).await;
            put.during("putting a backend")?;
        }
        self.browser.goto(&format!("http://{}/", self.discover.address())).await?;
        self.browser.complaints();
        self.browser.until("document.querySelector('#services')?.innerText.includes('2 up')").await?;
        drop(bad);
        self.browser.until("document.querySelector('#trouble').innerText.includes('checkout: 1 of 2 down')").await?;
        let trouble = self.browser.text("document.querySelector('#trouble').innerText").await?;
        assert!(trouble.contains("checkout-bad at") && trouble.contains("Connection refused"), "{trouble}");
        assert!(trouble.contains("discover history checkout"), "the command that helps: {trouble}");
        self.browser.until("document.querySelector('#said').textContent.includes('checkout: 1 of 2 down')").await?;
        // Other services of this browser have lost their servers by now: they may stand before it.
        let rank = "[...document.querySelectorAll('#services .row')].map((row) => row.matches('.bad') ? 2 : row.matches('.soso') ? 1 : 0).join('')";
        let ranks = self.browser.text(rank).await?;
        assert!(
            ranks.contains('1') && ranks.as_bytes().is_sorted_by(|a, b| a >= b),
            "what is not whole stands first: {ranks}"
        );
        // The rows below are about that one.
        self.browser
            .evaluate("document.querySelector('#filter').value = 'checkout', document.querySelector('#filter').dispatchEvent(new Event('input', {bubbles: true}))")
            .await?;
        self.browser.until("document.querySelector('#services .fold').textContent === 'checkout'").await?;
        // By keyboard: to the filter, and from there to the row.
        self.browser.evaluate("dispatchEvent(new KeyboardEvent('keydown', {key: '/', bubbles: true}))").await?;
        assert_eq!(self.browser.text("document.activeElement.id").await?, "filter");
        self.browser
            .evaluate("document.querySelector('#services .fold').focus(), document.activeElement.click()")
            .await?;
        self.browser.until("document.querySelector('#services .inner')?.innerText.includes('HAProxy: down')").await?;
        let row = self.browser.text("document.querySelector('#services .inner').innerText").await?;
        assert!(row.contains("DOWN") && row.contains("L4CON: Connection refused") && row.contains("came"), "{row}");
        assert_eq!(
            self.browser.text("document.activeElement.getAttribute('aria-expanded')").await?,
            "true",
            "the focus stays"
        );
        self.browser.until("document.querySelector('#timeline').innerText.includes('HAProxy: down')").await?;
        self.shot("degraded.png").await?;
        for (dark, width) in [(false, 1200), (true, 1200), (true, 390), (false, 390)] {
            self.browser.look(width, dark).await?;
            let faults = self.browser.evaluate(AUDIT).await?;
            assert_eq!(faults, json!([]), "dark: {dark}, {width} pixels wide");
            let wider = self.browser.evaluate("document.documentElement.scrollWidth > innerWidth").await?;
            assert_eq!(wider, Value::Bool(false), "nothing sticks out at {width} pixels");
            self.shot(&format!("degraded-{width}-{}.png", if dark { "dark" } else { "light" })).await?;
        }
        self.browser.look(1200, false).await?;
        assert_eq!(self.browser.complaints(), Vec::<String>::new());
        Ok(())
    }

    /// A thousand services of twenty backends: the page is there at once, and holds the rows that can be seen.
    pub async fn many_services(&mut self, lab: &Lab) -> Result<()> {
        let etcd = Etcd::start();
        fill(&etcd).await?;
        let discover = Discover::new("large", &haproxy::newest()?).files_only().start(lab, &etcd).await?;
        let (mut paint, mut longest) = (f64::MAX, 0.0_f64);
        for _ in 0..3 {
            self.browser.goto(&format!("http://{}/", discover.address())).await?;
            self.browser.until("performance.getEntriesByType('paint').length > 0 && document.querySelector('#services')?.innerText.includes('20 up')").await?;
            let painted = "performance.getEntriesByType('paint').at(-1).startTime - performance.getEntriesByType('navigation')[0].responseStart";
            let took = self.browser.evaluate(painted).await?.as_f64().during("a time of painting")?;
            (paint, longest) = (paint.min(took), longest.max(took));
        }
        println!("FIGURE first paint of {} services of {} backends: {paint:.0} to {longest:.0} ms", LARGE.0, LARGE.1);
        let rows = self.browser.evaluate("document.querySelectorAll('#services .row').length").await?;
        assert!((20..200).contains(&rows.as_u64().unwrap_or(0)), "{rows} rows in the document");
        self.browser.evaluate("scrollTo(0, document.body.scrollHeight / 2)").await?;
        self.browser.until("document.querySelector('#services .row')?.getAttribute('aria-rowindex') > 100").await?;
        let filter = "(() => { const f = document.getElementById('filter'); f.value = 's0777'; f.dispatchEvent(new Event('input')); \
                      return document.querySelectorAll('#services .row').length; })()";
        assert_eq!(self.browser.evaluate(filter).await?, json!(1));
        self.shot("large.png").await?;
        let sizes = "Promise.all(['page.css', 'page.js', 'own.js'].map(async (f) => (await (await fetch(f)).arrayBuffer()).byteLength)).then((all) => all.reduce((a, b) => a + b))";
        let bytes = self.browser.evaluate(sizes).await?.as_u64().during("a size")?;
        assert!(usize::try_from(bytes).is_ok_and(|bytes| bytes < PAGE), "{bytes} bytes");
        Ok(())
    }
}

/// Puts all registrations under one lease, which outlives the test.
async fn fill(etcd: &Etcd) -> Result<()> {
    let mut operator = etcd.operator().await;
    let lease = operator.lease_grant(3600, None).await.during("granting a lease")?.id();
    let one = |service: usize, backend: usize| {
        let (key, at) = (
            format!("/backends/s{service:04}/b{backend}"),
            format!("10.{}.{}.{backend}", service / 250, service % 250),
        );
        let value = json!({"host": at, "port": 8080, "service_port": 10_000 + service, "name": format!("s{service}-{backend}")});
        TxnOp::put(key, value.to_string(), Some(PutOptions::new().with_lease(lease)))
    };
    let all: Vec<TxnOp> =
        (0..LARGE.0).flat_map(|service| (0..LARGE.1).map(move |backend| one(service, backend))).collect();
    for some in all.chunks(100) {
        operator.txn(Txn::new().and_then(some.to_vec())).await.during("putting registrations")?;
    }
    Ok(())
}
