//! `method: ec2tag`: the running EC2 instances with a tag, at their private addresses and the service's one port.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, json};

use super::aws::{Aws, AwsError, AwsKeys};
use super::findings::Findings;
use super::poll::{Look, Pace, Poll, Polled};
use super::{About, BoxWatcher, Context, Fault, Faults, Method, MethodInput};

/// Between two looks, unless the config says otherwise.
const EVERY_SECONDS: u64 = 15;
/// Instances in one page; EC2 takes 5 to 1,000.
const PAGE: &str = "1000";
/// For all pages together.
const ALL_PAGES: Duration = Duration::from_secs(120);
/// More pages than these are no service: a filter that filters nothing, or an endpoint that goes round in circles.
const MOST_PAGES: usize = 200;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Keys {
    tag_name: Option<String>,
    tag_value: Option<String>,
    check_interval: Option<f64>,
    discovery_jitter: Option<f64>,
}

/// Which instances.
#[derive(Debug, Clone)]
pub struct Ec2Tag {
    about: About,
    tag: (String, String),
    aws: AwsKeys,
    pace: Pace,
}

impl Method for Ec2Tag {
    fn read(asked: &MethodInput<'_>) -> Result<Self, Faults> {
        let keys: Keys = asked.keys()?;
        let required = |key: &str, value: Option<String>| {
            value.filter(|v| !v.is_empty()).ok_or_else(|| Fault::new(key, "is required"))
        };
        let mut faults = Faults::default();
        let tag = [required("tag_name", keys.tag_name), required("tag_value", keys.tag_value)];
        let tag = tag.map(|value| faults.take(value));
        if asked.about.port.is_none() {
            faults.add("method", "ec2tag needs the service's backend_port_override: instances have no port");
        }
        let aws: AwsKeys = asked.keys()?;
        let pace = Pace::every(keys.check_interval, EVERY_SECONDS).starting_within(keys.discovery_jitter);
        faults.take(aws.service("ec2", pace.patience, |name| std::env::var(name).ok()));
        match tag {
            [Some(name), Some(value)] if faults.0.is_empty() => {
                Ok(Self { about: asked.about.clone(), tag: (name, value), aws, pace })
            }
            _ => Err(faults),
        }
    }

    fn doubts(&self) -> Vec<Fault> {
        self.aws.doubts(&|name| std::env::var(name).ok())
    }

    /// Services of one region and account share credentials and connections.
    fn watcher(&self, context: &mut Context) -> BoxWatcher {
        let made = self.aws.service("ec2", self.pace.patience, |name| std::env::var(name).ok());
        match made {
            Ok(aws) => Box::new(self.polled(context.shared(&format!("ec2 {}", self.aws.name()), || aws))),
            Err(_) => Box::new(super::base::Base), // it was tried when the config was read
        }
    }
}

impl Ec2Tag {
    /// The watcher itself.
    pub fn polled(&self, aws: Aws) -> Polled<Ec2Source> {
        let source = Ec2Source { about: self.about.clone(), tag: self.tag.clone(), aws, pace: self.pace };
        // Each page has the patience of one look.
        Polled::new(source, self.about.source.clone(), self.pace.with_patience(ALL_PAGES))
    }
}

/// EC2, as a source that can be looked at.
#[derive(Debug)]
pub struct Ec2Source {
    about: About,
    tag: (String, String),
    aws: Aws,
    pace: Pace,
}

/// `DescribeInstances`, as far as it is needed.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Page {
    reservation_set: Items<Reservation>,
    next_token: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Reservation {
    instances_set: Items<Instance>,
}

#[derive(Debug, Deserialize)]
struct Items<T> {
    #[serde(default = "Vec::new")]
    item: Vec<T>,
}

impl<T> Default for Items<T> {
    fn default() -> Self {
        Self { item: Vec::new() }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Instance {
    instance_id: String,
    private_dns_name: String,
    private_ip_address: String,
}

impl Poll for Ec2Source {
    type Error = AwsError;

    async fn look(&mut self) -> Result<Look, AwsError> {
        let mut findings = Findings::new(&self.about);
        let mut token: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let text = self.aws.get("", &self.question(token.as_deref())).await?;
            let page = page(&text)?;
            for instance in page.reservation_set.item.into_iter().flat_map(|r| r.instances_set.item) {
                take(&instance, &mut findings);
            }
            match page.next_token.filter(|next| !next.is_empty()) {
                None => return Ok(findings.answer().into()),
                next if next == token => return Err(unfit("the same page comes again and again".to_owned())),
                next => token = next,
            }
        }
        Err(unfit(format!("more than {MOST_PAGES} pages of instances")))
    }

    /// The limit is the account's, and shared with everybody else in it.
    fn hold_off(&self, error: &AwsError) -> Duration {
        if error.is_throttled() { self.pace.every } else { Duration::ZERO }
    }
}

impl Ec2Source {
    fn question(&self, token: Option<&str>) -> Vec<(String, String)> {
        let tag = format!("tag:{}", self.tag.0);
        let mut question = vec![
            ("Action", "DescribeInstances"),
            ("Version", "2016-11-15"),
            ("Filter.1.Name", tag.as_str()),
            ("Filter.1.Value.1", self.tag.1.as_str()),
            ("Filter.2.Name", "instance-state-name"),
            ("Filter.2.Value.1", "running"),
            ("MaxResults", PAGE),
        ];
        question.extend(token.map(|token| ("NextToken", token)));
        question.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }
}

fn unfit(why: String) -> AwsError {
    AwsError::Answer { service: "ec2", why }
}

fn page(text: &str) -> Result<Page, AwsError> {
    if !text.contains("<DescribeInstancesResponse") {
        return Err(unfit("an answer that lists no instances".to_owned()));
    }
    quick_xml::de::from_str(text).map_err(|e| unfit(e.to_string()))
}

fn take(instance: &Instance, findings: &mut Findings) {
    if instance.private_ip_address.is_empty() {
        return findings.left_out(&instance.instance_id, "has no private address");
    }
    let fields = [("name", &instance.private_dns_name), ("host", &instance.private_ip_address)];
    let fields: Map<_, _> = fields.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
    findings.registration(&instance.instance_id, &fields);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_and_what_is_none_is_an_error() {
        let full = "<DescribeInstancesResponse xmlns=\"x\"><requestId>r</requestId><reservationSet><item><instancesSet><item>\
            <instanceId>i-1</instanceId><privateDnsName>d</privateDnsName><privateIpAddress>10.0.0.1</privateIpAddress>\
            <instanceState><code>16</code></instanceState></item><item><instanceId>i-2</instanceId><privateDnsName/></item></instancesSet>\
            </item></reservationSet><nextToken>t</nextToken></DescribeInstancesResponse>";
        let read = page(full).unwrap();
        let instances: Vec<&Instance> = read.reservation_set.item.iter().flat_map(|r| &r.instances_set.item).collect();
        let shown: Vec<_> = instances.iter().map(|i| (&*i.instance_id, &*i.private_ip_address)).collect();
        assert_eq!((shown, read.next_token.as_deref()), (vec![("i-1", "10.0.0.1"), ("i-2", "")], Some("t")));
        let empty = page("<DescribeInstancesResponse><reservationSet/></DescribeInstancesResponse>").unwrap();
        assert!(empty.reservation_set.item.is_empty() && empty.next_token.is_none());
        for bad in ["", "<html/>", "<DescribeInstancesResponse><reservationSet>"] {
            assert!(page(bad).is_err(), "{bad}");
        }
    }
}
