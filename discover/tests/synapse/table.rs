use super::*;
use discover::synapse::keys::ROOT;
use testing::keys::{Reference, json_schema, page};

fn reference() -> Reference<'static> {
    Reference::of(ROOT, include_str!("keys.txt"))
}

/// The sources of the tests in `dir` and below, as one text.
fn sources(dir: &Path) -> String {
    let below = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    below.map(|path| if path.is_dir() { sources(&path) } else { std::fs::read_to_string(path).unwrap() }).collect()
}

#[test]
fn every_key_has_a_test_that_uses_it() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let programs = ["synapse", "synapse_run", "watchers"].map(|name| sources(&tests.join(name)));
    for (name, row) in reference().rows() {
        let test = row.test;
        let source = programs.iter().find(|source| source.contains(&format!("fn {test}(")));
        let source = source.unwrap_or_else(|| panic!("key {name} names the test {test}, which is not there"));
        let uses = [format!("\"{name}\""), format!("{name}:"), format!(".{name}")];
        assert!(uses.iter().any(|word| source.contains(word)), "the program of the test {test} never says {name}");
    }
}

/// What each method cannot do without, where a single key says it.
const REQUIRED: [(&str, &[&str]); 10] = [
    ("etcd", &["path"]),
    ("file", &["path"]),
    ("dns", &["servers"]),
    ("zookeeper", &["hosts", "path"]),
    ("zookeeper_poll", &["hosts", "path"]),
    ("zookeeper_dns", &["hosts", "path"]),
    ("docker", &["servers", "image_name", "container_port"]),
    ("ec2tag", &["tag_name", "tag_value"]),
    ("marathon", &["marathon_api_url", "application_name"]),
    ("multi", &["watchers", "resolver"]),
];

/// The schema of the whole file: the table's, and what each method of discovery requires.
pub fn schema() -> Value {
    let mut schema = json_schema(ROOT, &reference(), "discover's config: Synapse's, extended");
    let rule = |(method, keys): &(&str, &[&str])| {
        let is = json!({"properties": {"method": {"const": method}}, "required": ["method"]});
        json!({"if": is, "then": {"required": keys}})
    };
    let service = &mut schema["properties"]["services"]["additionalProperties"]["properties"];
    service["discovery"]["allOf"] = REQUIRED.iter().map(rule).collect();
    // Its method, and the watcher `primary`, go without saying.
    service["discovery_multi"].as_object_mut().unwrap().remove("required");
    schema
}

#[test]
fn the_schema_in_the_docs_is_current() {
    let mut text = serde_json::to_string_pretty(&schema()).unwrap();
    text.push('\n');
    testing::is_current("docs/discover.schema.json", &text);
}

#[test]
fn the_reference_in_the_docs_is_current() {
    let title = "# Every key of discover's config file\n\n*For users.* Generated: what the program itself takes.\n\n";
    testing::is_current("docs/configuration-keys.md", &format!("{title}{}\n", page(ROOT, &reference(), "discover")));
}
