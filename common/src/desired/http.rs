//! What a port's labels say for the HTTP edge, checked, as labels of the backend.

use std::collections::BTreeMap;

use super::decision::Skip;
use super::labels::{Entry, PortView};
use super::values;

const PRIORITY: &str = "a whole number from -10000 to 10000";
const STICKY: &str = "true, false, cookie or source";
const SWITCH: &str = "true or false";
const STRIP: &str = "true, false or the path to strip";

/// Adds `vhost`, `path`, `strip-prefix`, `priority`, `sticky` and `redirect-https`, as far as they were given. nginx-proxy's
/// variables count only for the port that they mean (`virtual`).
///
/// # Errors
/// [`Skip::BadLabel`] for what could not be routed.
pub fn add(view: &PortView<'_, '_>, is_virtual: bool, labels: &mut BTreeMap<String, String>) -> Result<(), Skip> {
    let mut put = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            labels.insert(key.to_owned(), value);
        }
    };
    let either = |own: &str, theirs: &str| view.get(own).or_else(|| is_virtual.then(|| view.get(theirs)).flatten());
    put("vhost", read(either("vhost", "virtual.host"), values::VHOSTS, values::vhosts)?);
    put("path", read(either("path", "virtual.path"), values::PATH, values::path)?);
    let strip = |text: &str| values::switch(text).map(|on| on.to_string()).or_else(|| values::path(text));
    put("strip-prefix", view.read("strip-prefix", STRIP, strip)?);
    let priority = |text: &str| text.parse::<i32>().ok().filter(|p| (-10_000..=10_000).contains(p));
    put("priority", view.read("priority", PRIORITY, priority)?.map(|p| p.to_string()));
    let sticky = |text: &str| match text.to_ascii_lowercase().as_str() {
        word @ ("cookie" | "source") => Some(word.to_owned()),
        word => values::switch(word).map(|on| on.to_string()),
    };
    put("sticky", view.read("sticky", STICKY, sticky)?);
    put("redirect-https", view.read("redirect-https", SWITCH, values::switch)?.map(|on| on.to_string()));
    Ok(())
}

fn read<T>(entry: Option<&Entry<'_>>, accepted: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Skip> {
    entry.map(|entry| parse(entry.value).ok_or_else(|| entry.bad(accepted))).transpose()
}
