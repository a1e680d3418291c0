//! A host that falls silent without a word: how soon its connections end, so that what can be asked again is.
//!
//! Two clocks of the kernel do it, and neither is enough alone. `tcp-ut` counts while something that was sent is not acknowledged,
//! keep-alive while an answer is awaited. `add server` takes no `tcp-ut` (2.6 to 3.4), so a server added at run time has none until the next
//! reload: the file says more than runs there, and nothing is to be repaired.

use std::borrow::Cow;
use std::time::Duration;

use model::Mode;
use serde::Serialize;

/// The word of a server's line that `add server` refuses; its value follows.
const ONLY_IN_THE_FILE: &str = "tcp-ut";

/// How many times as long a host may acknowledge nothing in a `tcp` section.
const PATIENCE_OF_TCP: u32 = 4;

/// For how long a host may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Silence {
    /// In milliseconds: acknowledging nothing of what was sent. 0: as long as the kernel tries, about 15 minutes.
    pub ack: u32,
    /// In seconds, between two questions whether it lives, while nothing else is under way. 0: it is not asked.
    pub keepalive: u32,
}

impl Default for Silence {
    /// What a link that loses 5 % of all packets and takes 200 ms there and back survives.
    fn default() -> Self {
        Self { ack: 2500, keepalive: 1 }
    }
}

impl Silence {
    /// From what the flags say: whole milliseconds, whole seconds.
    ///
    /// # Errors
    /// What is wrong, and with which flag.
    pub fn new(ack: Duration, keepalive: Duration) -> Result<Self, String> {
        let whole = keepalive.subsec_nanos() == 0;
        let keepalive = u16::try_from(keepalive.as_secs()).ok().filter(|_| whole);
        // HAProxy's times end at 24 days, the kernel's keep-alive at 32,767 s.
        let ack = u32::try_from(ack.as_millis()).ok().filter(|ms| *ms <= 86_400_000);
        let keepalive = keepalive.filter(|seconds| *seconds <= 32_767);
        Ok(Self {
            ack: ack.ok_or("--tcp-ack-timeout (DISCOVER_TCP_ACK_TIMEOUT) is at most 1day")?,
            keepalive: keepalive.map(u32::from).ok_or(
                "--tcp-keepalive (DISCOVER_TCP_KEEPALIVE) is in whole seconds, at most 9h: the kernel counts them so",
            )?,
        })
    }

    /// The same for a section of this mode. In `tcp` nothing can be repeated and sessions are long, so a link that was away for a few
    /// seconds ends none.
    #[must_use]
    pub fn of_mode(self, mode: Mode) -> Self {
        match mode {
            Mode::Http => self,
            Mode::Tcp => Self { ack: self.ack.saturating_mul(PATIENCE_OF_TCP), ..self },
        }
    }

    /// What it adds to a server's line.
    pub fn words(self) -> String {
        match self.ack {
            0 => String::new(),
            ack => format!(" {ONLY_IN_THE_FILE} {ack}ms"),
        }
    }
}

/// A server's parameters for `add server`. What stands in its line by its registration's wish (`own`) stays: it was asked for, and
/// a refusal leads to a reload.
pub fn without_file_only<'a>(params: &'a str, own: Option<&str>) -> Cow<'a, str> {
    if !params.contains(ONLY_IN_THE_FILE) {
        return Cow::Borrowed(params);
    }
    let asked = |word: &str| own.is_some_and(|own| own.split_ascii_whitespace().any(|own| own == word));
    let mut words = params.split_ascii_whitespace();
    let (mut kept, mut ours_is_out): (Vec<&str>, bool) = (Vec::new(), false);
    while let Some(word) = words.next() {
        // Ours comes first, so that a registration's own counts.
        if word == ONLY_IN_THE_FILE && !(ours_is_out && asked(word)) {
            ours_is_out = true;
            words.next();
            continue;
        }
        kept.push(word);
    }
    Cow::Owned(kept.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_file_can_say_is_not_said_at_run_time() {
        for (params, own, left) in [
            ("check inter 2s", None, "check inter 2s"),
            ("check inter 2s tcp-ut 2500ms", None, "check inter 2s"),
            ("check tcp-ut 5s inter 2s tcp-ut 2500ms", None, "check inter 2s"),
            ("check tcp-ut 2500ms maxconn 3", Some("maxconn 3"), "check maxconn 3"),
            ("check tcp-ut 2500ms tcp-ut 9s maxconn 3", Some("tcp-ut 9s maxconn 3"), "check tcp-ut 9s maxconn 3"),
            ("tcp-ut", None, ""),
        ] {
            assert_eq!(without_file_only(params, own), left, "{params}");
        }
    }

    #[test]
    fn flags_are_in_the_kernels_measure() {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        assert_eq!(Silence::new(ms(2500), s(1)), Ok(Silence::default()));
        assert_eq!(Silence::new(ms(0), s(0)), Ok(Silence { ack: 0, keepalive: 0 }));
        assert_eq!(Silence::default().of_mode(Mode::Tcp), Silence { ack: 10_000, keepalive: 1 });
        assert_eq!(
            [Silence::default().words(), Silence { ack: 0, keepalive: 0 }.words()],
            [" tcp-ut 2500ms".to_owned(), String::new()]
        );
        for (ack, keepalive, flag) in [
            (s(100_000), s(1), "--tcp-ack-timeout"),
            (s(1), ms(500), "--tcp-keepalive"),
            (s(1), ms(1500), "--tcp-keepalive"),
            (s(1), s(40_000), "--tcp-keepalive"),
        ] {
            let why = Silence::new(ack, keepalive).unwrap_err();
            assert!(why.starts_with(flag), "{why}");
        }
    }
}
