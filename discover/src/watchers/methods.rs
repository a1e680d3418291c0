//! The methods by their words.

use super::{BoxWatcher, Context, Fault, Faults, Method, MethodInput};
use crate::synapse::keys::METHODS;

macro_rules! methods {
    ($($word:literal => $variant:ident($method:ty)),+ $(,)?) => {
        /// Every method that there is.
        #[derive(Debug)]
        pub enum AnyMethod {
            $(#[doc = concat!("`", $word, "`")] $variant($method)),+
        }

        /// The words that are read.
        #[cfg(test)]
        const READ: &[&str] = &[$($word),+];

        impl Method for AnyMethod {
            fn read(asked: &MethodInput<'_>) -> Result<Self, Faults> {
                match asked.discovery.method.as_str() {
                    $($word => <$method>::read(asked).map(Self::$variant),)+
                    other => {
                        let known = METHODS.join(", ");
                        Err(Fault::new("method", format!("{other:?} is not known; known are {known}")).into())
                    }
                }
            }

            fn watcher(&self, context: &mut Context) -> BoxWatcher {
                match self { $(Self::$variant(method) => method.watcher(context)),+ }
            }

            fn answers(&self) -> bool {
                match self { $(Self::$variant(method) => method.answers()),+ }
            }

            fn doubts(&self) -> Vec<Fault> {
                match self { $(Self::$variant(method) => method.doubts()),+ }
            }

            fn servers(&self) -> Vec<String> {
                match self { $(Self::$variant(method) => method.servers()),+ }
            }
        }
    };
}

methods! {
    "etcd" => Etcd(super::etcd::Etcd),
    "file" => File(super::file::File),
    "dns" => Dns(super::dns::Dns),
    "zookeeper" => ZooKeeper(super::zookeeper::ZooKeeper<false, false>),
    "zookeeper_poll" => ZooKeeperPoll(super::zookeeper::ZooKeeper<true, false>),
    "zookeeper_dns" => ZooKeeperDns(super::zookeeper::ZooKeeper<false, true>),
    "zookeeper_dns_poll" => ZooKeeperDnsPoll(super::zookeeper::ZooKeeper<true, true>),

    "docker" => Docker(super::docker_hosts::DockerHosts),
    "ec2tag" => Ec2Tag(super::ec2tag::Ec2Tag),
    "marathon" => Marathon(super::marathon::Marathon),
    "multi" => Multi(super::multi::Multi),
    "base" => Base(super::base::Base),
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_of_keys_names_exactly_the_methods_that_there_are() {
        assert_eq!(super::READ, super::METHODS);
    }
}
