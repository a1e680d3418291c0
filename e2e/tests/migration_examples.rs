//! The examples of docs/migration.md as they stand there: its compose files run, its command lines and flags are known.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use e2e::agents::binary;
use e2e::http::Client;
use e2e::{Context, Lab, LabError, Result, in_lab, wait};

const PAGE: &str = include_str!("../../docs/migration.md");
/// For a project to be up and to answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What each compose example is to do once it is up.
struct Case {
    /// A part of the heading above the example.
    heading: &'static str,
    /// What stands in for what this machine does not have: each must be in the example.
    instead: &'static [(&'static str, &'static str)],
    /// Hosts and paths, and which service's container answers there; else it is nobody's.
    asked: &'static [(&'static str, &'static str, Option<&'static str>)],
}

const CASES: &[Case] = &[
    Case {
        heading: "From nginx-proxy",
        instead: &[
            ("jwilder/whoami", WHOAMI),
            ("VIRTUAL_PORT: \"8000\"", "VIRTUAL_PORT: \"8000\", WHOAMI_PORT: \"8000\""),
        ],
        asked: &[
            ("whoami.local", "/", Some("whoami")),
            ("whoami.local", "/deep/er", Some("whoami")),
            ("other.local", "/", Some("other-site")),
        ],
    },
    Case {
        heading: "From nginx-proxy",
        instead: &[
            ("jwilder/whoami", WHOAMI),
            ("VIRTUAL_PORT: \"8000\"", "VIRTUAL_PORT: \"8000\", WHOAMI_PORT: \"8000\""),
        ],
        asked: &[("site.local", "/", Some("site")), ("database", "/", None)],
    },
    Case {
        heading: "From Traefik",
        instead: &[("traefik/whoami", WHOAMI)],
        asked: &[
            ("whoami.local", "/api", Some("whoami")),
            ("whoami.local", "/api/x", Some("whoami")),
            ("whoami.local", "/", None),
            ("other.local", "/", Some("other-site")),
        ],
    },
    Case {
        heading: "or caddy-docker-proxy",
        instead: &[("traefik/whoami", WHOAMI)],
        asked: &[("whoami.local", "/", Some("whoami")), ("other.local", "/", Some("other-site"))],
    },
];

const WHOAMI: &str = "docker-register-demo/whoami";

/// A compose project; it goes with this.
struct Project {
    name: String,
    file: PathBuf,
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = self.compose(&["down", "--volumes", "--timeout", "1"]);
    }
}

impl Project {
    fn compose(&self, args: &[&str]) -> Result<String> {
        let plugin = Command::new("docker").args(["compose", "version"]).output().is_ok_and(|o| o.status.success());
        let mut command = if plugin { Command::new("docker") } else { Command::new("docker-compose") };
        if plugin {
            command.arg("compose");
        }
        run(command.args(["-p", &self.name, "-f"]).arg(&self.file).args(args))
    }

    fn logs(&self) -> String {
        self.compose(&["logs", "--tail", "30"]).unwrap_or_default()
    }
}

fn run(command: &mut Command) -> Result<String> {
    let what = format!("{command:?}");
    let Output { status, stdout, stderr } = command.output().during(what.clone())?;
    match status.success() {
        true => Ok(String::from_utf8_lossy(&stdout).trim().to_owned()),
        false => Err(LabError::new(String::from_utf8_lossy(&stderr).into_owned())).during(what),
    }
}

/// The blocks of the page that begin with this line, each with its heading.
fn blocks(first: &str) -> Vec<(&'static str, String)> {
    let (mut found, mut heading, mut within) = (Vec::<(&str, String)>::new(), "", false);
    for line in PAGE.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            heading = title;
        }
        let code = line.strip_prefix("    ");
        if !within && code == Some(first) {
            found.push((heading, String::new()));
        }
        within = code.is_some_and(|code| within || code == first);
        if let (true, Some(code), Some((_, block))) = (within, code, found.last_mut()) {
            block.push_str(code);
            block.push('\n');
        }
    }
    found
}

/// The example with what this machine has, on any free port, and for containers of its own project alone.
fn prepared(lab: &Lab, name: &str, block: &str, case: &Case) -> Result<Project> {
    let filter = format!("DISCOVER_EDGE: \":80\", DISCOVER_FILTER: \"label=com.docker.compose.project={name}\"");
    let ours = [("\"80:80\"", "\"127.0.0.1::80\""), ("DISCOVER_EDGE: \":80\"", filter.as_str())];
    let mut text = block.to_owned();
    for (this, that) in ours.iter().chain(case.instead) {
        if !text.contains(this) {
            return Err(LabError::new(format!("the example of {:?} has no {this} any more:\n{block}", case.heading)));
        }
        text = text.replace(this, that);
    }
    let file = lab.dir().join(format!("{name}.yaml"));
    std::fs::write(&file, text).during("writing the example")?;
    Ok(Project { name: name.to_owned(), file })
}

#[test]
fn a_compose_project_moves_by_its_proxys_service_alone() -> Result<()> {
    in_lab(async |lab| {
        let blocks = blocks("services:");
        assert_eq!(blocks.len(), CASES.len(), "each compose example has its case");
        for (nth, ((heading, block), case)) in blocks.iter().zip(CASES).enumerate() {
            assert!(heading.contains(case.heading), "{heading}");
            let project = prepared(lab, &format!("e2e-migration-{}-{nth}", std::process::id()), block, case)?;
            project.compose(&["up", "-d"])?;
            asks(&project, case).await.during(format!("{heading}: {}", project.logs()))?;
        }
        Ok(())
    })
}

async fn asks(project: &Project, case: &Case) -> Result<()> {
    let edge = project.compose(&["port", "proxy", "80"])?.parse().during("the proxy's port")?;
    for (host, path, service) in case.asked {
        let container = service.map(|service| project.compose(&["ps", "-q", service])).transpose()?;
        let name = container.as_deref().map(|id| id.get(..12).unwrap_or_default());
        let mut client = Client::new(edge, false, PATIENCE).host(host);
        let mut is_right = async || {
            client.get(path).await.is_ok_and(|reply| match name {
                Some(name) => reply.status == 200 && reply.name() == name,
                None => reply.status == 404,
            })
        };
        wait::until_true(&format!("the right answer of {host}{path}"), PATIENCE, &mut is_right).await?;
        // From now on nobody else answers, above all no other container of the image.
        for _ in 0..4 {
            assert!(is_right().await, "{host}{path} was answered by another");
        }
    }
    Ok(())
}

/// Programs, with the subcommands to which a flag that stands alone may belong.
const PROGRAMS: [(&str, &[&str]); 2] =
    [("register", &["run", "exec", "put", "ls"]), ("discover", &["run", "render", "exec", "wait"])];

/// Flags of Docker's own.
const DOCKERS: [&str; 1] = ["--net host"];

/// The page's words between backquotes, but for those of its blocks.
fn spans() -> impl Iterator<Item = String> {
    let prose: Vec<&str> = PAGE.lines().filter(|line| !line.starts_with("    ")).collect();
    let spans: Vec<String> = prose.join(" ").split('`').skip(1).step_by(2).map(str::to_owned).collect();
    spans.into_iter()
}

/// Whether the program understands these words. With `--help` at their end it does nothing; what comes first is read first.
fn is_understood(program: &Path, words: &[&str]) -> Result<(), String> {
    // After `--` all words are another program's.
    let words = words.iter().take_while(|word| **word != "--").map(|word| word.replace('…', "x"));
    let output = Command::new(program).args(words).arg("--help").output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // A flag that is named without its value is a flag.
    let known = output.status.success() || said.starts_with("error: a value is required for");
    if known { Ok(()) } else { Err(said) }
}

#[test]
fn every_command_line_and_flag_of_the_page_is_understood() -> Result<()> {
    let (mut lines, mut wrong) = (0, Vec::new());
    for span in spans() {
        let words: Vec<&str> = span.split_whitespace().collect();
        let Some(first) = words.first() else { continue };
        let first = first.strip_prefix("docker-").unwrap_or(first);
        let tried = match PROGRAMS.iter().find(|(program, _)| *program == first) {
            Some((program, _)) => is_understood(&binary(program)?, &words[1..]),
            None if first.starts_with("--") && !DOCKERS.contains(&&*span) => {
                let mut outcome = Err(String::new());
                for (program, subcommands) in PROGRAMS {
                    let program = binary(program)?;
                    let tries = subcommands.iter().map(|sub| is_understood(&program, &[&[*sub], &words[..]].concat()));
                    outcome = tries.fold(outcome, |before, now| before.or(now));
                }
                outcome
            }
            None => continue,
        };
        lines += 1;
        wrong.extend(tried.err().map(|why| format!("{span}: {why}")));
    }
    assert!(lines > 30, "only {lines} found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn every_variable_of_the_page_is_documented_as_one_of_the_programs() {
    let documented = include_str!("../../docs/configuration-flags.md");
    let is_part = |c: char| c.is_ascii_uppercase() || c == '_';
    let words = PAGE.split(|c: char| !is_part(c));
    let ours: Vec<&str> = words.filter(|word| word.starts_with("DISCOVER_") || word.starts_with("REGISTER_")).collect();
    assert!(ours.len() > 3, "{ours:?}");
    for word in ours {
        assert!(documented.contains(&format!("`{word}`")), "{word}");
    }
}

/// The `docker run` lines, for no container at all: what they print depends on the machine.
#[test]
fn the_pages_docker_lines_run() -> Result<()> {
    let lines: Vec<&str> = PAGE.lines().map(str::trim).filter(|line| line.starts_with("docker run ")).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in lines {
        let words = line.split_whitespace().skip(2);
        let filter = ["run", "-e", "REGISTER_FILTER=label=e2e.migration=none"];
        run(Command::new("docker").args(filter).args(words))?;
    }
    Ok(())
}
