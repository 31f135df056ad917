//! The REST API.

use serde_json::{Value, json};

use crate::support::{MIB_25, NAMESPACES, Running, start};

const NO_NAMESPACE: &str = "/00000000000000000000000000000000";

/// The result of a request that must succeed with exactly the members of an envelope.
fn result(server: &Running, method: &str, path: &str, body: &str) -> Value {
    let answer = server.rest(method, path, body.as_bytes());
    let body = answer.json();
    assert_eq!(answer.line, "200 OK", "{body}");
    assert!(answer.head.contains("content-type: application/json"));
    let (result, info) = (body["result"].clone(), body.get("result_info"));
    let mut whole = json!({"success": true, "errors": [], "messages": [], "result": result});
    if let Some(info) = info {
        whole["result_info"] = info.clone();
    }
    assert_eq!(body, whole);
    result
}

/// Asserts a refusal inside the namespace `ns`.
#[track_caller]
fn refused(server: &Running, line: &str, body: &[u8], status: u16, code: u64, text: &str) {
    let (method, path) = line.split_once(' ').unwrap();
    let refusal = server.inside(method, path, body).refusal();
    assert_eq!(refusal, (status, code, text.to_owned()), "{line}");
}

impl Running {
    fn path(&self, rest: &str) -> String {
        format!("/{}/{rest}", self.id)
    }

    fn value(&self, key: &str) -> Option<Vec<u8>> {
        let value = self.store.find_namespace("ns").unwrap().get(key).unwrap();
        value.map(|value| value.to_vec())
    }
}

#[test]
fn a_namespace_is_created_shown_renamed_and_removed() {
    let server = start(None);
    let made = result(&server, "POST", "", r#"{"title":"flags"}"#);
    let id = made["id"].as_str().unwrap();
    let path = format!("/{id}");
    assert_eq!(id.len(), 32);
    assert_eq!(
        made,
        json!({"id": id, "title": "flags", "supports_url_encoding": true})
    );
    assert_eq!(result(&server, "GET", &path, ""), made);
    let renamed = result(&server, "PUT", &path, r#"{"title":"flags 2"}"#);
    assert_eq!(renamed["title"], "flags 2");
    assert_eq!(result(&server, "DELETE", &path, ""), Value::Null);
    let gone = (
        404,
        10013,
        "get namespace: 'namespace not found'".to_owned(),
    );
    assert_eq!(server.rest("GET", &path, b"").refusal(), gone);
}

#[test]
fn namespaces_are_listed_in_pages_until_an_empty_one() {
    let server = start(None);
    for title in ["c", "a", "b"] {
        result(&server, "POST", "", &format!("{{\"title\":\"{title}\"}}"));
    }
    let titles = |query: &str| {
        let page = result(&server, "GET", query, "");
        let titles = page.as_array().unwrap().iter();
        titles
            .map(|ns| ns["title"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        titles("?per_page=3&order=title&direction=asc"),
        ["a", "b", "c"]
    );
    assert_eq!(
        titles("?per_page=3&order=title&direction=asc&page=2"),
        ["ns"]
    );
    assert!(titles("?per_page=3&order=title&direction=asc&page=3").is_empty());
    assert_eq!(titles("?order=title&direction=desc&per_page=1000")[0], "ns");
    let info = &server.rest("GET", "", b"").json()["result_info"];
    assert_eq!(info["per_page"], 20);
    let info = &server.rest("GET", "?per_page=3&page=2", b"").json()["result_info"];
    let whole = json!({"page": 2, "per_page": 3, "count": 1, "total_count": 4, "total_pages": 2});
    assert_eq!(*info, whole);
}

#[test]
fn broken_listings_of_namespaces_are_refused() {
    let server = start(None);
    for (query, code) in [
        ("?page=0", 10028),
        ("?page=x", 10028),
        ("?per_page=1001", 10028),
        ("?per_page=-1", 10028),
        ("?order=size", 10043),
        ("?direction=up", 10044),
    ] {
        let (status, given, _) = server.rest("GET", query, b"").refusal();
        assert_eq!((status, given), (400, code), "{query}");
    }
}

#[test]
fn a_title_is_needed_short_and_not_taken() {
    let server = start(None);
    let create = |body: &str| server.rest("POST", "", body.as_bytes()).refusal();
    let missing = (
        400,
        10019,
        "request is missing a title definition".to_owned(),
    );
    for body in ["{}", r#"{"title":""}"#, r#"{"title":7}"#] {
        assert_eq!(create(body), missing, "{body}");
    }
    let broken = (400, 10012, "Request body must be a JSON object".to_owned());
    for body in ["", "{", "[]", "null", r#"["title"]"#] {
        assert_eq!(create(body), broken, "{body}");
    }
    let title = |len| format!("{{\"title\":\"{}\"}}", "ä".repeat(len));
    let long = (400, 10019, "a title has at most 512 characters".to_owned());
    assert_eq!(create(&title(513)), long);
    result(&server, "POST", "", &title(512));
    let taken = "a namespace with this account ID and title already exists";
    let told = |op: &str| (400, 10014, format!("{op} namespace: '{taken}'"));
    assert_eq!(create(r#"{"title":"ns"}"#), told("create"));
    let other = result(&server, "POST", "", r#"{"title":"other"}"#);
    let path = format!("/{}", other["id"].as_str().unwrap());
    let renamed = server.rest("PUT", &path, br#"{"title":"ns"}"#).refusal();
    assert_eq!(renamed, told("rename"));
}

#[test]
fn an_unknown_namespace_is_named_by_the_operation() {
    let server = start(None);
    for (op, method, part) in [
        ("get namespace", "GET", ""),
        ("rename namespace", "PUT", ""),
        ("remove namespace", "DELETE", ""),
        ("list keys", "GET", "/keys"),
        ("get", "GET", "/values/k"),
        ("put", "PUT", "/values/k"),
        ("remove key", "DELETE", "/values/k"),
        ("get metadata", "GET", "/metadata/k"),
        ("bulk put keys", "PUT", "/bulk"),
        ("bulk remove keys", "DELETE", "/bulk"),
        ("bulk remove keys", "POST", "/bulk/delete"),
        ("bulk get keys", "POST", "/bulk/get"),
    ] {
        let refusal = server
            .rest(method, &format!("{NO_NAMESPACE}{part}"), b"")
            .refusal();
        assert_eq!(
            refusal,
            (404, 10013, format!("{op}: 'namespace not found'"))
        );
    }
    let text = "could not parse UUID from request's namespace_id: 'invalid namespace format: ns'";
    let refusal = server.rest("GET", "/ns/keys", b"").refusal();
    assert_eq!(refusal, (400, 10011, text.to_owned()));
}

#[test]
fn a_value_is_put_read_and_deleted() {
    let server = start(None);
    assert_eq!(
        result(&server, "PUT", &server.path("values/k"), "v"),
        Value::Null
    );
    let got = server.inside("GET", "values/k", b"");
    assert_eq!((got.line.as_str(), got.text()), ("200 OK", "v"));
    assert!(
        got.head.contains("content-type: application/octet-stream"),
        "{}",
        got.head
    );
    assert!(!got.head.contains("expiration"), "{}", got.head);
    assert_eq!(
        result(&server, "DELETE", &server.path("values/k"), ""),
        Value::Null
    );
    assert_eq!(
        result(&server, "DELETE", &server.path("values/k"), ""),
        Value::Null
    );
    refused(
        &server,
        "GET values/k",
        b"",
        404,
        10009,
        "get: 'key not found'",
    );
    refused(
        &server,
        "GET metadata/k",
        b"",
        404,
        10009,
        "get metadata: 'key not found'",
    );
}

#[test]
fn the_content_type_of_a_raw_body_means_nothing() {
    let server = start(None);
    let line = format!("PUT {NAMESPACES}/{}/values/k", server.id);
    for kind in [
        "application/json",
        "text/plain;charset=UTF-8",
        "application/x-www-form-urlencoded",
    ] {
        let headers =
            format!("content-type: {kind}\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n");
        assert_eq!(server.raw(&line, &headers, b"{a=").line, "200 OK");
        assert_eq!(server.value("k").unwrap(), b"{a=");
    }
}

#[test]
fn a_form_stores_value_metadata_and_expiration() {
    let server = start(None);
    let form = b"--B\r\ncontent-disposition: form-data; name=\"metadata\"\r\ncontent-type: application/json\r\n\r\n{ \"n\": 1.50 }\r\n\
        --B\r\ncontent-disposition: form-data; name=\"value\"; filename=\"blob\"\r\n\r\n\x00\xff\r\n\
        --B\r\ncontent-disposition: form-data; name=\"expiration_ttl\"\r\n\r\n600\r\n--B--\r\n";
    assert_eq!(server.form("values/k", form).line, "200 OK");
    let got = server.inside("GET", "values/k", b"");
    assert_eq!(got.body, b"\x00\xff");
    assert!(got.head.contains("\r\nexpiration: "), "{}", got.head);
    let metadata = server.inside("GET", "metadata/k", b"");
    assert!(
        metadata.text().contains(r#""result":{"n":1.50}}"#),
        "{}",
        metadata.text()
    );
    let listed = result(&server, "GET", &server.path("keys"), "");
    assert_eq!(listed[0]["metadata"], json!({"n": 1.5}));
    assert!(listed[0]["expiration"].is_u64());
    // A plain put afterwards leaves nothing of either.
    server.inside("PUT", "values/k", b"v");
    assert_eq!(
        result(&server, "GET", &server.path("metadata/k"), ""),
        Value::Null
    );
    assert_eq!(
        result(&server, "GET", &server.path("keys"), ""),
        json!([{"name": "k"}])
    );
}

#[test]
fn of_parts_with_one_name_the_last_counts() {
    let server = start(None);
    let part = |value: &str| {
        format!("--B\r\ncontent-disposition: form-data; name=\"value\"\r\n\r\n{value}\r\n")
    };
    let form = format!("{}{}--B--\r\n", part("first"), part("last"));
    assert_eq!(server.form("values/k", form.as_bytes()).line, "200 OK");
    assert_eq!(server.value("k").unwrap(), b"last");
}

#[test]
fn a_form_in_brackets_becomes_an_object_of_strings() {
    let server = start(None);
    let form = b"--B\r\ncontent-disposition: form-data; name=\"value\"\r\n\r\nv\r\n\
        --B\r\ncontent-disposition: form-data; name=\"metadata[a]\"\r\n\r\n1\r\n--B--\r\n";
    assert_eq!(server.form("values/k", form).line, "200 OK");
    assert_eq!(
        result(&server, "GET", &server.path("metadata/k"), ""),
        json!({"a": "1"})
    );
}

#[test]
fn a_broken_form_stores_nothing() {
    let server = start(None);
    let value = "--B\r\ncontent-disposition: form-data; name=\"value\"\r\n\r\nv";
    let with = |name: &str, text: &str| {
        format!(
            "{value}\r\n--B\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n--B--\r\n"
        )
    };
    for (form, status, code) in [
        (String::new(), 400, 10012),
        ("v".to_owned(), 400, 10012),
        ("--B--\r\n".to_owned(), 400, 10012),
        ("--B\r\n".to_owned(), 400, 10012),
        ("--B\r\n\r\nv\r\n--B--\r\n".to_owned(), 400, 10012),
        (value.to_owned(), 400, 10012),
        (format!("{value}\r\n--C--\r\n"), 400, 10012),
        (with("value", "w").replace("value", "valeu"), 400, 10012),
        (with("metadata", "{"), 400, 10047),
        (
            with("metadata", &format!("\"{}\"", "m".repeat(1023))),
            413,
            10047,
        ),
        (
            with(&format!("metadata[a{}]", "][a".repeat(16)), "m"),
            400,
            10047,
        ),
        (with("metadata[a", "m"), 400, 10047),
        (with("expiration_ttl", "59"), 400, 10034),
        (with("expiration", "x"), 400, 10033),
        (with("name", &"n".repeat(MIB_25 + (1 << 20))), 413, 10024),
        (with("value", &"v".repeat(MIB_25 + 1)), 413, 10024),
    ] {
        let (given, code_given, text) = server.form("values/k", form.as_bytes()).refusal();
        let start: String = form.chars().take(200).collect();
        assert_eq!((given, code_given), (status, code), "{text}: {start}");
        assert_eq!(server.keys(), 0, "{start}");
    }
    let line = format!("PUT {NAMESPACES}/{}/values/k", server.id);
    let headers = "content-type: multipart/form-data\r\ncontent-length: 0\r\n";
    let (_, code, text) = server.raw(&line, headers, b"").refusal();
    assert_eq!(
        (code, text.as_str()),
        (10012, "The form's content type has no boundary")
    );
}

#[test]
fn keys_are_listed_in_pages() {
    let server = start(None);
    let pairs: Vec<Value> = (0..25)
        .map(|n| json!({"key": format!("k{n:02}"), "value": ""}))
        .collect();
    let done = result(
        &server,
        "PUT",
        &server.path("bulk"),
        &json!(pairs).to_string(),
    );
    assert_eq!(
        done,
        json!({"successful_key_count": 25, "unsuccessful_keys": []})
    );
    let (mut cursor, mut sizes) = (String::new(), Vec::new());
    loop {
        let path = server.path(&format!("keys?limit=10&prefix=k&cursor={cursor}"));
        let page = server.rest("GET", &path, b"").json();
        let info = &page["result_info"];
        assert_eq!(info["count"], page["result"].as_array().unwrap().len());
        sizes.push(info["count"].as_u64().unwrap());
        cursor = info["cursor"].as_str().unwrap().to_owned();
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(sizes, [10, 10, 5]);
}

#[test]
fn a_limit_out_of_bounds_is_refused() {
    let server = start(None);
    for (limit, rule) in [
        ("1001", "less than 1000"),
        ("9", "greater than 9"),
        ("x", "greater than 9"),
    ] {
        let text = format!("Invalid key_count_limit of {limit}. Please specify an integer {rule}.");
        refused(
            &server,
            &format!("GET keys?limit={limit}"),
            b"",
            400,
            10028,
            &text,
        );
    }
    assert_eq!(server.inside("GET", "keys?limit=1000", b"").status(), 200);
    assert_eq!(server.inside("GET", "keys?limit=10", b"").status(), 200);
}

#[test]
fn a_prefix_has_at_most_512_bytes_of_utf8() {
    let server = start(None);
    let keys = |prefix: &str| format!("GET keys?prefix={prefix}");
    let text = "UTF-8 encoded length of 513 exceeds key length limit of 512.";
    refused(&server, &keys(&"p".repeat(513)), b"", 414, 10030, text);
    assert_eq!(
        server
            .inside("GET", &format!("keys?prefix={}", "p".repeat(512)), b"")
            .status(),
        200
    );
    let text = "Could not URL-decode the query";
    refused(&server, &keys("%FF"), b"", 400, 10042, text);
}

#[test]
fn a_cursor_that_is_forged_or_foreign_is_refused() {
    let server = start(None);
    let pairs: Vec<Value> = (0..20)
        .map(|n| json!({"key": format!("k{n:02}"), "value": ""}))
        .collect();
    result(
        &server,
        "PUT",
        &server.path("bulk"),
        &json!(pairs).to_string(),
    );
    let page = server.inside("GET", "keys?limit=10&prefix=k", b"").json();
    let cursor = page["result_info"]["cursor"].as_str().unwrap();
    let broken = |path: &str| {
        refused(
            &server,
            &format!("GET {path}"),
            b"",
            400,
            10041,
            "Invalid cursor",
        )
    };
    broken("keys?cursor=nonsense");
    broken("keys?cursor=%00");
    broken(&format!("keys?prefix=k&cursor={cursor}A"));
    broken(&format!("keys?prefix=k0&cursor={cursor}"));
    broken(&format!("keys?cursor={cursor}"));
    let mut forged = cursor.to_owned();
    let last = if forged.ends_with('A') { "B" } else { "A" };
    forged.replace_range(..1, if forged.starts_with('A') { "B" } else { "A" });
    broken(&format!("keys?prefix=k&cursor={forged}"));
    forged = format!("{}{last}", &cursor[..cursor.len() - 1]);
    let changed = server.inside("GET", &format!("keys?prefix=k&cursor={forged}"), b"");
    assert_eq!(changed.status(), 400, "{}", changed.text());
    let other = result(&server, "POST", "", r#"{"title":"other"}"#);
    let path = format!(
        "/{}/keys?prefix=k&cursor={cursor}",
        other["id"].as_str().unwrap()
    );
    assert_eq!(server.rest("GET", &path, b"").refusal().1, 10041);
    assert_eq!(
        server
            .inside("GET", &format!("keys?prefix=k&cursor={cursor}"), b"")
            .status(),
        200
    );
}

#[test]
fn a_hostile_key_is_refused_or_stored_exactly() {
    let server = start(None);
    let long = "k".repeat(512);
    for (raw, key) in [
        ("%00", "\0"),
        ("a%00b%0A%0D", "a\0b\n\r"),
        ("..%2F..%2Fetc%2Fpasswd", "../../etc/passwd"),
        ("../../x", "../../x"),
        ("a//b/", "a//b/"),
        ("/", "/"),
        ("%252F", "%2F"),
        ("a+b:c@d,e=f", "a+b:c@d,e=f"),
        ("%E2%82%AC", "€"),
        ("bulk/get", "bulk/get"),
        (&long, &long),
    ] {
        for value in [raw, ""] {
            let put = server.inside("PUT", &format!("values/{raw}"), value.as_bytes());
            assert_eq!(put.line, "200 OK", "{raw}");
            assert_eq!(server.value(key).unwrap(), value.as_bytes(), "{raw}");
            assert_eq!(
                server.inside("GET", &format!("values/{raw}"), b"").text(),
                value
            );
        }
        assert_eq!(
            server
                .inside("GET", &format!("metadata/{raw}"), b"")
                .status(),
            200
        );
        let listed = result(&server, "GET", &server.path("keys"), "");
        assert_eq!(listed, json!([{"name": key}]));
        server.inside("DELETE", &format!("values/{raw}"), b"");
        assert_eq!(server.keys(), 0, "{raw}");
    }
    let undecodable = (400, 10042, "Could not URL-decode key name");
    for (raw, (status, code, text)) in [
        ("", (400, 10042, "Key names must not be empty")),
        (".", (400, 10042, "\".\" is not allowed as a key name.")),
        (
            "%2E%2e",
            (400, 10042, "\"..\" is not allowed as a key name."),
        ),
        ("%FF", undecodable),
        ("%ED%A0%80", undecodable),
        ("%C0%AF", undecodable),
        ("%", undecodable),
        ("%2", undecodable),
        ("%zz", undecodable),
        (
            &"k".repeat(513),
            (
                414,
                10030,
                "UTF-8 encoded length of 513 exceeds key length limit of 512.",
            ),
        ),
        (
            &"%C3%A4".repeat(257),
            (
                414,
                10030,
                "UTF-8 encoded length of 514 exceeds key length limit of 512.",
            ),
        ),
    ] {
        refused(
            &server,
            &format!("PUT values/{raw}"),
            b"v",
            status,
            code,
            text,
        );
        refused(
            &server,
            &format!("GET values/{raw}"),
            b"",
            status,
            code,
            text,
        );
        refused(
            &server,
            &format!("GET metadata/{raw}"),
            b"",
            status,
            code,
            text,
        );
        refused(
            &server,
            &format!("DELETE values/{raw}"),
            b"",
            status,
            code,
            text,
        );
    }
    assert_eq!(server.keys(), 0);
}

#[test]
fn expirations_too_near_are_refused() {
    let server = start(None);
    let now = server.store.clock().now();
    let ttl = |n: &str| format!("Invalid expiration_ttl of {n}. ");
    let at = |n: &str| format!("Invalid expiration of {n}. ");
    let near = (now + 30).to_string();
    let positive = "Please specify integer greater than 0.";
    let future =
        "Please specify integer greater than the current number of seconds since the UNIX epoch.";
    for (query, code, start, rule) in [
        (
            "expiration_ttl=59",
            10034,
            ttl("59"),
            "Expiration TTL must be at least 60.",
        ),
        ("expiration_ttl=0", 10034, ttl("0"), positive),
        ("expiration_ttl=-60", 10034, ttl("-60"), positive),
        ("expiration_ttl=NaN", 10034, ttl("NaN"), positive),
        ("expiration_ttl=1e3", 10034, ttl("1e3"), positive),
        ("expiration_ttl=", 10034, ttl(""), positive),
        (
            "expiration_ttl=99999999999999999999",
            10034,
            ttl("99999999999999999999"),
            positive,
        ),
        ("expiration=1", 10033, at("1"), future),
        ("expiration=x", 10033, at("x"), future),
        (
            &format!("expiration={near}"),
            10033,
            at(&near),
            "Expiration times must be at least 60 seconds in the future.",
        ),
    ] {
        let text = format!("{start}{rule}");
        refused(
            &server,
            &format!("PUT values/k?{query}"),
            b"v",
            400,
            code,
            &text,
        );
    }
    assert_eq!(server.keys(), 0);
    // The time to live wins, and 60 is enough.
    assert_eq!(
        server
            .inside("PUT", "values/k?expiration=1&expiration_ttl=60", b"v")
            .status(),
        200
    );
}

#[test]
fn a_value_over_25_mib_is_refused_declared_or_chunked() {
    let server = start(None);
    let text = "Value length of 26214401 exceeds limit of 26214400.";
    refused(
        &server,
        "PUT values/k",
        &vec![7; MIB_25 + 1],
        413,
        10024,
        text,
    );
    let line = format!("PUT {NAMESPACES}/{}/values/k", server.id);
    let chunked = "transfer-encoding: chunked\r\n";
    let (status, code, text) = server.raw(&line, chunked, &chunk(MIB_25 + 1)).refusal();
    assert_eq!((status, code), (413, 10024));
    assert!(text.starts_with("Value length of 262144"), "{text}");
    assert_eq!(server.keys(), 0);
    assert_eq!(server.raw(&line, chunked, &chunk(MIB_25)).status(), 200);
    assert_eq!(server.value("k").unwrap().len(), MIB_25);
}

fn chunk(len: usize) -> Vec<u8> {
    let mut body = format!("{len:x}\r\n").into_bytes();
    body.resize(body.len() + len, 7);
    body.extend_from_slice(b"\r\n0\r\n\r\n");
    body
}

#[test]
fn a_body_shorter_than_declared_stores_nothing() {
    let server = start(None);
    server.inside("PUT", "values/k", b"old");
    for (kind, path, sent) in [
        ("", "values/k", 0),
        ("", "values/k", 9),
        ("", "values/k", 1 << 20),
        (
            "content-type: multipart/form-data; boundary=B\r\n",
            "values/k",
            9,
        ),
        ("", "bulk", 9),
    ] {
        let len = sent + 1;
        let line = format!(
            "PUT {NAMESPACES}/{}/{path} HTTP/1.1\r\nhost: x\r\n",
            server.id
        );
        let head = format!("{line}{kind}content-length: {len}\r\n\r\n");
        server.send(&[head.as_bytes(), &vec![b' '; sent]]);
        let head = format!("{line}{kind}transfer-encoding: chunked\r\n\r\n{len:x}\r\n");
        server.send(&[head.as_bytes(), &vec![b' '; sent]]);
        assert_eq!(server.value("k").unwrap(), b"old");
        assert_eq!(server.keys(), 1);
    }
}

#[test]
fn a_bulk_put_takes_text_base64_metadata_and_expiration() {
    let server = start(None);
    let pairs = r#"[{"key":"a","value":"text"},
        {"key":"b","value":"AP8","base64":true,"metadata":{"n":1.50},"expiration_ttl":60},
        {"key":"c","value":"AP8=","base64":false,"metadata":null,"expiration":null}]"#;
    let done = result(&server, "PUT", &server.path("bulk"), pairs);
    assert_eq!(
        done,
        json!({"successful_key_count": 3, "unsuccessful_keys": []})
    );
    assert_eq!(server.value("a").unwrap(), b"text");
    assert_eq!(server.value("b").unwrap(), b"\x00\xff");
    assert_eq!(server.value("c").unwrap(), b"AP8=");
    let listed = result(&server, "GET", &server.path("keys"), "");
    assert_eq!(listed[1]["metadata"], json!({"n": 1.5}));
    assert!(listed[1]["expiration"].is_u64());
}

#[test]
fn a_bulk_put_with_one_broken_pair_stores_nothing() {
    let server = start(None);
    let shape = "Request body must be a JSON array of objects with the strings key and value";
    let long = json!({"key": "k".repeat(513), "value": ""}).to_string();
    let heavy = json!({"key": "k", "value": "", "metadata": "m".repeat(1023)}).to_string();
    let big = json!({"key": "k", "value": "v".repeat(MIB_25 + 1)}).to_string();
    for (pair, status, code, text) in [
        ("7", 400, 10012, shape),
        ("null", 400, 10012, shape),
        ("{}", 400, 10012, shape),
        (r#"{"key":"k"}"#, 400, 10012, shape),
        (r#"{"key":7,"value":""}"#, 400, 10012, shape),
        (r#"{"key":"k","value":7}"#, 400, 10012, shape),
        (
            r#"{"key":"k","value":"AA","base64":"true"}"#,
            400,
            10012,
            shape,
        ),
        (r#"["k","v"]"#, 400, 10012, shape),
        (r#"{"key":"k","value":"\ud800"}"#, 400, 10012, shape),
        (
            r#"{"key":"k","value":"?","base64":true}"#,
            400,
            10012,
            "The value of \"k\" is not valid base64",
        ),
        (
            r#"{"key":"","value":""}"#,
            400,
            10042,
            "Key names must not be empty",
        ),
        (
            r#"{"key":"..","value":""}"#,
            400,
            10042,
            "\"..\" is not allowed as a key name.",
        ),
        (
            &long,
            414,
            10030,
            "UTF-8 encoded length of 513 exceeds key length limit of 512.",
        ),
        (
            &heavy,
            413,
            10047,
            "Metadata length of 1025 exceeds limit of 1024.",
        ),
        (
            &big,
            413,
            10024,
            "Value length of 26214401 exceeds limit of 26214400.",
        ),
        (
            r#"{"key":"k","value":"","expiration_ttl":59}"#,
            400,
            10034,
            "Invalid expiration_ttl of 59. Expiration TTL must be at least 60.",
        ),
        (
            r#"{"key":"k","value":"","expiration":1}"#,
            400,
            10033,
            "Invalid expiration of 1. Please specify integer greater than the current number of seconds since the UNIX epoch.",
        ),
    ] {
        let body = format!("[{{\"key\":\"first\",\"value\":\"\"}},{pair}]");
        refused(&server, "PUT bulk", body.as_bytes(), status, code, text);
        assert_eq!(server.keys(), 0);
    }
    for body in [
        "",
        "{",
        "{}",
        "[",
        "[1,",
        "\"x\"",
        "[{\"key\":\"a\",\"value\":\"\"}]x",
        "\u{feff}[]",
    ] {
        refused(&server, "PUT bulk", body.as_bytes(), 400, 10012, shape);
    }
    refused(&server, "PUT bulk", b"\xff", 400, 10012, shape);
}

#[test]
fn a_bulk_delete_has_two_forms() {
    let server = start(None);
    for (method, path) in [("POST", "bulk/delete"), ("DELETE", "bulk")] {
        for key in ["a", "b", "c"] {
            server.inside("PUT", &format!("values/{key}"), b"");
        }
        let done = result(
            &server,
            method,
            &server.path(path),
            r#"["a","b","missing"]"#,
        );
        assert_eq!(
            done,
            json!({"successful_key_count": 3, "unsuccessful_keys": []})
        );
        let line = format!("{method} {path}");
        let shape = "Request body must be a JSON array of key names";
        for body in ["", "{}", "[1]", "[null]", r#"["c",{}]"#, r#"["c""#] {
            refused(&server, &line, body.as_bytes(), 400, 10012, shape);
        }
        refused(
            &server,
            &line,
            br#"["c",""]"#,
            400,
            10042,
            "Key names must not be empty",
        );
        assert_eq!(server.keys(), 1);
    }
}

#[test]
fn a_bulk_request_has_at_most_10_000_items_and_may_have_none() {
    let server = start(None);
    let told = |op| format!("bulk {op} keys: 'You can send a maximum of 10000 keys'");
    let (put, remove) = (&told("put"), &told("remove"));
    let pairs = |count| json!(vec![json!({"key": "k", "value": ""}); count]).to_string();
    refused(
        &server,
        "PUT bulk",
        pairs(10_001).as_bytes(),
        400,
        10029,
        put,
    );
    assert_eq!(server.keys(), 0);
    let done = result(&server, "PUT", &server.path("bulk"), &pairs(10_000));
    assert_eq!(done["successful_key_count"], 10_000);
    let names = json!(vec!["k"; 10_001]).to_string();
    refused(
        &server,
        "POST bulk/delete",
        names.as_bytes(),
        400,
        10029,
        remove,
    );
    refused(&server, "DELETE bulk", names.as_bytes(), 400, 10029, remove);
    assert_eq!(server.keys(), 1);
    for line in ["PUT bulk", "POST bulk/delete", "DELETE bulk"] {
        let (method, path) = line.split_once(' ').unwrap();
        let none = json!({"successful_key_count": 0, "unsuccessful_keys": []});
        assert_eq!(result(&server, method, &server.path(path), "[]"), none);
    }
}

#[test]
fn a_bulk_request_has_at_most_100_mb() {
    let server = start(None);
    let line = format!("PUT {NAMESPACES}/{}/bulk", server.id);
    let (status, code, text) = server
        .raw(&line, "content-length: 100000001\r\n", b"")
        .refusal();
    assert_eq!(
        (status, code, text.as_str()),
        (413, 10024, "Request exceeds limit of 100000000 bytes.")
    );
    let text = "Request exceeds limit of 1048576 bytes.";
    refused(
        &server,
        "POST bulk/get",
        &vec![b' '; (1 << 20) + 1],
        413,
        10024,
        text,
    );
    let headers = "transfer-encoding: chunked\r\n";
    let (status, code, _) = server.raw(&line, headers, &chunk(100_000_001)).refusal();
    assert_eq!((status, code), (413, 10024));
}

#[test]
fn a_bulk_get_answers_in_every_shape() {
    let server = start(None);
    let pairs = r#"[{"key":"10","value":"{\"a\":1.50}","metadata":{"m":true}},
        {"key":"__proto__","value":"0"},{"key":"old","value":"","expiration_ttl":600}]"#;
    result(&server, "PUT", &server.path("bulk"), pairs);
    let ask = |body: &str| {
        let text = server
            .inside("POST", "bulk/get", body.as_bytes())
            .text()
            .to_owned();
        text.split_once("\"result\":").unwrap().1.to_owned()
    };
    let text = ask(r#"{"keys":["z","__proto__","10","z"]}"#);
    assert_eq!(
        text,
        r#"{"values":{"z":null,"__proto__":"0","10":"{\"a\":1.50}"}}}"#
    );
    let json = ask(r#"{"keys":["10","__proto__"],"type":"json"}"#);
    assert_eq!(json, r#"{"values":{"10":{"a":1.50},"__proto__":0}}}"#);
    let with = ask(r#"{"keys":["z","10","__proto__"],"withMetadata":true}"#);
    let values = r#"{"z":null,"10":{"value":"{\"a\":1.50}","metadata":{"m":true}},"__proto__":{"value":"0","metadata":null}}"#;
    assert_eq!(with, format!("{{\"values\":{values}}}}}"));
    assert!(ask(r#"{"keys":["old"],"withMetadata":true}"#).contains("\"expiration\":"));
}

#[test]
fn a_broken_bulk_get_is_refused_on_both_dialects() {
    let server = start(None);
    server.inside("PUT", "values/text", b"{");
    let many = json!({"keys": vec!["k"; 101]}).to_string();
    let long = json!({"keys": ["k".repeat(513)]}).to_string();
    let shape = "Request body must be a JSON object with keys";
    for (body, status, code, text) in [
        ("", 400, 10012, shape),
        ("[]", 400, 10012, shape),
        ("{}", 400, 10012, shape),
        (r#"{"keys":"k"}"#, 400, 10012, shape),
        (r#"[["k"]]"#, 400, 10012, shape),
        (r#"{"keys":[1]}"#, 400, 10012, shape),
        (
            r#"{"keys":[]}"#,
            400,
            10029,
            "You must request a minimum of 1 key",
        ),
        (&many, 400, 10029, "You can request a maximum of 100 keys"),
        (
            r#"{"keys":[""]}"#,
            400,
            10042,
            "Key names must not be empty",
        ),
        (
            &long,
            414,
            10030,
            "UTF-8 encoded length of 513 exceeds key length limit of 512.",
        ),
        (
            r#"{"keys":["k"],"type":"arrayBuffer"}"#,
            400,
            10012,
            "\"arrayBuffer\" is not a valid type. Use \"json\" or \"text\"",
        ),
        (
            r#"{"keys":["k"],"cacheTtl":"29"}"#,
            400,
            10001,
            "Invalid cache_ttl of 29. Cache TTL must be at least 30.",
        ),
        (
            r#"{"keys":["text"],"type":"json"}"#,
            400,
            10012,
            "At least one of the requested keys corresponds to a non-JSON value",
        ),
    ] {
        let line = server.binding("POST /bulk/get", "", body.as_bytes()).line;
        assert_eq!(line, format!("{status} {text}"));
        let text = match code {
            10029 => format!("bulk get keys: '{text}'"),
            _ => text.to_owned(),
        };
        refused(
            &server,
            "POST bulk/get",
            body.as_bytes(),
            status,
            code,
            &text,
        );
    }
}

#[test]
fn bytes_that_are_not_utf8_come_whole_alone_and_replaced_in_bulk() {
    let server = start(None);
    server.inside("PUT", "values/k", b"a\xff");
    assert_eq!(server.inside("GET", "values/k", b"").body, b"a\xff");
    let bulk = server.inside("POST", "bulk/get", br#"{"keys":["k"]}"#);
    assert_eq!(bulk.json()["result"]["values"]["k"], "a\u{fffd}");
}

#[test]
fn a_bulk_get_returns_at_most_25_mib() {
    let server = start(None);
    server.inside("PUT", "values/a", &vec![b'a'; MIB_25]);
    assert_eq!(
        server
            .inside("POST", "bulk/get", br#"{"keys":["a"]}"#)
            .status(),
        200
    );
    server.inside("PUT", "values/b", b"b");
    let text = "Total size of 26214401 exceeds limit of 26214400.";
    refused(
        &server,
        "POST bulk/get",
        br#"{"keys":["a","b"]}"#,
        413,
        10024,
        text,
    );
    let line = server
        .binding("POST /bulk/get", "", br#"{"keys":["a","b"]}"#)
        .line;
    assert_eq!(line, format!("413 {text}"));
}

#[test]
fn a_path_without_a_route_is_refused() {
    let server = start(None);
    for path in [
        "/client/v4/",
        "/client/v4/accounts",
        "/client/v4/accounts//storage/kv/namespaces",
    ] {
        let answer = server.raw(&format!("GET {path}"), "", b"");
        let text = format!("Could not route to {path}, perhaps your object identifier is invalid?");
        assert_eq!(answer.refusal(), (404, 7003, text));
        let second = json!({"code": 7000, "message": "No route for that URI"});
        assert_eq!(answer.json()["errors"][1], second);
    }
    for path in [
        "/",
        "/x/y/z",
        &server.path("x"),
        &server.path("values"),
        &server.path("bulk/put"),
    ] {
        assert_eq!(server.rest("GET", path, b"").refusal().1, 7003, "{path}");
    }
}

#[test]
fn a_method_without_a_route_is_refused() {
    let server = start(None);
    let paths = [
        "",
        "/{}",
        "/{}/keys",
        "/{}/values/k",
        "/{}/metadata/k",
        "/{}/bulk",
        "/{}/bulk/get",
    ];
    for path in paths.map(|path| path.replace("{}", &server.id)) {
        let text = "Method PATCH not allowed for this endpoint".to_owned();
        let answer = server.rest("PATCH", &path, b"");
        assert_eq!(answer.refusal(), (405, 10405, text));
        assert!(answer.head.contains("\r\nallow: "), "{}", answer.head);
    }
}

#[test]
fn only_the_token_opens() {
    let server = start(Some("secret"));
    let ask = |header: &str| server.raw(&format!("GET {NAMESPACES}"), header, b"");
    let refusal = (401, 10000, "Authentication error".to_owned());
    for header in [
        "",
        "authorization: secret\r\n",
        "authorization: Bearer\r\n",
        "authorization: Bearer secre\r\n",
    ] {
        assert_eq!(ask(header).refusal(), refusal, "{header}");
    }
    assert_eq!(ask("authorization: Bearer secret\r\n").status(), 200);
    let line = "PUT /client/v4/accounts/any/storage/kv/namespaces/x/values/k";
    assert_eq!(
        server.raw(line, "content-length: 1\r\n", b"v").refusal(),
        refusal
    );
}
