//! What a table of keys consists of. From one table come the checks, the JSON Schema and the reference in the docs.

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
    /// What the reference says of it.
    #[cfg(feature = "testing")]
    pub reference: Reference,
}

/// A key in the reference.
#[cfg(feature = "testing")]
#[derive(Debug, Clone, Copy)]
pub struct Reference {
    /// What counts without the key; empty: nothing.
    pub default: &'static str,
    /// What the key does.
    pub doc: &'static str,
    /// The test that shows it.
    pub test: &'static str,
    /// An object without it is wrong.
    pub required: bool,
}

impl Key {
    /// A key with what the reference says of it, which the programs themselves leave out: its default, what it does, the test that
    /// shows it.
    pub const fn new(name: &'static str, kind: Kind, origin: Origin, reference: [&'static str; 3]) -> Self {
        let [_default, _doc, _test] = reference;
        Self {
            name,
            kind,
            origin,
            #[cfg(feature = "testing")]
            reference: Reference { default: _default, doc: _doc, test: _test, required: false },
        }
    }

    /// The same; the schema asks for it wherever there is such an object.
    #[must_use]
    pub const fn required(self) -> Self {
        #[cfg(feature = "testing")]
        return Self { reference: Reference { required: true, ..self.reference }, ..self };
        #[cfg(not(feature = "testing"))]
        self
    }
}

/// Makes functions that make keys, one for each origin: `keys_of! { key: Synapse, ours: Ours }`.
#[macro_export]
macro_rules! keys_of {
    ($($name:ident: $origin:ident),+ $(,)?) => {$(
        const fn $name(
            name: &'static str,
            kind: $crate::config::table::Kind,
            default: &'static str,
            doc: &'static str,
            test: &'static str,
        ) -> $crate::config::table::Key {
            $crate::config::table::Key::new(name, kind, $crate::config::table::Origin::$origin, [default, doc, test])
        }
    )+};
}
