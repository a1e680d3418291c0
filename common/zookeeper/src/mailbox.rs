//! Where a watcher finds which of its nodes have changed. A trigger carries no data: the nodes are read again.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::Notify;

use super::ZkPath;
use agent::sync::lock;

/// What has changed at some nodes and their children since it was last looked at.
#[derive(Debug)]
pub struct Mailbox(Arc<Inbox>);

#[derive(Debug, Default)]
struct Inbox {
    dirty: Mutex<BTreeSet<String>>,
    news: Notify,
}

impl Mailbox {
    /// Waits until there is something to [`take`](Self::take).
    ///
    /// Cancel-safe: it takes nothing.
    pub async fn changed(&self) {
        loop {
            let told = self.0.news.notified();
            if !lock(&self.0.dirty).is_empty() {
                return;
            }
            told.await;
        }
    }

    /// The paths that have changed since the last time. The watches that told it are used up.
    pub fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *lock(&self.0.dirty))
    }
}

/// All mailboxes of one session, by the nodes that they are for.
#[derive(Debug, Default)]
pub(super) struct Mailboxes(Mutex<HashMap<String, Vec<Weak<Inbox>>>>);

impl Mailboxes {
    /// A mailbox for these nodes and their children.
    pub(super) fn subscribe(&self, paths: &[&ZkPath]) -> Mailbox {
        let inbox = Arc::new(Inbox::default());
        let mut all = lock(&self.0);
        for path in paths {
            let of_path = all.entry(path.as_str().to_owned()).or_default();
            of_path.retain(|inbox| inbox.strong_count() > 0);
            of_path.push(Arc::downgrade(&inbox));
        }
        Mailbox(inbox)
    }

    /// Tells whom it concerns that the node has changed.
    pub(super) fn deliver(&self, path: &str) {
        let parent = path.rfind('/').map_or("/", |at| if at == 0 { "/" } else { &path[..at] });
        let all = lock(&self.0);
        for inbox in [path, parent].iter().filter_map(|p| all.get(*p)).flatten().filter_map(Weak::upgrade) {
            lock(&inbox.dirty).insert(path.to_owned());
            inbox.news.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn news_of_a_node_reach_its_own_and_its_parents_mailbox() {
        let mailboxes = Mailboxes::default();
        let path = |p: &str| p.parse::<ZkPath>().unwrap();
        let (mine, other) = (mailboxes.subscribe(&[&path("/a"), &path("/c")]), mailboxes.subscribe(&[&path("/b")]));
        for told in ["/a", "/a/x", "/a/x/y", "/c", "/ab"] {
            mailboxes.deliver(told);
        }
        mine.changed().await;
        assert_eq!(mine.take().into_iter().collect::<Vec<_>>(), ["/a", "/a/x", "/c"]);
        mailboxes.deliver("/b/1");
        other.changed().await;
        assert_eq!((other.take().len(), other.take().len()), (1, 0));
        drop(mine);
        mailboxes.deliver("/a"); // nobody is there any more
    }
}
