//! The namespaces of an account.

use hyper::Response;
use rimstone::{Namespace, Store};
use serde_json::value::RawValue;

use super::{done, envelope, told_by};
use crate::body::Body;
use crate::json::{self, quote};
use crate::kv::{Fault, Result};
use crate::limits::{JSON_BYTES_MAX, PER_PAGE, PER_PAGE_MAX, TITLE_CHARS_MAX};
use crate::query::Query;
use crate::response::Outgoing;
use crate::value::blocking;

pub(super) fn show(ns: &Namespace) -> String {
    let (id, title) = (ns.id(), quote(&ns.name()));
    format!("{{\"id\":\"{id}\",\"title\":{title},\"supports_url_encoding\":true}}")
}

pub(super) fn list(store: &Store, query: &Query) -> Result<Response<Outgoing>> {
    let number = |name: &str, default, max| {
        let Some(text) = query.get(name) else {
            return Ok(default);
        };
        let number = text.parse::<usize>().ok();
        number.filter(|n| (1..=max).contains(n)).ok_or_else(|| {
            let text = format!("Invalid {name}. Please specify an integer from 1 to {max}.");
            Fault::new(400, 10028, text)
        })
    };
    let page = number("page", 1, usize::MAX)?;
    let per_page = number("per_page", PER_PAGE, PER_PAGE_MAX)?;
    let mut all = store.namespaces();
    match query.get("order") {
        None | Some("") => {}
        Some("id") => all.sort_by_cached_key(|ns| ns.id()),
        Some("title") => all.sort_by_cached_key(Namespace::name),
        Some(_) => return Err(Fault::new(400, 10043, "Invalid order. Use id or title.")),
    }
    match query.get("direction") {
        None | Some("" | "asc") => {}
        Some("desc") => all.reverse(),
        Some(_) => {
            return Err(Fault::new(
                400,
                10044,
                "Invalid direction. Use asc or desc.",
            ));
        }
    }
    let (total, pages) = (all.len(), all.len().div_ceil(per_page));
    let shown: Vec<String> = all
        .iter()
        .skip((page - 1).saturating_mul(per_page))
        .take(per_page)
        .map(show)
        .collect();
    let count = shown.len();
    let info = format!(
        "{{\"page\":{page},\"per_page\":{per_page},\"count\":{count},\"total_count\":{total},\"total_pages\":{pages}}}"
    );
    Ok(envelope(&format!("[{}]", shown.join(",")), Some(&info)))
}

#[derive(serde::Deserialize)]
struct Titled<'a> {
    #[serde(borrow)]
    title: Option<&'a RawValue>,
}

/// The title in the body of a create or rename.
async fn title(mut body: Body) -> Result<String> {
    let body = body.collect(JSON_BYTES_MAX).await?;
    let broken = || Fault::new(400, 10012, "Request body must be a JSON object");
    let body: &RawValue = serde_json::from_slice(&body).map_err(|_| broken())?;
    let titled: Titled<'_> = json::object(body).ok_or_else(broken)?;
    let title = titled
        .title
        .map(|title| serde_json::from_str::<String>(title.get()));
    let title = title
        .and_then(|title| title.ok())
        .filter(|title| !title.is_empty());
    let title =
        title.ok_or_else(|| Fault::new(400, 10019, "request is missing a title definition"))?;
    if title.chars().count() > TITLE_CHARS_MAX {
        let text = format!("a title has at most {TITLE_CHARS_MAX} characters");
        return Err(Fault::new(400, 10019, text));
    }
    Ok(title)
}

// A jurisdiction is accepted and means nothing: one store is in one place.
pub(super) async fn create(store: &Store, body: Body) -> Result<Response<Outgoing>> {
    let (store, title) = (store.clone(), title(body).await?);
    let ns = blocking(move || Ok(store.create_namespace(&title)?)).await;
    let ns = ns.map_err(|fault| told_by("create namespace", fault))?;
    Ok(envelope(&show(&ns), None))
}

pub(super) async fn rename(store: &Store, ns: Namespace, body: Body) -> Result<Response<Outgoing>> {
    let (store, title) = (store.clone(), title(body).await?);
    blocking(move || {
        store.rename_namespace(ns.id(), &title)?;
        Ok(envelope(&show(&ns), None))
    })
    .await
}

pub(super) async fn remove(store: &Store, ns: Namespace) -> Result<Response<Outgoing>> {
    let store = store.clone();
    blocking(move || Ok(store.drop_namespace(ns.id())?)).await?;
    Ok(done())
}
