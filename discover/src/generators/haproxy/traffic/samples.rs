//! What each section of HAProxy counted in the last minutes, for the small pictures of the page. Pure.

use std::collections::{HashMap, VecDeque};

use crate::haproxy::api::stats::{Counts, StatRow};

/// The width of one point, in seconds.
pub const STEP: u64 = 30;
/// How many points are kept: 15 minutes.
pub const POINTS: usize = 30;
/// Sections beyond this have no picture: memory stays bounded.
const MOST_SECTIONS: usize = 10_000;

/// The samples of all sections.
#[derive(Debug, Default)]
pub struct Samples {
    sections: HashMap<String, Section>,
    /// Whether a section has had another number of servers that can take a request since this was last asked.
    moved: bool,
}

#[derive(Debug)]
struct Section {
    last: Counts,
    usable: u64,
    /// The step of the newest point.
    step: u64,
    /// Requests and errors (with answers of 500 and above) in each step, the oldest first.
    points: VecDeque<[u32; 2]>,
}

impl Section {
    fn new(row: &StatRow, step: u64) -> Self {
        Self { last: row.counts, usable: row.usable, step, points: VecDeque::from([[0, 0]]) }
    }

    fn advance(&mut self, step: u64) {
        for _ in 0..step.saturating_sub(self.step).min(POINTS as u64) {
            self.points.push_back([0, 0]);
        }
        while self.points.len() > POINTS {
            self.points.pop_front();
        }
        self.step = self.step.max(step);
    }

    fn count(&mut self, now: Counts) {
        // Counters begin anew with each worker.
        let since = |was: u64, is: u64| if is < was { is } else { is - was };
        let wrong = |counts: &Counts| counts.errors + counts.responses_5xx;
        let news = [since(self.last.requests, now.requests), since(wrong(&self.last), wrong(&now))];
        if let Some(point) = self.points.back_mut() {
            point
                .iter_mut()
                .zip(news)
                .for_each(|(n, more)| *n = n.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)));
        }
        self.last = now;
    }
}

impl Samples {
    /// Takes in the rows of sections at that time, in seconds since 1970.
    pub fn take(&mut self, rows: &[StatRow], seconds: u64) {
        let step = seconds / STEP;
        for row in rows {
            match self.sections.get_mut(&row.section) {
                Some(section) => {
                    self.moved |= section.usable != row.usable;
                    section.usable = row.usable;
                    section.advance(step);
                    section.count(row.counts);
                }
                None => {
                    self.moved = true;
                    if self.sections.len() < MOST_SECTIONS {
                        self.sections.insert(row.section.clone(), Section::new(row, step));
                    }
                }
            }
        }
        self.sections.retain(|_, section| section.step + POINTS as u64 > step);
    }

    /// Whether servers have come to take requests, or ceased to, since this was last asked.
    pub fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Requests and errors of some sections together, the oldest first, up to that time; none where nothing was counted.
    pub fn of<'a>(&self, sections: impl IntoIterator<Item = &'a str>, seconds: u64) -> Vec<[u64; 2]> {
        let step = seconds / STEP;
        let mut sum: Vec<[u64; 2]> = Vec::new();
        for section in sections.into_iter().filter_map(|name| self.sections.get(name)) {
            let age = usize::try_from(step.saturating_sub(section.step)).unwrap_or(POINTS);
            for (n, point) in section.points.iter().rev().enumerate().map(|(n, point)| (n + age, point)) {
                if n >= POINTS {
                    break;
                }
                sum.resize(sum.len().max(n + 1), [0, 0]);
                sum[n].iter_mut().zip(point).for_each(|(all, one)| *all += u64::from(*one));
            }
        }
        sum.reverse();
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::haproxy::api::stats::stat;

    fn rows(requests: u64, errors: u64, usable: u64) -> Vec<StatRow> {
        let text = format!("# pxname,svname,type,req_tot,econ,act,\nweb,BACKEND,1,{requests},{errors},{usable},\n");
        stat(&text).unwrap()
    }

    #[test]
    fn points_hold_what_was_counted_since_the_last_look() {
        let mut samples = Samples::default();
        for (at, requests, errors) in [(0, 100, 0), (10, 105, 0), (31, 107, 1), (125, 110, 1), (126, 3, 0)] {
            samples.take(&rows(requests, errors, 1), at);
        }
        let expected = [[5, 0], [2, 1], [0, 0], [0, 0], [6, 0]];
        assert_eq!(samples.of(["web", "none"], 127), expected, "a reload in between");
        assert_eq!(samples.of(["web"], 127 + STEP), [&expected[..], &[[0, 0]]].concat(), "nobody counted since");
        samples.take(&rows(3, 0, 1), 100_000);
        assert_eq!(samples.of(["web"], 100_000).len(), POINTS);
        assert!(samples.of(["web"], 100_000).iter().all(|point| *point == [0, 0]));
        samples.take(&[], 200_000);
        assert!(samples.sections.is_empty() && samples.of(["web"], 200_000).is_empty());
    }

    #[test]
    fn a_change_of_usable_servers_is_told_once() {
        let mut samples = Samples::default();
        let mut after = |usable| {
            samples.take(&rows(1, 0, usable), 1);
            [samples.has_moved(), samples.has_moved()]
        };
        assert_eq!(
            [1, 1, 0, 0, 1].map(&mut after),
            [[true, false], [false; 2], [true, false], [false; 2], [true, false]]
        );
    }
}
