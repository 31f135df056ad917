//! What the Workers runtime speaks: one namespace, named by a header, and a key for a path.
//!
//! Of an error only the status and the reason phrase reach the Worker.

use hyper::ext::ReasonPhrase;
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Response, StatusCode};
use rimstone::{CacheStatus, Namespace, Store};

use crate::body::Body;
use crate::bulk_get::BulkGet;
use crate::json::{self, quote};
use crate::kv::{self, Fault, Result};
use crate::limits::{JSON_BYTES_MAX, REASON_BYTES_MAX};
use crate::listing;
use crate::query::Query;
use crate::response::{self, Outgoing, status};
use crate::value::{self, blocking};

const CACHE_STATUS: &str = "cf-cache-status";
const METADATA: &str = "cf-kv-metadata";
const NAMESPACE: &str = "x-kv-namespace";

/// Answers one request.
pub(crate) async fn answer(store: &Store, head: &Parts, body: Body) -> Response<Outgoing> {
    let answer = route(store, head, body).await;
    answer.unwrap_or_else(|fault| refuse(&fault))
}

async fn route(store: &Store, head: &Parts, mut body: Body) -> Result<Response<Outgoing>> {
    let (method, headers) = (&head.method, &head.headers);
    let path = head.uri.path().strip_prefix('/').unwrap_or_default();
    let query = Query::parse(&head.uri)?;
    let bulk = method == Method::POST && path == "bulk/get";
    if !bulk && ![Method::GET, Method::PUT, Method::DELETE].contains(method) {
        let mut response = status(StatusCode::METHOD_NOT_ALLOWED);
        response::allow(&mut response, ["GET", "PUT", "DELETE"]);
        return Ok(response);
    }
    let ns = namespace(store, headers)?;
    if bulk {
        let asked = BulkGet::parse(&body.collect(JSON_BYTES_MAX).await?)?;
        return Ok(response::json(blocking(move || asked.answer(&ns)).await?));
    }
    if method == Method::GET && path.is_empty() {
        return list(ns, &query).await;
    }
    let key = kv::decode_key(path)?;
    if method == Method::GET {
        return get(ns, key, &query).await;
    }
    if method == Method::PUT {
        let expiry = query.expiry();
        let metadata = headers
            .get(METADATA)
            .map_or(&b""[..], |value| value.as_bytes());
        let options = kv::put_options(&expiry, metadata, store.clock().now())?;
        value::store(ns, key, options, body).await?;
    } else {
        blocking(move || Ok(ns.delete(key).map(|_| ())?)).await?;
    }
    Ok(status(StatusCode::OK))
}

// An unknown namespace is no 404: to a Worker that would be a missing key.
fn namespace(store: &Store, headers: &HeaderMap) -> Result<Namespace> {
    let name = headers
        .get(NAMESPACE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    let name = name.ok_or_else(|| {
        Fault::new(
            400,
            10013,
            "namespace not found: the header x-kv-namespace is missing",
        )
    })?;
    kv::find_namespace(store, &name)
        .ok_or_else(|| Fault::new(400, 10013, format!("namespace not found: {name}")))
}

async fn get(ns: Namespace, key: String, query: &Query) -> Result<Response<Outgoing>> {
    let options = kv::read_options(query.get("cache_ttl"))?;
    let Some(value) = value::open(ns, key, options).await? else {
        return Ok(status(StatusCode::NOT_FOUND));
    };
    let mut response = status(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(value.len()));
    if let Some(at) = value.expiration() {
        headers.insert("cf-expiration", HeaderValue::from(at));
    }
    if let Some(status) = cache_status(value.cache_status()) {
        headers.insert(CACHE_STATUS, status);
    }
    if let Some(metadata) = metadata_header(value.metadata()) {
        headers.insert(METADATA, metadata);
    }
    *response.body_mut() = value::respond(value).await?;
    Ok(response)
}

// The runtime tells a Worker what it finds here, or null.
fn cache_status(status: CacheStatus) -> Option<HeaderValue> {
    match status {
        CacheStatus::Hit => Some(HeaderValue::from_static("HIT")),
        CacheStatus::Miss => Some(HeaderValue::from_static("MISS")),
        CacheStatus::Off => None,
    }
}

// A header may hold any byte of UTF-8 but control characters; of those JSON allows only DEL.
fn metadata_header(metadata: &[u8]) -> Option<HeaderValue> {
    if metadata.is_empty() {
        return None;
    }
    let text = json::or_null(metadata).replace('\x7f', "\\u007f");
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

async fn list(ns: Namespace, query: &Query) -> Result<Response<Outgoing>> {
    let options = kv::list_options(
        query.get("prefix"),
        query.get("key_count_limit"),
        query.get("cursor"),
        1,
    )?;
    let page = blocking(move || Ok(ns.list(&options)?)).await?;
    // Metadata is a *string* of JSON here; the runtime parses it.
    let keys = listing::show(&page, |metadata| quote(&metadata));
    let (complete, cursor) = (page.cursor.is_none(), page.cursor.as_deref());
    let cursor = cursor.map_or(String::new(), |at| format!(",\"cursor\":{}", quote(at)));
    Ok(response::json(format!(
        "{{\"keys\":{keys},\"list_complete\":{complete}{cursor}}}"
    )))
}

/// A response that is all status and reason.
pub(crate) fn refuse(fault: &Fault) -> Response<Outgoing> {
    let mut response = response::refused(status(StatusCode::OK), fault);
    // The engine says 404 for a namespace dropped a moment ago; see `namespace`.
    if fault.code == 10013 {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    let visible = |c: char| {
        if c.is_ascii_graphic() || c == ' ' {
            c
        } else {
            '?'
        }
    };
    let text: String = fault
        .text
        .chars()
        .take(REASON_BYTES_MAX)
        .map(visible)
        .collect();
    if let Ok(reason) = ReasonPhrase::try_from(text.into_bytes()) {
        response.extensions_mut().insert(reason);
    }
    response
}
