//! `register ls`: all that is in the registry, of any writer.

use std::collections::HashSet;
use std::fmt::Write as _;

use registry::store::Store;
use registry::store::etcd::EtcdStore;
use registry::{Snapshot, Table};
use serde_json::{Map, Value, json};

use super::{Failure, print};
use crate::cli::LsArgs;

/// Lists the registry once and prints it.
///
/// # Errors
/// Wrong flags; a registry that does not answer.
pub async fn ls(args: &LsArgs) -> Result<(), Failure> {
    let store = EtcdStore::new(args.etcd.config().map_err(Failure::usage)?);
    let prefix = args.etcd.etcd_prefix.clone();
    let listing = store.list(&prefix.backends()).await.map_err(Failure::runtime)?;
    let mut registry = Table::new(prefix);
    registry.replace(&listing, &HashSet::new(), false);
    let snapshot = registry.snapshot();
    print(&if args.json { format!("{:#}\n", json(&snapshot)) } else { table(&snapshot) })
}

fn json(snapshot: &Snapshot) -> Value {
    let services: Map<String, Value> =
        snapshot.services.iter().map(|(name, pool)| (name.to_string(), json!(pool.backends()))).collect();
    let unreadable: Map<String, Value> =
        snapshot.quarantined.iter().map(|(key, bad)| (key.to_string(), bad.reason.as_str().into())).collect();
    json!({ "revision": snapshot.revision, "services": services, "unreadable": unreadable })
}

fn table(snapshot: &Snapshot) -> String {
    const HEAD: [&str; 7] = ["SERVICE", "ID", "ADDRESS", "TRANSPORT", "STATUS", "NAME", "ROUTES"];
    let mut rows = vec![HEAD.map(str::to_owned)];
    for (service, pool) in &snapshot.services {
        rows.extend(pool.backends().iter().map(|b| {
            let name = b.name.as_deref().unwrap_or("-");
            let names = b.sni.iter().map(|name| format!("tls:{name}"));
            let routes = b.routes.iter().map(ToString::to_string).chain(names).collect::<Vec<_>>().join(" ");
            let (address, transport, status) = (b.address(), b.transport.as_str(), b.status.as_str());
            let words = [service.as_str(), b.id.as_str(), &address, transport, status, name, &routes];
            words.map(str::to_owned)
        }));
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let line: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    for (key, bad) in snapshot.quarantined.iter() {
        // A stranger's key may hold anything; a String takes everything.
        let _ = writeln!(text, "unreadable: {:?}: {}", &**key, bad.reason);
    }
    text
}

#[cfg(test)]
mod tests {
    use testing::fake::FakeStore;

    use super::*;

    #[tokio::test]
    async fn services_are_listed_and_what_is_unreadable_is_shown() {
        let store = FakeStore::new();
        store.put("/backends/web/abc", *b"10.0.0.1:80");
        store.put("/backends/web/abd", *br#"{"host":"h2","port":81,"status":"draining","name":"web-2"}"#);
        store.put("/backends/web/bad\n", *b"?");
        let mut registry = Table::new(Default::default());
        registry.replace(&store.list("/backends/").await.unwrap(), &HashSet::new(), false);
        let text = table(&registry.snapshot());
        assert!(text.contains("web      abd  h2:81        tcp        draining  web-2\n"), "{text}");
        assert!(text.contains(r#"unreadable: "/backends/web/bad\n": "#), "{text}");
        assert_eq!(json(&registry.snapshot())["services"]["web"][0]["host"], "10.0.0.1");
    }
}
