//! What a table of keys consists of. With what its program's tests say of each key (`keys.txt`) it becomes JSON Schema and a page of
//! the docs.

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// true or false; `yes`, `no`, `on`, `off` as YAML 1.1 had them.
    Bool,
    /// One line of text; a number is taken as its digits.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// The same, and old spellings, each with the word that it is read as.
    Spelled(&'static [&'static str], &'static [(&'static str, &'static str)]),
    /// A whole number, also as digits in a text.
    Whole {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// A whole number or its digits in a text, left as it is written.
    Digits {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// A number from 0 on.
    Number,
    /// A port or a range of them (`8000-8010`), or null.
    Port,
    /// Lines of text; one alone need not be in a list.
    Lines,
    /// Any JSON: Synapse passes over what it cannot use.
    Any,
    /// An object with these keys.
    Object(&'static [Key]),
    /// Such objects; one alone need not be in a list.
    Objects(&'static [Key]),
    /// Any names, each with such a value.
    Map(&'static Kind),
}

/// Whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Synapse's own.
    Synapse,
    /// synapse-nginx's.
    SynapseNginx,
    /// Of the clay.io or the etcd fork.
    Fork,
    /// Nerve's own.
    Nerve,
    /// go-nerve's.
    GoNerve,
    /// Ours.
    Ours,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// Whose it is.
    pub origin: Origin,
}

/// Makes functions that make keys, one for each origin: `keys_of! { key: Synapse, ours: Ours }`.
#[macro_export]
macro_rules! keys_of {
    ($($name:ident: $origin:ident),+ $(,)?) => {$(
        const fn $name(name: &'static str, kind: $crate::config::table::Kind) -> $crate::config::table::Key {
            $crate::config::table::Key { name, kind, origin: $crate::config::table::Origin::$origin }
        }
    )+};
}
