//! The contract's suite over `multi` with each of its resolvers.

use testing::aws::AwsApi;
use testing::watch_contract::{Breakage, Order, Rig, keeps_the_contract};

use super::multi::Files;
use super::*;

/// Backends in two files, which break together.
struct MultiRig {
    files: Files,
    resolver: Value,
    /// Which file a backend's name puts it into.
    file_of: fn(&str) -> usize,
    named: Named,
    broken: bool,
}

impl MultiRig {
    /// Of the resolvers that choose, the first watcher has all: the other one is there, and has none.
    fn new(resolver: Value, file_of: fn(&str) -> usize) -> Self {
        let files = Files::new(&["first", "second"]);
        let rig = Self { files, resolver, file_of, named: Named::default(), broken: false };
        rig.write();
        rig
    }

    fn write(&self) {
        for (n, name) in self.files.names.iter().enumerate() {
            let own = self.named.at.iter().filter(|((_, b), _)| (self.file_of)(b) == n);
            let own: Vec<&String> = own.map(|(_, address)| address).collect();
            let name = if self.broken { format!("{name}.aside") } else { (*name).to_owned() };
            let (text, before) = (json!(own).to_string(), std::fs::read_to_string(self.files.path(&name)));
            if before.ok() != Some(text) {
                self.files.write(&name, &json!(own));
            }
        }
    }
}

impl Rig for MultiRig {
    type Watcher = Boxed;

    fn watcher(&self) -> Boxed {
        Boxed(method(self.files.discovery(self.resolver.clone())).watcher(&mut context()))
    }

    async fn put(&mut self, backends: &[(&str, &str)]) {
        self.named.put(backends, |n| format!("10.0.{}.{}:80", n / 250, n % 250 + 1));
        self.write();
    }

    async fn remove(&mut self, service: &str, name: &str) {
        self.named.remove(service, name);
        self.write();
    }

    async fn break_off(&mut self, how: Breakage) {
        self.broken = true;
        for name in &self.files.names {
            std::fs::rename(self.files.path(name), self.files.path(&format!("{name}.aside"))).unwrap();
            if how == Breakage::Hang {
                nix::unistd::mkfifo(&self.files.path(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
            }
        }
    }

    async fn mend(&mut self) {
        self.broken = false;
        for name in &self.files.names {
            std::fs::rename(self.files.path(&format!("{name}.aside")), self.files.path(name)).unwrap();
        }
    }

    fn history(&self) -> &History {
        &self.named.history
    }

    fn order(&self) -> Order {
        Order::EachBackend
    }

    fn quiet(&self) -> Duration {
        Duration::from_secs(1)
    }
}

#[tokio::test]
async fn multi_union_keeps_the_contract() {
    let by_name = |name: &str| name.len().wrapping_add(name.as_bytes()[0].into()) % 2;
    keeps_the_contract(&mut MultiRig::new(json!({"method": "union"}), by_name)).await;
}

#[tokio::test]
async fn multi_sequential_keeps_the_contract() {
    let resolver = json!({"method": "sequential", "sequential_order": ["first", "second"]});
    keeps_the_contract(&mut MultiRig::new(resolver, |_| 0)).await;
}

#[tokio::test]
async fn multi_fallback_keeps_the_contract() {
    // The preferred one has none, ever: what the other one says counts.
    keeps_the_contract(&mut MultiRig::new(json!({"method": "fallback"}), |_| 1)).await;
}

#[tokio::test]
async fn multi_s3_toggle_keeps_the_contract() {
    let s3 = AwsApi::start().await;
    s3.put("toggles/web.yaml", "first: 0\nsecond: 7\n");
    let resolver = json!({
        "method": "s3_toggle", "s3_url": "s3://toggles/web.yaml", "s3_polling_interval_seconds": 0.2, "aws_region": "us-east-1",
        "aws_endpoint_url": s3.url(), "aws_access_key_id": "test", "aws_secret_access_key": "test",
    });
    keeps_the_contract(&mut MultiRig::new(resolver, |_| 1)).await;
}
