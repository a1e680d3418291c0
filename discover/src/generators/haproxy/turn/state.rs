//! How much is known of the HAProxy that runs: the states of the generator.
//!
//! ```text
//!               no answer                            no answer
//!   ┌──────────────────────▶ Away, Silent ◀──────────────────────────┐
//!   │                          │        ▲                            │
//!   │                          │ load   │ no answer                  │
//!   │ first look               ▼        │                            │
//!   ●                        Loaded ────┘                            │
//!   │ it answers               │ read back                           │
//!   │                          ▼            refuses an operation     │
//!   ├──────────────────────▶ Known ─────────────────────▶ Refused ───┤
//!   │                          ▲ ▲   load, or read back      │       │
//!   │                     load │ └───────────────────────────┘       │
//!   └▶ Strange, Edited, Interrupted ─────────────────────────────────┘
//! ```
//!
//! A load is one step: candidate, `haproxy -c`, rename, reload or start, outcome. It leads to a new state only where it succeeds. While
//! it lasts a mark lies beside the file, so that a discover that dies meanwhile finds `Interrupted` when it starts again.
//!
//! Whether the file on disk has all that runs is another matter: see [`super::disk`].

use super::reason::ReloadReason;

/// How much is known of the HAProxy that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HaproxyState {
    /// It does not answer, and no process of it is seen. Loading the first config starts it.
    Away,
    /// It does not answer, but a process of it is there.
    Silent,
    /// It answers, and has loaded nothing of ours.
    Strange,
    /// It answers, but somebody edited the file since it was loaded.
    Edited,
    /// It answers, but a reload was begun whose outcome nobody has seen.
    Interrupted,
    /// It was away and has loaded our file; it has not answered since.
    Loaded,
    /// What is applied is what runs.
    #[default]
    Known,
    /// The same, but it refused an operation, which only a reload does.
    Refused,
}

impl HaproxyState {
    /// Why the structure that is applied is not all that runs, if so: only a reload helps.
    pub fn reason(self) -> Option<ReloadReason> {
        match self {
            Self::Away | Self::Silent | Self::Strange => Some(ReloadReason::Start),
            Self::Edited => Some(ReloadReason::EditedByHand),
            Self::Interrupted => Some(ReloadReason::Interrupted),
            Self::Refused => Some(ReloadReason::Refused),
            Self::Loaded | Self::Known => None,
        }
    }

    /// Whether the structure that runs is the one that is applied.
    pub fn is_known(self) -> bool {
        matches!(self, Self::Loaded | Self::Known | Self::Refused)
    }

    /// Whether HAProxy answered the last time that it was asked.
    pub fn answers(self) -> bool {
        !matches!(self, Self::Away | Self::Silent | Self::Loaded)
    }

    /// It loaded our file.
    #[must_use]
    pub fn loaded(self) -> Self {
        if self.answers() { Self::Known } else { Self::Loaded }
    }

    /// It refused an operation.
    #[must_use]
    pub fn refused(self) -> Self {
        if self == Self::Known { Self::Refused } else { self }
    }

    /// What it refused is not wanted any more.
    #[must_use]
    pub fn forgiven(self) -> Self {
        if self == Self::Refused { Self::Known } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::HaproxyState::*;

    #[test]
    fn a_load_leads_to_what_is_known_and_a_refusal_to_a_reload_that_does_it() {
        for state in [Away, Silent, Strange, Edited, Interrupted, Loaded, Known, Refused] {
            let loaded = state.loaded();
            assert_eq!((loaded.reason(), loaded.is_known(), loaded.forgiven()), (None, true, loaded), "{state:?}");
            assert_eq!(loaded.answers(), state.answers(), "only an answer tells that it answers");
        }
        assert_eq!(Known.refused().reason(), Some(super::ReloadReason::Refused));
        assert_eq!((Known.refused().forgiven(), Away.refused()), (Known, Away));
    }
}
