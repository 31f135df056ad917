//! What the Workers runtime speaks: one namespace, named by a header, and a key for a path.
//!
//! Of an error only the status and the reason phrase reach the Worker.

use bytes::Bytes;
use hyper::ext::ReasonPhrase;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, Response, StatusCode, Uri};
use rimstone::{Namespace, Page, Store};

use crate::body::{
    Body, Outgoing, blocking, come_back, open_value, send_value, store_value, whole,
};
use crate::kv::{self, BulkGet, Expiry, Fault, Result};
use crate::limits::{JSON_BYTES_MAX, REASON_BYTES_MAX};
use crate::query::Query;

const METADATA: &str = "cf-kv-metadata";
const NAMESPACE: &str = "x-kv-namespace";

/// Answers one request.
pub(crate) async fn answer(
    store: &Store,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Response<Outgoing> {
    let answer = route(store, method, uri, headers, body).await;
    answer.unwrap_or_else(|fault| refuse(&fault))
}

async fn route(
    store: &Store,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<Response<Outgoing>> {
    let path = uri.path().strip_prefix('/').unwrap_or_default();
    let query = Query::parse(uri)?;
    let bulk = method == Method::POST && path == "bulk/get";
    if !bulk && ![Method::GET, Method::PUT, Method::DELETE].contains(method) {
        return Ok(status(StatusCode::METHOD_NOT_ALLOWED));
    }
    let ns = namespace(store, headers)?;
    if bulk {
        let asked = BulkGet::parse(&body.collect(JSON_BYTES_MAX).await?)?;
        return Ok(json(blocking(move || asked.answer(&ns)).await?));
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
        store_value(ns, key, options, body).await?;
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
    query.get("cache_ttl").map_or(Ok(()), kv::check_cache_ttl)?;
    let Some(value) = open_value(ns, key).await? else {
        return Ok(status(StatusCode::NOT_FOUND));
    };
    let mut response = Response::new(whole(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(value.len()));
    if let Some(at) = value.expiration() {
        headers.insert("cf-expiration", HeaderValue::from(at));
    }
    if let Some(metadata) = metadata_header(value.metadata()) {
        headers.insert(METADATA, metadata);
    }
    *response.body_mut() = send_value(value).await?;
    Ok(response)
}

// A header may hold any byte of UTF-8 but control characters; of those JSON allows only DEL.
fn metadata_header(metadata: &[u8]) -> Option<HeaderValue> {
    if metadata.is_empty() {
        return None;
    }
    let text = kv::json_or_null(metadata).replace('\x7f', "\\u007f");
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
    Ok(json(show(&page)))
}

// Metadata goes out as a JSON *string* here; the runtime parses it.
fn show(page: &Page) -> String {
    let keys: Vec<String> = page
        .keys()
        .map(|key| {
            let name = kv::quote(&String::from_utf8_lossy(key.name));
            let at = key
                .expiration
                .map_or(String::new(), |at| format!(",\"expiration\":{at}"));
            let metadata = match key.metadata {
                [] => String::new(),
                bytes => format!(",\"metadata\":{}", kv::quote(&kv::json_or_null(bytes))),
            };
            format!("{{\"name\":{name}{at}{metadata}}}")
        })
        .collect();
    let (keys, complete) = (keys.join(","), page.cursor.is_none());
    let cursor = page.cursor.as_ref();
    let cursor = cursor.map_or(String::new(), |at| format!(",\"cursor\":{}", kv::quote(at)));
    format!("{{\"keys\":[{keys}],\"list_complete\":{complete}{cursor}}}")
}

/// A response that is all status and reason.
pub(crate) fn refuse(fault: &Fault) -> Response<Outgoing> {
    // The engine says 404 for a namespace dropped a moment ago; see `namespace`.
    let code = if fault.code == 10013 {
        400
    } else {
        fault.status
    };
    let mut response = status(StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST));
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
    come_back(fault, &mut response);
    response
}

fn status(status: StatusCode) -> Response<Outgoing> {
    let mut response = Response::new(whole(Bytes::new()));
    *response.status_mut() = status;
    response
}

fn json(text: String) -> Response<Outgoing> {
    let mut response = Response::new(whole(text));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

impl Query {
    pub(crate) fn expiry(&self) -> Expiry {
        let owned = |name| self.get(name).map(str::to_owned);
        Expiry {
            expiration: owned("expiration"),
            expiration_ttl: owned("expiration_ttl"),
        }
    }
}
