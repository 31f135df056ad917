//! Sequences of requests in both dialects agree with a model of Workers KV: status, body and headers.

use std::collections::BTreeMap;

use rimstone::fuzzing::Input;
use serde_json::{Value, json};

use crate::server::{KEPT, NAMESPACES, Server};

/// Requests of one sequence at most.
const STEPS_MAX: usize = 24;

/// Keys that are allowed.
const KEYS: [&str; 11] = [
    "%2F", "+ plus", "...", "a", "a/b", "a?b=c&d", "ab\n", "b#", "key", "ä", "日本",
];
const METADATA: [&str; 5] = ["", "null", "{\"a\":1}", "[1.5, \"é\"]", "\"x\""];

/// What a namespace holds: value, metadata as it is shown, expiration.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    value: String,
    metadata: Option<Value>,
    expiration: Option<u64>,
}

struct Session<'a> {
    server: &'a Server,
    model: BTreeMap<String, Entry>,
}

/// A response, its head apart.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    /// What came on a connection that was closed after one response.
    fn parse(bytes: &[u8]) -> Answer {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.expect("a head");
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.strip_prefix("HTTP/1.1 ").expect("a response");
        let body = bytes[end + 4..].to_vec();
        let answer = Answer {
            status: status[..3].parse().expect("a status"),
            head,
            body,
        };
        let len = answer.header("content-length");
        assert_eq!(len, Some(answer.body.len().to_string().as_str()));
        answer
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        let mut fields = lines.filter_map(|line| line.split_once(": "));
        fields.find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The result in an envelope that says whether there is one.
    fn result(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        let mut envelope = self.json();
        let errors = envelope["errors"].as_array().expect("errors").len();
        assert_eq!(envelope["success"], self.status == 200);
        assert_eq!(errors == 0, self.status == 200);
        envelope["result"].take()
    }
}

/// Each step takes the bytes it needs.
pub fn kv_requests(data: &[u8]) {
    Server::with(|server| {
        let kept = Entry {
            value: KEPT.into(),
            metadata: None,
            expiration: None,
        };
        let mut session = Session {
            server,
            model: BTreeMap::from([("key".into(), kept)]),
        };
        let mut input = Input(data);
        for _ in 0..STEPS_MAX {
            if input.is_empty() {
                break;
            }
            session.step(&mut input);
        }
        let live = session.live();
        assert!(live.keys().map(|key| key.as_bytes()).eq(server.keys()));
    });
}

/// A key, and the status of a request for it if it is none.
fn key(input: &mut Input<'_>) -> Result<String, (String, u16)> {
    let n = input.u8();
    match n {
        240.. => Err(match n % 4 {
            0 => (String::new(), 400),
            1 => (".".into(), 400),
            2 => ("..".into(), 400),
            _ => ("k".repeat(513), 414),
        }),
        230..240 => Ok("k".repeat(512)),
        _ => Ok(KEYS[usize::from(n) % KEYS.len()].into()),
    }
}

/// A key as a path has it: everything escaped, or what need not be as it is.
fn escaped(key: &str, all: bool) -> String {
    let plain = |byte: u8| !all && byte.is_ascii_alphanumeric();
    let escape = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    key.bytes().map(escape).collect()
}

fn value(input: &mut Input<'_>) -> String {
    let (len, letter) = (usize::from(input.u8()), input.u8());
    // Some too long to travel in one piece.
    let len = if len == 255 { 70_000 } else { len };
    char::from(b'a' + letter % 26).to_string().repeat(len)
}

/// Metadata as it is sent, and as it is shown then; a status if it is refused.
fn metadata(input: &mut Input<'_>) -> (String, Result<Option<Value>, u16>) {
    let n = usize::from(input.u8() % 8);
    match METADATA.get(n) {
        Some(text) => {
            let value = serde_json::from_str(text).ok();
            let value = value.filter(|value| *value != Value::Null);
            (text.to_string(), Ok(value))
        }
        None if n == 5 => ("{".into(), Err(400)),
        None if n == 6 => (format!("\"{}\"", "m".repeat(1023)), Err(413)),
        None => {
            let text = "m".repeat(1022);
            (format!("\"{text}\""), Ok(Some(Value::from(text))))
        }
    }
}

impl Session<'_> {
    fn now(&self) -> u64 {
        self.server.clock.now()
    }

    fn live(&self) -> BTreeMap<String, Entry> {
        let now = self.now();
        let mut live = self.model.clone();
        live.retain(|_, entry| entry.expiration.is_none_or(|at| at > now));
        live
    }

    fn step(&mut self, input: &mut Input<'_>) {
        self.model = self.live();
        let (step, flags) = (input.u8() % 12, input.u8());
        match step {
            0..=2 => self.put(flags, input),
            3 => self.delete(flags, input),
            4 | 5 => self.get(flags, input),
            6 => self.metadata(flags, input),
            7 => self.list(flags, input),
            8 => self.bulk_put(flags, input),
            9 => self.bulk_delete(flags, input),
            10 => self.bulk_get(flags, input),
            _ => self.server.clock.advance(u64::from(input.u8())),
        }
    }

    /// One request on a connection of its own: of the REST API inside the namespace, or of the binding.
    fn ask(&self, rest: bool, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
        let (id, len) = (self.server.ns.id(), body.len());
        let root = match rest {
            true => format!("{NAMESPACES}/{id}"),
            false => String::new(),
        };
        let head = format!(
            "{method} {root}/{target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             x-kv-namespace: {id}\r\ncontent-length: {len}\r\n{headers}\r\n"
        );
        let sent = [head.as_bytes(), body].concat();
        Answer::parse(&self.server.send(sent))
    }

    /// Where a key is asked for.
    fn at(&self, rest: bool, flags: u8, key: &str) -> String {
        let key = escaped(key, flags & 2 != 0);
        if rest { format!("values/{key}") } else { key }
    }

    /// A query about time, and what follows from it; a status if it is refused.
    fn expiry(&self, input: &mut Input<'_>) -> (String, Result<Option<u64>, u16>) {
        let (kind, n) = (input.u8() % 12, u64::from(input.u8()));
        let at = self.now() + n;
        let kept = |allowed, at| if allowed { Ok(Some(at)) } else { Err(400) };
        match kind {
            0..=4 => (String::new(), Ok(None)),
            5 | 6 => (format!("expiration_ttl={n}"), kept(n >= 60, at)),
            7 | 8 => (format!("expiration={at}"), kept(n >= 60, at)),
            // The time to live wins.
            9 => (
                format!("expiration={at}&expiration_ttl=100"),
                Ok(Some(self.now() + 100)),
            ),
            10 => ("expiration_ttl=-60".into(), Err(400)),
            _ => ("expiration=1e12".into(), Err(400)),
        }
    }

    fn put(&mut self, flags: u8, input: &mut Input<'_>) {
        let (rest, key, value) = (flags & 1 != 0, key(input), value(input));
        let (query, expiration) = self.expiry(input);
        let (sent, metadata) = metadata(input);
        let form = rest && flags & 4 != 0;
        let mut headers = String::new();
        let mut body = value.clone().into_bytes();
        if form {
            headers = "content-type: multipart/form-data; boundary=B\r\n".into();
            let part = |name, content| {
                format!("--B\r\ncontent-disposition: form-data; name={name}\r\n\r\n{content}\r\n")
            };
            let parts = [part("value", &value), part("metadata", &sent)];
            body = [parts.concat().as_bytes(), b"--B--\r\n"].concat();
        } else if !rest && !sent.is_empty() {
            headers = format!("CF-KV-Metadata: {sent}\r\n");
        }
        let metadata = if rest && !form { Ok(None) } else { metadata };
        let name = key.clone().unwrap_or_else(|(name, _)| name);
        let target = format!("{}?{query}", self.at(rest, flags, &name));
        let answer = self.ask(rest, "PUT", &target, &headers, &body);
        let expected = key.map_err(|(_, status)| status).and_then(|key| {
            let (expiration, metadata) = (expiration?, metadata?);
            let entry = Entry {
                value,
                metadata,
                expiration,
            };
            Ok((key, entry))
        });
        match expected {
            Ok((key, entry)) => {
                assert_eq!(answer.status, 200, "{target}");
                drop(self.model.insert(key, entry));
            }
            Err(status) => assert_eq!(answer.status, status, "{target}"),
        }
        self.check_end(rest, &answer);
    }

    /// What follows the head of a write's or a refusal's answer.
    fn check_end(&self, rest: bool, answer: &Answer) {
        if rest {
            assert_eq!(answer.result(), Value::Null);
        } else {
            assert!(answer.body.is_empty());
        }
    }

    fn delete(&mut self, flags: u8, input: &mut Input<'_>) {
        let (rest, key) = (flags & 1 != 0, key(input));
        let (name, status) = match key {
            Ok(key) => (key, 200),
            Err((name, status)) => (name, status),
        };
        let answer = self.ask(rest, "DELETE", &self.at(rest, flags, &name), "", b"");
        // The root of a namespace is no key, and the path of no value no place.
        assert_eq!(answer.status, status, "{name}");
        self.check_end(rest, &answer);
        if status == 200 {
            self.model.remove(&name);
        }
    }

    fn get(&mut self, flags: u8, input: &mut Input<'_>) {
        let (rest, key) = (flags & 1 != 0, key(input));
        let name = key.clone().unwrap_or_else(|(name, _)| name);
        if !rest && name.is_empty() {
            return self.list(flags, input);
        }
        let target = self.at(rest, flags, &name);
        let (query, allowed) = match (rest, flags >> 2 & 3) {
            (false, 1) => ("?cache_ttl=60", true),
            (false, 2) => ("?cache_ttl=29", false),
            _ => ("", true),
        };
        let answer = self.ask(rest, "GET", &format!("{target}{query}"), "", b"");
        let entry = self.model.get(&name);
        let status = match (&key, allowed, entry) {
            (Err((_, status)), ..) => *status,
            (_, false, _) => 400,
            (.., None) => 404,
            (.., Some(_)) => 200,
        };
        assert_eq!(answer.status, status, "{target}{query}");
        let Some(entry) = entry.filter(|_| status == 200) else {
            return self.check_end(rest, &answer);
        };
        assert_eq!(answer.body, entry.value.as_bytes());
        let expiration = entry.expiration.map(|at| at.to_string());
        let name = if rest { "expiration" } else { "cf-expiration" };
        assert_eq!(answer.header(name), expiration.as_deref());
        if !rest {
            let shown = answer.header("cf-kv-metadata");
            let shown = shown.map(|text| serde_json::from_str(text).expect("JSON"));
            assert_eq!(shown, entry.metadata);
        }
    }

    fn metadata(&mut self, flags: u8, input: &mut Input<'_>) {
        let key = key(input);
        let name = key.clone().unwrap_or_else(|(name, _)| name);
        let target = format!("metadata/{}", escaped(&name, flags & 2 != 0));
        let answer = self.ask(true, "GET", &target, "", b"");
        match (key, self.model.get(&name)) {
            (Err((_, status)), _) => assert_eq!(answer.status, status),
            (_, None) => assert_eq!(answer.status, 404),
            (_, Some(entry)) => {
                assert_eq!(answer.status, 200);
                assert_eq!(answer.result(), json!(entry.metadata));
            }
        }
    }

    /// Lists page by page, and compares all of it.
    fn list(&mut self, flags: u8, input: &mut Input<'_>) {
        let rest = flags & 1 != 0;
        let prefix = ["", "a", "...", "ä"][usize::from(input.u8()) % 4];
        let limit = u64::from(input.u8()) % 24;
        let name = if rest { "limit" } else { "key_count_limit" };
        let least = if rest { 10 } else { 1 };
        let path = if rest { "keys" } else { "" };
        let target = format!("{path}?prefix={}&{name}={limit}", escaped(prefix, true));
        let (mut listed, mut cursor) = (Vec::new(), String::new());
        loop {
            let answer = self.ask(rest, "GET", &format!("{target}&cursor={cursor}"), "", b"");
            if limit < least {
                assert_eq!(answer.status, 400, "{target}");
                return self.check_end(rest, &answer);
            }
            assert_eq!(answer.status, 200, "{target}");
            let page = answer.json();
            let (keys, next) = match rest {
                true => (&page["result"], &page["result_info"]["cursor"]),
                false => (&page["keys"], &page["cursor"]),
            };
            let keys = keys.as_array().expect("keys");
            assert!(keys.len() as u64 <= limit);
            listed.extend(keys.iter().cloned());
            cursor = next.as_str().unwrap_or_default().to_owned();
            if rest {
                assert_eq!(page["result_info"]["count"], keys.len());
            } else {
                assert_eq!(page["list_complete"], cursor.is_empty());
            }
            if cursor.is_empty() {
                break;
            }
        }
        let expected = self.model.iter().filter(|(key, _)| key.starts_with(prefix));
        let expected: Vec<_> = expected
            .map(|(key, entry)| shown(rest, key, entry))
            .collect();
        assert_eq!(listed, expected);
    }

    fn bulk_put(&mut self, flags: u8, input: &mut Input<'_>) {
        let (mut pairs, mut after) = (Vec::new(), self.model.clone());
        let mut refused = None;
        for _ in 0..input.u8() % 6 {
            let (key, value, encoded) = (key(input), value(input), flags & 2 != 0);
            let (name, fault) = match key {
                Ok(key) => (key, None),
                Err((key, status)) => (key, Some(status)),
            };
            let (ttl, (sent, metadata)) = (u64::from(input.u8()), metadata(input));
            let mut pair = json!({"key": name, "value": value});
            if encoded {
                use base64::Engine as _;
                let text = base64::engine::general_purpose::STANDARD.encode(&value);
                pair["value"] = text.into();
                pair["base64"] = true.into();
            }
            if ttl != 0 {
                pair["expiration_ttl"] = ttl.into();
            }
            // What is no JSON could not be sent.
            let metadata = match serde_json::from_str::<Value>(&sent) {
                Ok(value) => {
                    pair["metadata"] = value;
                    metadata
                }
                Err(_) => Ok(None),
            };
            let time = if (1..60).contains(&ttl) {
                Some(400)
            } else {
                None
            };
            refused = refused
                .or(fault)
                .or(time)
                .or(metadata.as_ref().err().copied());
            pairs.push(pair);
            let entry = Entry {
                value,
                metadata: metadata.unwrap_or_default(),
                expiration: (ttl != 0).then(|| self.now() + ttl),
            };
            after.insert(name, entry);
        }
        let body = Value::from(pairs.clone()).to_string();
        let answer = self.ask(true, "PUT", "bulk", "", body.as_bytes());
        assert_eq!(answer.status, refused.unwrap_or(200), "{body}");
        let result = answer.result();
        if refused.is_none() {
            assert_eq!(result["successful_key_count"], pairs.len());
            self.model = after;
        }
    }

    fn bulk_delete(&mut self, flags: u8, input: &mut Input<'_>) {
        let (names, refused) = keys(input);
        let body = json!(names).to_string();
        let (method, path) = match flags & 1 {
            0 => ("POST", "bulk/delete"),
            _ => ("DELETE", "bulk"),
        };
        let answer = self.ask(true, method, path, "", body.as_bytes());
        assert_eq!(answer.status, refused.unwrap_or(200), "{body}");
        let result = answer.result();
        if refused.is_none() {
            assert_eq!(result["successful_key_count"], names.len());
            names.iter().for_each(|name| drop(self.model.remove(name)));
        }
    }

    fn bulk_get(&mut self, flags: u8, input: &mut Input<'_>) {
        let (rest, with_metadata) = (flags & 1 != 0, flags & 2 != 0);
        let (names, refused) = keys(input);
        let refused = if names.is_empty() { Some(400) } else { refused };
        let body = json!({"keys": names, "type": "text", "withMetadata": with_metadata});
        let body = body.to_string();
        let answer = self.ask(rest, "POST", "bulk/get", "", body.as_bytes());
        assert_eq!(answer.status, refused.unwrap_or(200), "{body}");
        if refused.is_some() {
            return self.check_end(rest, &answer);
        }
        let values = match rest {
            true => answer.result()["values"].take(),
            false => answer.json(),
        };
        let expected = names.iter().map(|name| {
            let entry = self.model.get(name);
            let shown = entry.map(|entry| match (with_metadata, entry.expiration) {
                (false, _) => json!(entry.value),
                (true, None) => json!({"value": entry.value, "metadata": entry.metadata}),
                (true, Some(at)) => {
                    json!({"value": entry.value, "metadata": entry.metadata, "expiration": at})
                }
            });
            (name.clone(), json!(shown))
        });
        assert_eq!(values, Value::Object(expected.collect()));
    }
}

/// Up to five names, and the status if one is no key.
fn keys(input: &mut Input<'_>) -> (Vec<String>, Option<u16>) {
    let (mut names, mut refused) = (Vec::new(), None);
    for _ in 0..input.u8() % 6 {
        let (name, fault) = match key(input) {
            Ok(key) => (key, None),
            Err((key, status)) => (key, Some(status)),
        };
        refused = refused.or(fault);
        names.push(name);
    }
    (names, refused)
}

/// A key as a list shows it; the metadata is a string of JSON to the binding.
fn shown(rest: bool, key: &str, entry: &Entry) -> Value {
    let mut shown = json!({"name": key});
    if let Some(at) = entry.expiration {
        shown["expiration"] = at.into();
    }
    if let Some(metadata) = &entry.metadata {
        // It keeps the text it came with, but for spaces.
        let text = METADATA.iter().find_map(|text| {
            let same = serde_json::from_str::<Value>(text).ok().as_ref() == Some(metadata);
            same.then(|| text.replace(", ", ","))
        });
        let text = text.unwrap_or_else(|| metadata.to_string());
        shown["metadata"] = if rest { metadata.clone() } else { text.into() };
    }
    shown
}
