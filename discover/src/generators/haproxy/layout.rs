//! haproxy.cfg as a value: a header, then sections, each a skeleton with its servers at its end, then a footer.

use std::sync::Arc;

use super::server::{Server, checksum};

/// The file's first line: says whose it is, and carries its checksum so that a hand's edits are noticed.
const MARK: &str = "# Written by discover; edits are undone. checksum=";
/// Begins a section of ours.
const SECTION: &str = "# service ";
/// Begins a section's servers: one line each from here to the section's end.
const SERVERS: &str = "\t# servers";
/// Begins the footer.
const FOOTER: &str = "# end of services";

/// All of haproxy.cfg.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// Whole lines before the first section: global, defaults, stats.
    pub header: Arc<str>,
    /// The sections, in the order of the file.
    pub sections: Vec<Arc<Section>>,
    /// Whole lines after the last section; often none.
    pub footer: Arc<str>,
}

/// A block of the file that ends with the servers of one pool. It may hold more than one HAProxy section (a frontend
/// and its backend), but servers in the last one only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The HAProxy section that holds the servers.
    pub name: Arc<str>,
    /// Whole lines up to the servers: the structure, which only a reload can change.
    pub skeleton: Arc<str>,
    /// In the order of the file.
    pub servers: Vec<Server>,
    /// The words of `default-server` that count for them, from the file's `defaults` and from the skeleton.
    pub inherited: Arc<str>,
}

/// The words of `default-server` in the `defaults` of `header` and in `skeleton`: what `add server` must be told.
pub fn inherited(header: &str, skeleton: &str) -> Arc<str> {
    if !header.contains("default-server") && !skeleton.contains("default-server") {
        return "".into();
    }
    let mut words: Vec<&str> = Vec::new();
    let mut defaults = false;
    for line in header.lines() {
        match line.starts_with(char::is_whitespace) {
            false => defaults = line.split_whitespace().next() == Some("defaults"),
            true if defaults => words.extend(default_server(line)),
            true => {}
        }
    }
    words.extend(skeleton.lines().flat_map(default_server));
    words.join(" ").into()
}

fn default_server(line: &str) -> impl Iterator<Item = &str> {
    let mut words = line.split_whitespace();
    let ours = words.next() == Some("default-server");
    words.filter(move |_| ours)
}

impl Layout {
    /// The file's text: equal layouts give equal bytes.
    pub fn render(&self) -> String {
        use std::fmt::Write as _;
        let mut body = String::with_capacity(self.header.len() + self.sections.len() * 512);
        body.push_str(&self.header);
        for section in &self.sections {
            // Writing to a String cannot fail.
            let _ = write!(body, "\n{SECTION}{}\n{}{SERVERS}\n", section.name, section.skeleton);
            for server in &section.servers {
                let _ = writeln!(body, "\t{server}");
            }
        }
        if !self.footer.is_empty() {
            let _ = write!(body, "\n{FOOTER}\n{}", self.footer);
        }
        format!("{MARK}{:016x}\n{body}", checksum(body.as_bytes()))
    }

    /// Reads back what [`render`](Self::render) wrote. `None` for a file that is not ours or was edited: what runs is
    /// then not known from it.
    pub fn parse(text: &str) -> Option<Self> {
        let (mark, body) = text.split_once('\n')?;
        let sum = u64::from_str_radix(mark.strip_prefix(MARK)?, 16).ok()?;
        (sum == checksum(body.as_bytes())).then_some(())?;
        let (body, footer) = body.split_once(&format!("\n{FOOTER}\n")).unwrap_or((body, ""));
        let separator = format!("\n{SECTION}");
        let mut blocks = body.split(&separator);
        let header: Arc<str> = blocks.next()?.into();
        let sections = blocks.map(|block| Section::parse(block, &header).map(Arc::new)).collect::<Option<_>>()?;
        Some(Self { header, sections, footer: footer.into() })
    }
}

impl Section {
    fn parse(block: &str, header: &str) -> Option<Self> {
        let (name, block) = block.split_once('\n')?;
        let (skeleton, servers) = match block.strip_prefix(&format!("{SERVERS}\n")) {
            Some(servers) => ("", servers),
            None => {
                let at = block.find(&format!("\n{SERVERS}\n"))? + 1;
                (&block[..at], &block[at + SERVERS.len() + 1..])
            }
        };
        let inherited = inherited(header, skeleton);
        let servers = servers.lines().map(|l| Some(Server::parse(l)?.with_inherited_weight(&inherited)));
        let servers = servers.collect::<Option<_>>()?;
        Some(Self { name: name.into(), skeleton: skeleton.into(), servers, inherited })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let server = Server::parse("server a 127.0.0.1:80 check weight 7 disabled").unwrap();
        let section = |name: &str, servers: Vec<Server>| {
            let skeleton = format!("listen {name}\n\tbind *:80\n\n\tmode http\n").into();
            Arc::new(Section { name: name.into(), skeleton, servers, inherited: "".into() })
        };
        Layout {
            header: "global\n\tmaxconn 9\n\ndefaults\n\tmode tcp\n".into(),
            sections: vec![section("web", vec![server]), section("empty", vec![])],
            footer: "frontend shared\n\tbind *:1\n".into(),
        }
    }

    #[test]
    fn a_file_is_read_back_as_it_was_written() {
        for layout in [layout(), Layout { footer: "".into(), ..layout() }, Layout::default()] {
            assert_eq!(Layout::parse(&layout.render()), Some(layout));
        }
    }

    #[test]
    fn an_edited_or_foreign_file_is_noticed() {
        assert_eq!(Layout::parse(&layout().render().replace("maxconn 9", "maxconn 8")), None);
        assert_eq!(Layout::parse("global\n\tdaemon\n"), None);
        assert_eq!(Layout::parse(""), None);
    }
}
