//! haproxy.cfg as a value: a header, then sections, each a skeleton with its servers at its end, then a footer.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use super::edge::map::RuleMap;
use super::server::{Server, checksum_of_text};
use super::silence::without_file_only;

/// The file's first line: says whose it is, and carries its checksum so that a hand's edits are noticed.
const MARK: &str = "# Written by discover; edits are undone. checksum=";
/// Begins a section of ours.
const SEPARATOR: &str = "\n# service ";
/// Begins a section's servers: one line each from here to the section's end.
const SERVERS: &str = "\t# servers";
/// Begins the footer.
const END: &str = "\n# end of services\n";

/// All of haproxy.cfg.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// Whole lines before the first section: global, defaults, stats.
    pub header: Arc<str>,
    /// The sections, in the order of the file.
    pub sections: Vec<Arc<Section>>,
    /// Whole lines after the last section; often none.
    pub footer: Arc<str>,
    /// The rules of the edge, in a file of their own; none without an edge.
    pub rules: Option<Arc<RuleMap>>,
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
    /// Made when it is first asked for.
    pub text: Text,
}

/// Servers that were taken out of the file and linger in HAProxy, by section and name.
pub type Retired = BTreeMap<Arc<str>, BTreeMap<Arc<str>, Server>>;

/// A section's text and its checksum, made once: writing the file again costs what changed, and a copy of the rest.
/// It says nothing that the section's other fields do not say, so it takes no part in comparisons, and a copy that may
/// be changed begins without it.
#[derive(Debug, Default)]
pub struct Text(OnceLock<(Box<str>, u64)>);

impl Clone for Text {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Text {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Text {}

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
    without_file_only(&words.join(" "), None).into()
}

fn default_server(line: &str) -> impl Iterator<Item = &str> {
    let mut words = line.split_whitespace();
    let ours = words.next() == Some("default-server");
    words.filter(move |_| ours)
}

impl Layout {
    /// The names of the sections that `other` has in another form, or not at all, and of those that only it has. Empty when just
    /// their order differs, or what stands around them.
    pub fn differs_from<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let missing = |from: &Self, section: &Arc<Section>| !from.sections.contains(section);
        let ours = self.sections.iter().filter(|section| missing(other, section));
        let theirs = other.sections.iter().filter(|section| missing(self, section));
        let names: BTreeSet<&str> = ours.chain(theirs).map(|section| &*section.name).collect();
        names.into_iter().collect()
    }

    /// Whether both are the same but for their servers and rules.
    pub fn same_structure(&self, other: &Self) -> bool {
        let structure = |layout: &Self| (layout.header.clone(), layout.footer.clone(), layout.sections.len());
        let same = |(a, b): (&Arc<Section>, &Arc<Section>)| a.name == b.name && a.skeleton == b.skeleton;
        structure(self) == structure(other) && self.sections.iter().zip(&other.sections).all(same)
    }

    /// Makes what both have the very same: header, footer, sections.
    pub fn share_with(&mut self, other: &Self) {
        let same = |(a, b): (&Arc<Section>, &Arc<Section>)| Arc::ptr_eq(a, b);
        if self.sections.len() == other.sections.len() && self.sections.iter().zip(&other.sections).all(same) {
            return; // as nearly always
        }
        for (text, same) in [(&mut self.header, &other.header), (&mut self.footer, &other.footer)] {
            if *text == *same {
                text.clone_from(same);
            }
        }
        let mut others = other.sections.iter();
        for section in &mut self.sections {
            // Mostly both have the same ones in the same order.
            let next = others.as_slice().first().filter(|next| next.name == section.name);
            let same = next.or_else(|| other.sections.iter().find(|same| same.name == section.name));
            if let Some(same) = same.filter(|same| !Arc::ptr_eq(same, section) && *same == section) {
                *section = same.clone();
            }
            others.next();
        }
    }

    /// The file's text: equal layouts give equal bytes.
    pub fn render(&self) -> String {
        self.pieces().concat()
    }

    /// The same in pieces: what did not change since the last time is neither made nor copied again.
    pub fn pieces(&self) -> Vec<Cow<'_, str>> {
        let sums = self.sections.iter().map(|s| s.text().1);
        let sum = total(checksum_of_text(self.header.as_bytes()), sums, &self.footer);
        let mut pieces = Vec::with_capacity(2 * self.sections.len() + 4);
        pieces.extend([Cow::Owned(format!("{MARK}{sum:016x}\n")), Cow::Borrowed(&*self.header)]);
        for section in &self.sections {
            pieces.extend([Cow::Borrowed(SEPARATOR), Cow::Borrowed(&*section.text().0)]);
        }
        if !self.footer.is_empty() {
            pieces.extend([Cow::Borrowed(END), Cow::Borrowed(&*self.footer)]);
        }
        pieces
    }

    /// Whose line number `line` of the text is, counted from 1: a section, and a server of it if it is a server's line, by their places in
    /// the lists. `None` for a line of no section.
    pub fn place_at(&self, line: usize) -> Option<(usize, Option<usize>)> {
        let lines = |text: &str| text.bytes().filter(|b| *b == b'\n').count();
        let mut before = 1 + lines(&self.header);
        for (at, section) in self.sections.iter().enumerate() {
            line.checked_sub(before + 1)?;
            before += 2 + lines(&section.skeleton) + 1; // a blank line and the name; then the servers' own mark
            match line.checked_sub(before + 1) {
                None => return Some((at, None)),
                Some(nth) if nth < section.servers.len() => return Some((at, Some(nth))),
                Some(_) => before += section.servers.len(),
            }
        }
        None
    }

    /// Reads back what [`render`](Self::render) wrote; the rules are elsewhere. `None` for a file that is not ours or was edited: what runs is
    /// then not known from it.
    pub fn parse(text: &str) -> Option<Self> {
        let (mark, body) = text.split_once('\n')?;
        let sum = u64::from_str_radix(mark.strip_prefix(MARK)?, 16).ok()?;
        let (body, footer) = body.split_once(END).unwrap_or((body, ""));
        let mut blocks = body.split(SEPARATOR);
        let header: Arc<str> = blocks.next()?.into();
        let blocks: Vec<&str> = blocks.collect();
        let sums = blocks.iter().map(|block| checksum_of_text(block.as_bytes()));
        (sum == total(checksum_of_text(header.as_bytes()), sums, footer)).then_some(())?;
        let sections = blocks.into_iter().map(|b| Section::parse(b, &header).map(Arc::new)).collect::<Option<_>>()?;
        Some(Self { header, sections, footer: footer.into(), rules: None })
    }
}

/// The checksum of the whole, from those of its parts.
fn total(header: u64, sections: impl Iterator<Item = u64>, footer: &str) -> u64 {
    let parts = [header].into_iter().chain(sections).chain([checksum_of_text(footer.as_bytes())]);
    let bytes: Vec<u8> = parts.flat_map(u64::to_le_bytes).collect();
    checksum_of_text(&bytes)
}

impl Section {
    /// Whether it has no server, not even one that waits for its deletion.
    pub fn is_idle(&self, retired: &Retired) -> bool {
        self.servers.is_empty() && !retired.contains_key(&self.name)
    }

    /// The `defaults` section that this one is made from, if it says nothing of its own: what `add backend` makes, and no more.
    pub fn made_from(&self) -> Option<&str> {
        let mut words = self.skeleton.lines().next()?.split(' ');
        let head = words.next() == Some("backend") && words.next() == Some(&*self.name) && words.next() == Some("from");
        let from = words.next().filter(|_| head && words.next().is_none());
        from.filter(|_| self.skeleton.lines().count() == 1)
    }

    /// Whether any server's registration brought words.
    pub fn has_own_words(&self) -> bool {
        self.servers.iter().any(|server| server.own_words().is_some())
    }

    /// Name, skeleton and servers as they stand in the file.
    fn text(&self) -> &(Box<str>, u64) {
        self.text.0.get_or_init(|| {
            let servers = self.servers.iter().map(|s| 2 + s.line.as_ref().map_or(96, |line| line.len()));
            let mut text = String::with_capacity(self.name.len() + self.skeleton.len() + 16 + servers.sum::<usize>());
            text.extend([&*self.name, "\n", &*self.skeleton, SERVERS, "\n"]);
            for server in &self.servers {
                text.push('\t');
                match &server.line {
                    Some(line) => text.push_str(line),
                    None => text.push_str(&server.to_string()),
                }
                text.push('\n');
            }
            let sum = checksum_of_text(text.as_bytes());
            (text.into(), sum)
        })
    }

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
        Some(Self { name: name.into(), skeleton: skeleton.into(), servers, inherited, text: Text::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let server = Server::parse("server a 127.0.0.1:80 check weight 7 disabled").unwrap();
        let section = |name: &str, servers: Vec<Server>| {
            let skeleton = format!("listen {name}\n\tbind *:80\n\n\tmode http\n").into();
            Arc::new(Section { name: name.into(), skeleton, servers, inherited: "".into(), text: Text::default() })
        };
        Layout {
            header: "global\n\tmaxconn 9\n\ndefaults\n\tmode tcp\n".into(),
            sections: vec![section("web", vec![server]), section("empty", vec![])],
            footer: "frontend shared\n\tbind *:1\n".into(),
            rules: None,
        }
    }

    #[test]
    fn a_file_is_read_back_as_it_was_written() {
        for layout in [layout(), Layout { footer: "".into(), ..layout() }, Layout::default()] {
            assert_eq!(Layout::parse(&layout.render()), Some(layout));
        }
    }

    #[test]
    fn what_differs_is_named() {
        let (one, mut other) = (layout(), layout());
        assert!(one.differs_from(&other).is_empty());
        other.sections.pop();
        Arc::make_mut(&mut other.sections[0]).servers[0].weight = 1;
        assert_eq!(one.differs_from(&other), ["empty", "web"]);
        assert_eq!(other.differs_from(&one), ["empty", "web"]);
    }

    #[test]
    fn a_section_that_says_nothing_of_its_own_is_one_that_haproxy_can_add() {
        let section = |skeleton: &str| Section { skeleton: skeleton.into(), ..(*layout().sections[1]).clone() };
        assert_eq!(section("backend empty from base\n").made_from(), Some("base"));
        for other in [
            "",
            "backend empty\n",
            "backend other from base\n",
            "listen empty from base\n",
            "backend empty from base\n\tmode tcp\n",
        ] {
            assert_eq!(section(other).made_from(), None, "{other}");
        }
    }

    #[test]
    fn a_line_is_known_to_be_a_sections_or_a_servers() {
        let layout = layout();
        let text = layout.render();
        let places: Vec<_> = text.lines().enumerate().map(|(n, line)| (line, layout.place_at(n + 1))).collect();
        let servers: Vec<_> = places.iter().filter(|(_, place)| place.is_some_and(|(_, nth)| nth.is_some())).collect();
        assert_eq!(servers, [&("\tserver a 127.0.0.1:80 check weight 7 disabled", Some((0, Some(0))))]);
        for (line, place) in &places {
            match *line {
                "global" | "\tmaxconn 9" | "frontend shared" | "\tbind *:1" => assert_eq!(*place, None, "{line}"),
                "listen web" => assert_eq!(*place, Some((0, None))),
                "listen empty" => assert_eq!(*place, Some((1, None))),
                _ => {}
            }
        }
        assert_eq!([0, 999].map(|n| layout.place_at(n)), [None, None]);
    }

    #[test]
    fn an_edited_or_foreign_file_is_noticed() {
        assert_eq!(Layout::parse(&layout().render().replace("maxconn 9", "maxconn 8")), None);
        assert_eq!(Layout::parse("global\n\tdaemon\n"), None);
        assert_eq!(Layout::parse(""), None);
    }
}
