//! The REST API: namespaces by id, everything but a value in an envelope.

use std::collections::HashMap;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, Response, StatusCode, Uri};
use rimstone::{Namespace, NamespaceId, Page, PutOptions, Store, WriteBatch};
use serde_json::value::RawValue;

use crate::body::{
    Body, Outgoing, blocking, come_back, open_value, send_value, store_value, whole,
};
use crate::kv::{self, BulkGet, Expiry, Fault, Result};
use crate::limits::{
    BULK_BYTES_MAX, BULK_PAIRS_MAX, JSON_BYTES_MAX, REST_LIST_KEYS_MIN, TITLE_CHARS_MAX,
};
use crate::multipart;
use crate::query::Query;

const ROOT: &str = "/client/v4/";
/// Namespaces on a page unless the client says otherwise.
const PER_PAGE: usize = 20;
/// Most namespaces on a page; wrangler asks for as many.
const PER_PAGE_MAX: usize = 1000;
/// Bytes of one batch; the engine takes twice that, its own headers included.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a pair costs beside its key, value and metadata, generously.
const PAIR_BYTES: usize = 128;
/// Most of a client's own text that a message quotes.
const QUOTED_CHARS_MAX: usize = 64;

/// Padding is a matter of taste between encoders.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Whether a request is for this dialect. In the other a key has no bare slash.
pub(crate) fn owns(uri: &Uri) -> bool {
    uri.path().starts_with(ROOT)
}

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

/// What a path names, below the account.
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

async fn route(
    store: &Store,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response<Outgoing>> {
    let query = Query::parse(uri)?;
    let Some(place) = place(uri.path()) else {
        let path: String = uri.path().chars().take(QUOTED_CHARS_MAX).collect();
        let text = format!("Could not route to {path}, perhaps your object identifier is invalid?");
        return Err(Fault::new(404, 7003, text));
    };
    match (method.as_str(), place) {
        ("GET", Place::Token) => Ok(envelope(r#"{"id":"rimstone","status":"active"}"#, None)),
        ("GET", Place::Namespaces) => namespaces(store, &query),
        ("POST", Place::Namespaces) => create(store, body).await,
        (_, Place::Inside(id, part)) => {
            let op = operation(method, part).ok_or_else(|| not_allowed(method))?;
            let done = inside(store, id, part, method, &query, headers, body).await;
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

/// What messages call an operation, `None` if there is no such one.
fn operation(method: &Method, part: Part<'_>) -> Option<&'static str> {
    Some(match (method.as_str(), part) {
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

// The operation is known to exist.
async fn inside(
    store: &Store,
    id: &str,
    part: Part<'_>,
    method: &Method,
    query: &Query,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<Response<Outgoing>> {
    let ns = namespace(store, id)?;
    match part {
        Part::Itself if method == Method::PUT => return rename(store, ns, body).await,
        Part::Itself if method == Method::DELETE => {
            let store = store.clone();
            blocking(move || Ok(store.drop_namespace(ns.id())?)).await?;
        }
        Part::Itself => return Ok(envelope(&show_namespace(&ns), None)),
        Part::Keys => return keys(ns, query).await,
        Part::Value(raw) => {
            let key = kv::decode_key(raw)?;
            if method == Method::GET {
                return get(ns, key).await;
            }
            if method == Method::PUT {
                put(store, ns, key, query, headers, body).await?;
            } else {
                blocking(move || Ok(ns.delete(key).map(drop)?)).await?;
            }
        }
        Part::Metadata(raw) => {
            let found = open_value(ns, kv::decode_key(raw)?).await?;
            let found = found.ok_or_else(no_key)?;
            return Ok(envelope(&kv::json_or_null(found.metadata()), None));
        }
        Part::Bulk if method == Method::PUT => {
            let body = body.collect(BULK_BYTES_MAX).await?;
            let store = store.clone();
            let count = blocking(move || bulk_put(&store, &ns, &body)).await?;
            return Ok(bulk(count));
        }
        Part::Bulk | Part::BulkDelete => {
            let body = body.collect(BULK_BYTES_MAX).await?;
            let store = store.clone();
            let count = blocking(move || bulk_delete(&store, &ns, &body)).await?;
            return Ok(bulk(count));
        }
        Part::BulkGet => {
            let asked = BulkGet::parse(&body.collect(JSON_BYTES_MAX).await?)?;
            let values = blocking(move || asked.answer(&ns)).await?;
            return Ok(envelope(&format!("{{\"values\":{values}}}"), None));
        }
    }
    Ok(envelope("null", None))
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

fn show_namespace(ns: &Namespace) -> String {
    let (id, title) = (ns.id(), kv::quote(&ns.name()));
    format!("{{\"id\":\"{id}\",\"title\":{title},\"supports_url_encoding\":true}}")
}

fn namespaces(store: &Store, query: &Query) -> Result<Response<Outgoing>> {
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
        .map(show_namespace)
        .collect();
    let count = shown.len();
    let info = format!(
        "{{\"page\":{page},\"per_page\":{per_page},\"count\":{count},\"total_count\":{total},\"total_pages\":{pages}}}"
    );
    Ok(envelope(&format!("[{}]", shown.join(",")), Some(&info)))
}

/// The title in the body of a create or rename.
async fn title(mut body: Body) -> Result<String> {
    let body = body.collect(JSON_BYTES_MAX).await?;
    let broken = |_| Fault::new(400, 10012, "Request body must be a JSON object");
    let body: serde_json::Value = serde_json::from_slice(&body).map_err(broken)?;
    let title = body.get("title").and_then(|title| title.as_str());
    let title = title.filter(|title| !title.is_empty());
    let title =
        title.ok_or_else(|| Fault::new(400, 10019, "request is missing a title definition"))?;
    if title.chars().count() > TITLE_CHARS_MAX {
        let text = format!("a title has at most {TITLE_CHARS_MAX} characters");
        return Err(Fault::new(400, 10019, text));
    }
    Ok(title.to_owned())
}

// A jurisdiction is accepted and means nothing: one store is in one place.
async fn create(store: &Store, body: Body) -> Result<Response<Outgoing>> {
    let (store, title) = (store.clone(), title(body).await?);
    let ns = blocking(move || Ok(store.create_namespace(&title)?)).await;
    let ns = ns.map_err(|fault| told_by("create namespace", fault))?;
    Ok(envelope(&show_namespace(&ns), None))
}

async fn rename(store: &Store, ns: Namespace, body: Body) -> Result<Response<Outgoing>> {
    let (store, title) = (store.clone(), title(body).await?);
    blocking(move || {
        store.rename_namespace(ns.id(), &title)?;
        Ok(envelope(&show_namespace(&ns), None))
    })
    .await
}

async fn keys(ns: Namespace, query: &Query) -> Result<Response<Outgoing>> {
    let options = kv::list_options(
        query.get("prefix"),
        query.get("limit"),
        query.get("cursor"),
        REST_LIST_KEYS_MIN,
    )?;
    let page = blocking(move || Ok(ns.list(&options)?)).await?;
    let cursor = kv::quote(page.cursor.as_deref().unwrap_or_default());
    let info = format!("{{\"count\":{},\"cursor\":{cursor}}}", page.len());
    Ok(envelope(&show_keys(&page), Some(&info)))
}

// Metadata goes out as JSON here, not as a string of JSON.
fn show_keys(page: &Page) -> String {
    let keys: Vec<String> = page
        .keys()
        .map(|key| {
            let name = kv::quote(&String::from_utf8_lossy(key.name));
            let at = key
                .expiration
                .map_or(String::new(), |at| format!(",\"expiration\":{at}"));
            let metadata = match key.metadata {
                [] => String::new(),
                bytes => format!(",\"metadata\":{}", kv::json_or_null(bytes)),
            };
            format!("{{\"name\":{name}{at}{metadata}}}")
        })
        .collect();
    format!("[{}]", keys.join(","))
}

fn no_key() -> Fault {
    Fault::new(404, 10009, "key not found")
}

async fn get(ns: Namespace, key: String) -> Result<Response<Outgoing>> {
    let value = open_value(ns, key).await?.ok_or_else(no_key)?;
    let mut response = Response::new(whole(Bytes::new()));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(value.len()));
    if let Some(at) = value.expiration() {
        headers.insert("expiration", HeaderValue::from(at));
    }
    *response.body_mut() = send_value(value).await?;
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
) -> Result<()> {
    let expiry = query.expiry();
    let options = kv::put_options(&expiry, b"", store.clock().now())?;
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let kind = String::from_utf8_lossy(kind.unwrap_or_default());
    let form = kind.split(';').next().unwrap_or_default().trim();
    if !form.eq_ignore_ascii_case("multipart/form-data") {
        return store_value(ns, key, options, body).await;
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
    blocking(move || Ok(ns.put_with(key, &form.value, &options).map(drop)?)).await
}

/// The items of a bulk request, not too many; `broken` if they are no array.
fn items<T>(items: serde_json::Result<Vec<T>>, broken: impl Fn() -> Fault) -> Result<Vec<T>> {
    let items = items.map_err(|_| broken())?;
    if items.len() <= BULK_PAIRS_MAX {
        return Ok(items);
    }
    let text = format!("You can send a maximum of {BULK_PAIRS_MAX} keys");
    Err(Fault::new(400, 10029, text))
}

/// One checked pair of a bulk put.
struct Pair {
    key: String,
    value: Vec<u8>,
    options: PutOptions,
    len: usize,
}

fn pair(item: &RawValue, now: u64) -> Result<Pair> {
    let broken = |_| broken_pairs();
    // Raw members: numbers in metadata keep their text.
    let members: HashMap<String, &RawValue> = serde_json::from_str(item.get()).map_err(broken)?;
    let member = |name: &str| {
        let raw = members.get(name).map(|raw| raw.get());
        raw.filter(|raw| *raw != "null")
    };
    let string = |name: &str| {
        let raw = member(name).ok_or_else(broken_pairs)?;
        serde_json::from_str::<String>(raw).map_err(broken)
    };
    let key = string("key")?;
    kv::check_key(&key)?;
    let mut value = string("value")?.into_bytes();
    let encoded = match member("base64") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(broken_pairs()),
    };
    if encoded {
        value = BASE64.decode(&value).map_err(|_| {
            let text = format!("The value of {} is not valid base64", kv::quote(&key));
            Fault::new(400, 10012, text)
        })?;
    }
    kv::check_value_length(value.len() as u64)?;
    let number = |name| member(name).map(|text| text.chars().take(QUOTED_CHARS_MAX).collect());
    let expiry = Expiry {
        expiration: number("expiration"),
        expiration_ttl: number("expiration_ttl"),
    };
    let metadata = member("metadata").unwrap_or_default();
    let options = kv::put_options(&expiry, metadata.as_bytes(), now)?;
    let len = key.len() + value.len() + metadata.len() + PAIR_BYTES;
    Ok(Pair {
        key,
        value,
        options,
        len,
    })
}

fn broken_pairs() -> Fault {
    let text = "Request body must be a JSON array of objects with the strings key and value";
    Fault::new(400, 10012, text)
}

/// Stores all pairs and returns how many, or stores nothing if one is refused.
///
/// Each batch is all or nothing, their sequence is not: should the store fail between two, the
/// client learns of it and repeats the request.
fn bulk_put(store: &Store, ns: &Namespace, body: &[u8]) -> Result<usize> {
    let raw = items(serde_json::from_slice::<Vec<&RawValue>>(body), broken_pairs)?;
    let now = store.clock().now();
    let pairs = raw.into_iter().map(|item| pair(item, now));
    let pairs = pairs.collect::<Result<Vec<Pair>>>()?;
    let (count, mut batch, mut len) = (pairs.len(), WriteBatch::new(), 0);
    for pair in pairs {
        if len + pair.len > BATCH_BYTES_MAX {
            store.write(std::mem::take(&mut batch))?;
            len = 0;
        }
        len += pair.len;
        batch.put_with(ns, pair.key, pair.value, &pair.options);
    }
    store.write(batch)?;
    Ok(count)
}

/// Deletes all keys and returns how many were named. They fit one batch: a key is short.
fn bulk_delete(store: &Store, ns: &Namespace, body: &[u8]) -> Result<usize> {
    let text = "Request body must be a JSON array of key names";
    let keys = items(serde_json::from_slice::<Vec<String>>(body), || {
        Fault::new(400, 10012, text)
    })?;
    keys.iter().try_for_each(|key| kv::check_key(key))?;
    let mut batch = WriteBatch::new();
    for key in &keys {
        batch.delete(ns, key);
    }
    store.write(batch)?;
    Ok(keys.len())
}

fn bulk(count: usize) -> Response<Outgoing> {
    let result = format!("{{\"successful_key_count\":{count},\"unsuccessful_keys\":[]}}");
    envelope(&result, None)
}

fn envelope(result: &str, info: Option<&str>) -> Response<Outgoing> {
    let info = info.map_or(String::new(), |info| format!(",\"result_info\":{info}"));
    json(format!(
        "{{\"success\":true,\"errors\":[],\"messages\":[],\"result\":{result}{info}}}"
    ))
}

/// A fault in the envelope.
pub(crate) fn refuse(fault: &Fault) -> Response<Outgoing> {
    let (code, text) = (fault.code, kv::quote(&fault.text));
    // Cloudflare says this one in two sentences.
    let more = match code {
        7003 => r#",{"code":7000,"message":"No route for that URI"}"#,
        _ => "",
    };
    let mut response = json(format!(
        "{{\"success\":false,\"errors\":[{{\"code\":{code},\"message\":{text}}}{more}],\"messages\":[],\"result\":null}}"
    ));
    *response.status_mut() =
        StatusCode::from_u16(fault.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    come_back(fault, &mut response);
    response
}

fn json(text: String) -> Response<Outgoing> {
    let mut response = Response::new(whole(text));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
