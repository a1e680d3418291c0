//! Tries → standing of one check: rise, fall, start period, and the damping of what flaps. No I/O; time is given.

use std::time::Duration;

use model::desired::{CheckKind, CheckSpec};

use super::damping::{Damping, WINDOW};

/// What a check says of its backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It has not passed often enough yet; with the last failure, if there was one.
    Waiting(Option<String>),
    Passing,
    /// It fails, for this reason.
    Failing(String),
    /// It passes and fails in turns: it must pass for a while before that counts.
    Flapping(String),
}

impl Standing {
    /// The word used in status and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting(_) => "waiting",
            Self::Passing => "passing",
            Self::Failing(_) => "failing",
            Self::Flapping(_) => "flapping",
        }
    }

    /// Why it does not pass.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Waiting(why) => why.as_deref(),
            Self::Passing => None,
            Self::Failing(why) | Self::Flapping(why) => Some(why),
        }
    }
}

/// The tries of one check so far.
#[derive(Debug)]
pub struct Tally {
    rise: u32,
    fall: u32,
    interval: Duration,
    start_period: Duration,
    standing: Standing,
    passes: u32,
    failures: u32,
    /// Since when it has passed without a failure.
    passing_since: Option<Duration>,
    falls: Damping,
    damped: bool,
    first_decides: bool,
}

impl Tally {
    /// Nothing tried yet; `passing`: it is taken for passing, as it was in the registry.
    pub fn new(spec: &CheckSpec, passing: bool) -> Self {
        Self {
            rise: spec.rise,
            fall: spec.fall,
            interval: spec.interval,
            start_period: spec.start_period,
            standing: if passing { Standing::Passing } else { Standing::Waiting(None) },
            passes: 0,
            failures: 0,
            passing_since: None,
            falls: Damping::default(),
            damped: true,
            first_decides: false,
        }
    }

    /// For a service of Nerve's config: `rise` and `fall` alone, nothing is damped. With `first_decides` the first try
    /// decides at once, whatever they are.
    pub fn of_nerve(rise: u32, fall: u32, passing: bool, first_decides: bool) -> Self {
        let spec = CheckSpec { rise, fall, ..CheckSpec::new(CheckKind::Noop) };
        Self { damped: false, first_decides, ..Self::new(&spec, passing) }
    }

    /// What it says.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    pub fn is_passing(&self) -> bool {
        self.standing == Standing::Passing
    }

    /// Whether it is known not to pass: it has failed as often in a row as it takes to fall.
    pub fn has_fallen(&self) -> bool {
        match &self.standing {
            Standing::Passing => false,
            Standing::Waiting(_) => self.failures >= self.fall,
            Standing::Failing(_) | Standing::Flapping(_) => true,
        }
    }

    /// Takes a try in, made `at` this time after the first; `Err`: why it failed. Returns the standing where that
    /// changed, other than by the wording of a failure that went on.
    pub fn record(&mut self, tried: Result<(), String>, at: Duration) -> Option<&Standing> {
        self.falls.forget(at);
        if std::mem::take(&mut self.first_decides) && matches!(self.standing, Standing::Waiting(_)) {
            self.standing = match tried {
                Ok(()) => Standing::Passing,
                Err(why) => Standing::Failing(why),
            };
            return Some(&self.standing);
        }
        let new = match tried {
            Ok(()) => self.passed(at),
            Err(why) => self.failed(why, at),
        }?;
        let told = std::mem::discriminant(&new) != std::mem::discriminant(&self.standing)
            || matches!((&new, &self.standing), (Standing::Waiting(Some(_)), Standing::Waiting(None)));
        self.standing = new;
        told.then_some(&self.standing)
    }

    fn passed(&mut self, at: Duration) -> Option<Standing> {
        (self.passes, self.failures) = (self.passes.saturating_add(1), 0);
        let since = *self.passing_since.get_or_insert(at);
        if self.is_passing() || self.passes < self.rise {
            return None;
        }
        let hold = self.hold();
        if at.saturating_sub(since) >= hold {
            return Some(Standing::Passing);
        }
        let (falls, window) = (self.falls.falls(), WINDOW.as_secs() / 60);
        Some(Standing::Flapping(format!(
            "flapping: it failed {falls} times within {window} minutes, and counts again once it passes for {hold:?}"
        )))
    }

    fn failed(&mut self, why: String, at: Duration) -> Option<Standing> {
        (self.passes, self.failures, self.passing_since) = (0, self.failures.saturating_add(1), None);
        match &self.standing {
            Standing::Passing if self.failures >= self.fall && at >= self.start_period => {
                self.falls.fell(at);
                Some(Standing::Failing(why))
            }
            Standing::Passing => None,
            Standing::Waiting(_) => Some(Standing::Waiting(Some(why))),
            Standing::Failing(_) | Standing::Flapping(_) => Some(Standing::Failing(why)),
        }
    }

    /// For how long it must pass before it counts: nothing unless it flaps, then twice as long with each fall.
    fn hold(&self) -> Duration {
        if self.damped { self.falls.hold(self.interval) } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Tries against what a service of Nerve's is said to be after each: U up, D down, - not known.
    #[test]
    fn nerves_rise_and_fall() {
        for (rise, fall, first_decides, tries, expected) in [
            // As measured with Nerve 0.9.7.
            (3, 1, true, "1", "U"),
            (3, 1, true, "0111", "DDDU"),
            (1, 2, true, "1010100", "UUUUUUD"),
            (2, 3, true, "0110001", "DDUUUDD"),
            // Its first result decides nothing here unless that is asked for.
            (3, 1, false, "111", "--U"),
            (2, 1, false, "0110", "--UD"),
        ] {
            let mut tally = Tally::of_nerve(rise, fall, false, first_decides);
            let mut seen = String::new();
            for (n, c) in (0_u32..).zip(tries.chars()) {
                let tried = if c == '1' { Ok(()) } else { Err("no".to_owned()) };
                tally.record(tried, SECOND / 2 * n);
                seen.push(match tally.standing() {
                    Standing::Passing => 'U',
                    Standing::Waiting(_) => '-',
                    Standing::Failing(_) | Standing::Flapping(_) => 'D',
                });
            }
            assert_eq!(seen, expected, "rise {rise}, fall {fall}, {tries}");
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn spec(rise: u32, fall: u32) -> CheckSpec {
        CheckSpec { rise, fall, interval: SECOND, ..CheckSpec::new(CheckKind::Tcp) }
    }

    /// The standings told, for one try a second: `.` passes, `x` fails.
    fn told(tally: &mut Tally, tries: &str) -> Vec<String> {
        let mut told = Vec::new();
        for (n, c) in (0_u32..).zip(tries.chars()) {
            let tried = if c == '.' { Ok(()) } else { Err(format!("no {n}")) };
            if let Some(standing) = tally.record(tried, SECOND * n) {
                told.push(format!("{n} {}", standing.as_str()));
            }
        }
        told
    }

    #[test]
    fn it_rises_and_falls_after_as_many_tries_as_it_should() {
        assert_eq!(
            told(&mut Tally::new(&spec(2, 3), false), "x.x..xx.xxx.."),
            ["0 waiting", "4 passing", "10 failing", "12 passing"]
        );
        assert_eq!(told(&mut Tally::new(&spec(1, 2), true), "...x.xx"), ["6 failing"]);
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        let slow = CheckSpec { start_period: SECOND * 5, ..spec(1, 1) };
        assert_eq!(told(&mut Tally::new(&slow, false), "xxx.xx"), ["0 waiting", "3 passing", "5 failing"]);
    }

    #[test]
    fn what_flaps_must_pass_for_longer_each_time_and_says_so() {
        let mut tally = Tally::new(&spec(1, 1), false);
        let told = told(&mut tally, ".x.x.x....x......");
        assert_eq!(
            told,
            [
                "0 passing",
                "1 failing",
                "2 passing",
                "3 failing",
                "4 passing",
                "5 failing",
                "6 flapping",
                "8 passing",
                "10 failing",
                "11 flapping",
                "15 passing"
            ]
        );
        tally.record(Err("no".into()), SECOND * 20);
        let reason = tally.record(Ok(()), SECOND * 21).and_then(Standing::reason).unwrap();
        assert_eq!(reason, "flapping: it failed 5 times within 5 minutes, and counts again once it passes for 8s");
        // Old falls are forgotten.
        tally.record(Ok(()), SECOND * 900);
        assert!(tally.is_passing());
        tally.record(Err("no".into()), SECOND * 901);
        assert_eq!(tally.record(Ok(()), SECOND * 902), Some(&Standing::Passing));
    }

    proptest! {
        /// However the tries go: it never counts as passing right after a failure that made it fall, never falls by fewer
        /// failures than asked for, and a minute of passes always brings it back.
        #[test]
        fn a_minute_of_passes_always_brings_it_back(
            tries in prop::collection::vec(any::<bool>(), 0..200), rise in 1..5_u32, fall in 1..5_u32,
        ) {
            let mut tally = Tally::new(&spec(rise, fall), false);
            let mut failures = 0;
            let mut at = Duration::ZERO;
            for passes in tries {
                let was = tally.is_passing();
                failures = if passes { 0 } else { failures + 1 };
                tally.record(if passes { Ok(()) } else { Err("no".into()) }, at);
                prop_assert!(!was || tally.is_passing() || failures >= fall);
                prop_assert!(passes || was || !tally.is_passing());
                at += SECOND;
            }
            for n in 0..=60 {
                tally.record(Ok(()), at + SECOND * n);
            }
            prop_assert!(tally.is_passing());
        }
    }
}
