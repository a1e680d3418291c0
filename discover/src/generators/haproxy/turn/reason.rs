//! Why only a reload will do.

use std::fmt;

/// Why only a reload will do. The words are metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReloadReason {
    /// HAProxy has loaded nothing of ours yet, or its file is not ours.
    Start,
    /// The file was edited by hand.
    EditedByHand,
    /// A reload was begun and its outcome is not known.
    Interrupted,
    /// Global, defaults or another part outside the services changed.
    Header,
    /// A service is new.
    SectionAdded,
    /// A service is gone for good.
    SectionRemoved,
    /// A service's bind, mode or options changed.
    SectionChanged,
    /// A server's parameters changed, and this version cannot replace it.
    ServerChanged,
    /// HAProxy refused an operation.
    Refused,
    /// Too many servers linger in maintenance, and this version cannot delete them.
    Lingering,
}

impl ReloadReason {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::EditedByHand => "edited_by_hand",
            Self::Interrupted => "interrupted",
            Self::Header => "header",
            Self::SectionAdded => "section_added",
            Self::SectionRemoved => "section_removed",
            Self::SectionChanged => "section_changed",
            Self::ServerChanged => "server_changed",
            Self::Refused => "refused",
            Self::Lingering => "lingering",
        }
    }
}

impl fmt::Display for ReloadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
