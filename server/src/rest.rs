//! The REST API: namespaces by id, everything but a value in an envelope.

mod bulk;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod described;
mod namespaces;

use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Response, StatusCode, Uri};
use rimstone::{Namespace, NamespaceId, ReadOptions, Store};

use crate::body::Body;
use crate::bulk_get::BulkGet;
use crate::json::{self, quote};
use crate::kv::{self, Expiry, Fault, Result};
use crate::limits::{JSON_BYTES_MAX, QUOTED_CHARS_MAX, REST_LIST_KEYS_MIN};
use crate::listing;
use crate::multipart;
use crate::query::Query;
use crate::response::{self, Outgoing, status};
use crate::value::{self, blocking};

const ROOT: &str = "/client/v4/";

/// Whether a request is for this dialect. In the other a key has no bare slash.
pub(crate) fn owns(uri: &Uri) -> bool {
    uri.path().starts_with(ROOT)
}

/// Answers one request.
pub(crate) async fn answer(store: &Store, head: &Parts, body: Body) -> Response<Outgoing> {
    let answer = route(store, head, body).await;
    answer.unwrap_or_else(|fault| {
        let mut response = refuse(&fault);
        if let Some(place) = place(head.uri.path()).filter(|_| fault.status == 405) {
            let allowed = METHODS.into_iter().filter(|method| allows(method, place));
            response::allow(&mut response, allowed);
        }
        response
    })
}

/// The methods that any place takes.
const METHODS: [&str; 4] = ["GET", "PUT", "POST", "DELETE"];

/// What a path names, below the account.
#[derive(Clone, Copy)]
enum Place<'a> {
    Token,
    Namespaces,
    /// Inside a namespace.
    Inside(&'a str, Part<'a>),
}

#[derive(Clone, Copy)]
enum Part<'a> {
    Itself,
    Keys,
    /// With the raw key.
    Value(&'a str),
    /// With the raw key.
    Metadata(&'a str),
    Bulk,
    BulkDelete,
    BulkGet,
}

// Keys may hold anything, so that nothing is decoded or normalised before the route is known.
fn place(path: &str) -> Option<Place<'_>> {
    let path = path.strip_prefix(ROOT)?;
    if path == "user/tokens/verify" {
        return Some(Place::Token);
    }
    let (account, path) = path.strip_prefix("accounts/")?.split_once('/')?;
    let path = path.strip_prefix("storage/kv/namespaces")?;
    if account.is_empty() {
        return None;
    }
    if path.is_empty() {
        return Some(Place::Namespaces);
    }
    let path = path.strip_prefix('/')?;
    let (id, part) = match path.split_once('/') {
        None => (path, Part::Itself),
        Some((id, "keys")) => (id, Part::Keys),
        Some((id, "bulk")) => (id, Part::Bulk),
        Some((id, "bulk/delete")) => (id, Part::BulkDelete),
        Some((id, "bulk/get")) => (id, Part::BulkGet),
        Some((id, rest)) => match rest.split_once('/')? {
            ("values", key) => (id, Part::Value(key)),
            ("metadata", key) => (id, Part::Metadata(key)),
            _ => return None,
        },
    };
    (!id.is_empty()).then_some(Place::Inside(id, part))
}

async fn route(store: &Store, head: &Parts, body: Body) -> Result<Response<Outgoing>> {
    let (method, query) = (&head.method, Query::parse(&head.uri)?);
    let Some(place) = place(head.uri.path()) else {
        let path: String = head.uri.path().chars().take(QUOTED_CHARS_MAX).collect();
        let text = format!("Could not route to {path}, perhaps your object identifier is invalid?");
        return Err(Fault::new(404, 7003, text));
    };
    match (method.as_str(), place) {
        ("GET", Place::Token) => Ok(envelope(r#"{"id":"rimstone","status":"active"}"#, None)),
        ("GET", Place::Namespaces) => namespaces::list(store, &query),
        ("POST", Place::Namespaces) => namespaces::create(store, body).await,
        (_, Place::Inside(id, part)) => {
            let op = operation(method.as_str(), part).ok_or_else(|| not_allowed(method))?;
            let done = inside(store, id, part, head, &query, body).await;
            done.map_err(|fault| told_by(op, fault))
        }
        _ => Err(not_allowed(method)),
    }
}

fn not_allowed(method: &Method) -> Fault {
    let method: String = method.as_str().chars().take(QUOTED_CHARS_MAX).collect();
    let text = format!("Method {method} not allowed for this endpoint");
    Fault::new(405, 10405, text)
}

/// Whether a place takes a method.
fn allows(method: &str, place: Place<'_>) -> bool {
    match place {
        Place::Token => method == "GET",
        Place::Namespaces => ["GET", "POST"].contains(&method),
        Place::Inside(_, part) => operation(method, part).is_some(),
    }
}

/// What messages call an operation, `None` if there is no such one.
fn operation(method: &str, part: Part<'_>) -> Option<&'static str> {
    Some(match (method, part) {
        ("GET", Part::Itself) => "get namespace",
        ("PUT", Part::Itself) => "rename namespace",
        ("DELETE", Part::Itself) => "remove namespace",
        ("GET", Part::Keys) => "list keys",
        ("GET", Part::Value(_)) => "get",
        ("PUT", Part::Value(_)) => "put",
        ("DELETE", Part::Value(_)) => "remove key",
        ("GET", Part::Metadata(_)) => "get metadata",
        ("PUT", Part::Bulk) => "bulk put keys",
        ("DELETE", Part::Bulk) | ("POST", Part::BulkDelete) => "bulk remove keys",
        ("POST", Part::BulkGet) => "bulk get keys",
        _ => return None,
    })
}

/// Cloudflare's wording for what is not there, there already, or too many.
fn told_by(op: &str, mut fault: Fault) -> Fault {
    if let 10009 | 10013 | 10014 | 10029 = fault.code {
        fault.text = format!("{op}: '{}'", fault.text);
    }
    fault
}

async fn inside(
    store: &Store,
    id: &str,
    part: Part<'_>,
    head: &Parts,
    query: &Query,
    mut body: Body,
) -> Result<Response<Outgoing>> {
    let ns = namespace(store, id)?;
    match (head.method.as_str(), part) {
        ("GET", Part::Itself) => Ok(envelope(&namespaces::show(&ns), None)),
        ("PUT", Part::Itself) => namespaces::rename(store, ns, body).await,
        ("DELETE", Part::Itself) => namespaces::remove(store, ns).await,
        ("GET", Part::Keys) => keys(ns, query).await,
        ("GET", Part::Value(raw)) => get(ns, kv::decode_key(raw)?).await,
        ("PUT", Part::Value(raw)) => {
            put(store, ns, kv::decode_key(raw)?, query, &head.headers, body).await
        }
        ("DELETE", Part::Value(raw)) => delete(ns, kv::decode_key(raw)?).await,
        ("GET", Part::Metadata(raw)) => metadata(ns, kv::decode_key(raw)?).await,
        ("PUT", Part::Bulk) => bulk::answer(store, ns, body, bulk::put).await,
        ("DELETE", Part::Bulk) | ("POST", Part::BulkDelete) => {
            bulk::answer(store, ns, body, bulk::delete).await
        }
        ("POST", Part::BulkGet) => {
            let asked = BulkGet::parse(&body.collect(JSON_BYTES_MAX).await?)?;
            let values = blocking(move || asked.answer(&ns)).await?;
            Ok(envelope(&format!("{{\"values\":{values}}}"), None))
        }
        _ => Err(not_allowed(&head.method)),
    }
}

fn namespace(store: &Store, text: &str) -> Result<Namespace> {
    let id = text.parse::<NamespaceId>().map_err(|_| {
        let given: String = text.chars().take(QUOTED_CHARS_MAX).collect();
        let text = format!(
            "could not parse UUID from request's namespace_id: 'invalid namespace format: {given}'"
        );
        Fault::new(400, 10011, text)
    })?;
    let found = store.namespace_by_id(id);
    found.ok_or_else(|| Fault::new(404, 10013, "namespace not found"))
}

async fn keys(ns: Namespace, query: &Query) -> Result<Response<Outgoing>> {
    let options = kv::list_options(
        query.get("prefix"),
        query.get("limit"),
        query.get("cursor"),
        REST_LIST_KEYS_MIN,
    )?;
    let page = blocking(move || Ok(ns.list(&options)?)).await?;
    let cursor = quote(page.cursor.as_deref().unwrap_or_default());
    let info = format!("{{\"count\":{},\"cursor\":{cursor}}}", page.len());
    // Metadata is JSON here, not a string of it.
    let keys = listing::show(&page, |metadata| metadata);
    Ok(envelope(&keys, Some(&info)))
}

fn no_key() -> Fault {
    Fault::new(404, 10009, "key not found")
}

async fn get(ns: Namespace, key: String) -> Result<Response<Outgoing>> {
    let value = value::open(ns, key, ReadOptions::new())
        .await?
        .ok_or_else(no_key)?;
    let mut response = status(StatusCode::OK);
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(value.len()));
    if let Some(at) = value.expiration() {
        headers.insert("expiration", HeaderValue::from(at));
    }
    *response.body_mut() = value::respond(value).await?;
    Ok(response)
}

// Of content types only that of a form means anything.
async fn put(
    store: &Store,
    ns: Namespace,
    key: String,
    query: &Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response<Outgoing>> {
    let expiry = query.expiry();
    let options = kv::put_options(&expiry, b"", store.clock().now())?;
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let kind = String::from_utf8_lossy(kind.unwrap_or_default());
    let form = kind.split(';').next().unwrap_or_default().trim();
    if !form.eq_ignore_ascii_case("multipart/form-data") {
        value::store(ns, key, options, body).await?;
        return Ok(done());
    }
    let broken = |_| Fault::new(400, 10012, "The form's content type has no boundary");
    let boundary = multer::parse_boundary(&*kind).map_err(broken)?;
    let form = multipart::read(boundary, body).await?;
    let expiry = Expiry {
        expiration: expiry.expiration.or_else(|| form.expiry.expiration.clone()),
        expiration_ttl: expiry
            .expiration_ttl
            .or_else(|| form.expiry.expiration_ttl.clone()),
    };
    let options = kv::put_options(&expiry, &form.metadata, store.clock().now())?;
    blocking(move || Ok(ns.put_with(key, &form.value, &options).map(drop)?)).await?;
    Ok(done())
}

async fn delete(ns: Namespace, key: String) -> Result<Response<Outgoing>> {
    blocking(move || Ok(ns.delete(key).map(drop)?)).await?;
    Ok(done())
}

async fn metadata(ns: Namespace, key: String) -> Result<Response<Outgoing>> {
    let found = value::open(ns, key, ReadOptions::new())
        .await?
        .ok_or_else(no_key)?;
    Ok(envelope(&json::or_null(found.metadata()), None))
}

/// What there is to say of a write.
fn done() -> Response<Outgoing> {
    envelope("null", None)
}

fn envelope(result: &str, info: Option<&str>) -> Response<Outgoing> {
    let info = info.map_or(String::new(), |info| format!(",\"result_info\":{info}"));
    response::json(format!(
        "{{\"success\":true,\"errors\":[],\"messages\":[],\"result\":{result}{info}}}"
    ))
}

/// A fault in the envelope.
pub(crate) fn refuse(fault: &Fault) -> Response<Outgoing> {
    let (code, text) = (fault.code, quote(&fault.text));
    // Cloudflare says this one in two sentences.
    let more = match code {
        7003 => r#",{"code":7000,"message":"No route for that URI"}"#,
        _ => "",
    };
    let response = response::json(format!(
        "{{\"success\":false,\"errors\":[{{\"code\":{code},\"message\":{text}}}{more}],\"messages\":[],\"result\":null}}"
    ));
    response::refused(response, fault)
}
