//! Strings in YAML and TOML.

/// A string in double quotes, as YAML and TOML read it: as JSON writes it.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
