//! The table of keys as JSON Schema and as the reference in docs/configuration-keys.md.

use serde_json::Value;

use super::keys::ROOT;

/// The JSON Schema of a config file.
pub fn json_schema() -> Value {
    common::config::schema::json_schema(ROOT, "discover's config: Synapse's, extended")
}

/// The reference of every key, in Markdown: one table for each object.
pub fn reference() -> String {
    common::config::schema::reference(ROOT, "discover")
}
