//! Listed keys as JSON, the same in both dialects but for their metadata.

use rimstone::{ListedKey, Page};

use crate::json::{self, quote};

/// An array of the page's keys; `metadata` shows that of one.
pub(crate) fn show(page: &Page, metadata: impl Fn(String) -> String) -> String {
    let keys: Vec<String> = page.keys().map(|key| show_key(&key, &metadata)).collect();
    format!("[{}]", keys.join(","))
}

fn show_key(key: &ListedKey<'_>, metadata: impl Fn(String) -> String) -> String {
    let name = quote(&String::from_utf8_lossy(key.name));
    let expiration = key.expiration;
    let expiration = expiration.map_or(String::new(), |at| format!(",\"expiration\":{at}"));
    let metadata = match key.metadata {
        [] => String::new(),
        bytes => format!(",\"metadata\":{}", metadata(json::or_null(bytes))),
    };
    format!("{{\"name\":{name}{expiration}{metadata}}}")
}
