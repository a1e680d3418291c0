//! How often servers are checked. Each HAProxy has a budget of checks a second: where there are more servers, each is checked less often, in
//! steps that double the interval. Pure.
//!
//! A server that runs keeps the interval that it was loaded with: to change it would be a deletion and an addition, or a reload. So a new
//! interval counts at once for servers that come, and for the others from the next reload on, which comes for its own reasons.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;

use super::layout::{Layout, Section};
use super::server::Server;

/// HAProxy's own interval.
const DEFAULT: Duration = Duration::from_secs(2);
/// How often the interval is doubled at most.
const STEPS: usize = 10;
/// The longest interval that the budget leads to: what a fleet's own checks and leases miss is found in that time.
const LONGEST: Duration = Duration::from_secs(600);

/// The operator's words for a server's check, and how often the interval in them is doubled.
#[derive(Debug)]
pub struct Checking {
    /// The words at each step; the first ones are the operator's.
    forms: Vec<Arc<str>>,
    /// The operator's interval; none where nothing is checked.
    inter: Option<Duration>,
    /// Checks a second; 0: no budget.
    rate: u32,
    step: usize,
    /// Grows whenever sections must be made anew for it.
    generation: u64,
    /// How many servers were checked in the last file.
    servers: usize,
}

impl Checking {
    /// The operator's words, within `rate` checks a second.
    pub fn new(words: &str, rate: u32) -> Self {
        let all: Vec<&str> = words.split_ascii_whitespace().collect();
        let inter = match all.iter().position(|word| *word == "inter") {
            _ if !all.contains(&"check") => None,
            Some(at) => all.get(at + 1).and_then(|text| duration(text)),
            None => Some(DEFAULT),
        };
        let inter = inter.filter(|inter| !inter.is_zero());
        let steps = (1..=STEPS as u32).map_while(|step| {
            let longer = inter?.checked_mul(1 << step).filter(|longer| *longer <= LONGEST)?;
            Some(longer_form(&all, inter?, longer).into())
        });
        let forms = std::iter::once(words.into()).chain(steps).collect();
        Self { forms, inter, rate, step: 0, generation: 0, servers: 0 }
    }

    /// For the edge's servers beside Synapse's sections, whose checks are the operator's.
    pub fn beside_synapse() -> Self {
        Self::new("check inter 2s rise 3 fall 2", 0)
    }

    /// The words on a new server's line.
    pub fn words(&self) -> &str {
        &self.forms[self.step]
    }

    /// Changes whenever sections must be made anew.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The interval of a new server's check.
    pub fn inter(&self) -> Option<Duration> {
        self.inter.map(|inter| inter * (1 << self.step))
    }

    /// The budget, checks a second; none without one.
    pub fn budget(&self) -> Option<u32> {
        Some(self.rate).filter(|rate| *rate > 0)
    }

    /// Suits the interval to so many servers; tells whether it is another one. It becomes shorter only where that leaves room, so that a number
    /// at a boundary does not change it each time.
    pub fn suit(&mut self, servers: usize) -> bool {
        self.servers = servers;
        let (Some(inter), Some(budget)) = (self.inter, self.budget()) else { return false };
        let rate = |step: usize| servers as f64 / (inter * (1 << step)).as_secs_f64();
        let before = self.step;
        while self.step + 1 < self.forms.len() && rate(self.step) > f64::from(budget) {
            self.step += 1;
        }
        while self.step > 0 && rate(self.step - 1) < 0.7 * f64::from(budget) {
            self.step -= 1;
        }
        self.generation += u64::from(self.step != before);
        self.step != before
    }

    /// Servers that are in HAProxy keep the words that they have there, where those differ in the interval alone.
    pub fn keep<'a>(&self, servers: &mut [Server], known: impl Iterator<Item = &'a Server>) {
        if self.forms.len() == 1 {
            return;
        }
        let others: HashMap<&str, &Arc<str>> =
            known.filter(|s| self.paced(&s.params).is_some()).map(|s| (&*s.name, &s.params)).collect();
        if others.is_empty() {
            return;
        }
        for server in servers {
            if let Some(params) = others.get(&*server.name)
                && self.paced(params).as_deref() == Some(&*server.params)
            {
                server.params = Arc::clone(params);
            }
        }
    }

    /// These parameters with the interval of now, if they have another.
    fn paced(&self, params: &str) -> Option<Box<str>> {
        let rest = |form: &str| params.strip_prefix(form).filter(|rest| rest.is_empty() || rest.starts_with(' '));
        // The longer ones first: the operator's may begin like them.
        let (step, rest) = self.forms.iter().enumerate().rev().find_map(|(step, form)| Some((step, rest(form)?)))?;
        (step != self.step).then(|| format!("{}{rest}", self.words()).into())
    }

    /// `layout` as a reload is to load it: with the interval of now on each line.
    pub fn refresh(&self, layout: &mut Layout) {
        let mut made: HashMap<Arc<str>, Option<Arc<str>>> = HashMap::default();
        for section in &mut layout.sections {
            let mut paced = |params: &Arc<str>| {
                made.entry(params.clone()).or_insert_with(|| self.paced(params).map(Arc::from)).clone()
            };
            if section.servers.iter().any(|s| s.line.is_none() && paced(&s.params).is_some()) {
                let mut anew: Section = (**section).clone();
                for server in anew.servers.iter_mut().filter(|s| s.line.is_none()) {
                    server.params = paced(&server.params).unwrap_or_else(|| server.params.clone());
                }
                *section = Arc::new(anew);
            }
        }
    }

    /// HAProxy has loaded another file: what runs may have another interval than before.
    pub fn loaded(&mut self) {
        self.generation += u64::from(self.step > 0 || self.generation > 0);
    }
}

/// How many checks a second these servers get, as their lines say.
pub fn per_second(layout: &Layout) -> f64 {
    let mut last: Option<(&Arc<str>, f64)> = None;
    let mut rate = |params| match last {
        Some((same, rate)) if Arc::ptr_eq(same, params) => rate,
        _ => last.insert((params, rate_of(params))).1,
    };
    let servers = layout.sections.iter().flat_map(|section| &section.servers);
    servers.filter(|server| !server.maint).map(|server| rate(&server.params)).sum()
}

fn rate_of(params: &str) -> f64 {
    let mut words = params.split_ascii_whitespace();
    if !words.clone().any(|word| word == "check") {
        return 0.0;
    }
    // The last one counts.
    let mut inter = DEFAULT;
    while let Some(word) = words.next() {
        if word == "inter" {
            inter = words.next().and_then(duration).unwrap_or(inter);
        }
    }
    1.0 / inter.as_secs_f64().max(0.001)
}

/// The words with a longer interval. While a server is down, or its state is in doubt, it is checked as often as the operator says.
fn longer_form(words: &[&str], inter: Duration, longer: Duration) -> String {
    let unlike = ["fastinter", "downinter"].into_iter().filter(|word| !words.contains(word));
    let further: String = unlike.map(|word| format!(" {word} {}", text(inter))).collect();
    let own = format!("inter {}{further}", text(longer));
    let at = words.iter().position(|word| *word == "inter");
    let (before, after) = match at {
        Some(at) => (&words[..at], &words[(at + 2).min(words.len())..]),
        None => (words, &[][..]),
    };
    [before, &[own.as_str()], after].concat().join(" ")
}

fn text(time: Duration) -> String {
    match time.subsec_millis() {
        0 => format!("{}s", time.as_secs()),
        _ => format!("{}ms", time.as_millis()),
    }
}

/// A time as HAProxy writes it: milliseconds where no unit is named.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs);
    match &text[digits..] {
        "us" => Some(Duration::from_micros(number)),
        "" | "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        "d" => seconds(86_400),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "check inter 2s rise 3 fall 2";

    #[test]
    fn the_interval_doubles_with_the_servers_and_does_not_flap_at_a_boundary() {
        let mut checking = Checking::new(OURS, 500);
        let mut at =
            |servers: usize| (checking.suit(servers), checking.inter().unwrap().as_secs(), checking.words().to_owned());
        assert_eq!(at(1000), (false, 2, OURS.to_owned()));
        assert_eq!(at(1001), (true, 4, "check inter 4s fastinter 2s downinter 2s rise 3 fall 2".to_owned()));
        for servers in [1000, 1001, 999, 701] {
            assert_eq!((at(servers).0, at(servers).1), (false, 4), "{servers}");
        }
        assert_eq!(at(699).1, 2);
        assert_eq!(at(20_000).1, 64, "at once");
        assert_eq!(at(99_000).1, 256);
        assert_eq!(at(10_000_000).1, 512, "no longer than ten minutes");
        assert_eq!(at(0).1, 2);
    }

    #[test]
    fn without_a_budget_or_a_check_nothing_changes() {
        for (words, rate) in [(OURS, 0), ("", 500), ("weight 3", 500), ("check inter 1x", 500), ("check inter 0", 500)]
        {
            let mut checking = Checking::new(words, rate);
            assert!(!checking.suit(1_000_000), "{words}");
            assert_eq!(checking.words(), words);
        }
    }

    #[test]
    fn the_operators_own_words_stay() {
        for (words, longer) in [
            ("check", "check inter 4s fastinter 2s downinter 2s"),
            ("check port 81 inter 500", "check port 81 inter 1s fastinter 500ms downinter 500ms"),
            ("check inter 1500ms fastinter 1s", "check inter 3s downinter 1500ms fastinter 1s"),
            ("inter 1m check", "inter 120s fastinter 60s downinter 60s check"),
        ] {
            assert_eq!(&*Checking::new(words, 1).forms[1], longer);
        }
    }

    fn layout(params: &[&str]) -> Layout {
        let server =
            |(n, params): (usize, &&str)| Server::parse(&format!("server s{n} 127.0.0.1:80 {params}")).unwrap();
        let servers = params.iter().enumerate().map(server).collect();
        let section =
            Section { name: "a".into(), skeleton: "".into(), servers, inherited: "".into(), text: Default::default() };
        Layout { sections: vec![Arc::new(section)], ..Layout::default() }
    }

    #[test]
    fn who_runs_keeps_his_interval_until_a_reload() {
        let mut checking = Checking::new("check", 1);
        let runs =
            ["check", "check slowstart 1ms", "check inter 8s fastinter 2s downinter 2s", "check inter 9s", "port 1"];
        let runs = layout(&runs);
        checking.suit(5); // every 8 s: one check in 1.6 s
        assert_eq!(checking.words(), "check inter 8s fastinter 2s downinter 2s");
        let wanted = [
            "check inter 8s fastinter 2s downinter 2s",
            "check inter 8s fastinter 2s downinter 2s slowstart 1ms",
            "check inter 8s fastinter 2s downinter 2s",
            "check inter 8s fastinter 2s downinter 2s",
            "check inter 8s fastinter 2s downinter 2s",
        ];
        let mut servers = layout(&wanted).sections[0].servers.clone();
        checking.keep(&mut servers, runs.sections[0].servers.iter());
        let said: Vec<&str> = servers.iter().map(|s| &*s.params).collect();
        assert_eq!(said[..3], ["check", "check slowstart 1ms", wanted[2]], "the same but for the interval");
        assert_eq!(said[4], wanted[4], "other words are changed at once");
        let mut loaded = runs.clone();
        checking.refresh(&mut loaded);
        let said: Vec<&str> = loaded.sections[0].servers.iter().map(|s| &*s.params).collect();
        assert_eq!(said[..3], wanted[..3]);
        assert_eq!(said[4], "port 1");
    }

    #[test]
    fn the_checks_of_a_file_are_counted_as_its_lines_say() {
        let layout = layout(&["check inter 2s", "check inter 4s fastinter 1s", "check", "check disabled", "weight 3"]);
        assert!((per_second(&layout) - 1.25).abs() < 1e-9, "{}", per_second(&layout));
    }
}
