//! The binding protocol.

use crate::support::{Answer, MIB_25, Running, start, start_cached};

impl Running {
    fn get(&self, path: &str) -> Answer {
        self.binding(&format!("GET {path}"), "", b"")
    }

    fn put(&self, path: &str, body: &[u8]) -> String {
        self.binding(&format!("PUT {path}"), "", body).line
    }
}

#[test]
fn a_value_is_put_read_and_deleted() {
    let server = start(None);
    assert_eq!(server.put("/k?urlencoded=true", b"value"), "200 OK");
    assert_eq!(server.get("/k?urlencoded=true").text(), "value");
    assert_eq!(server.binding("DELETE /k", "", b"").line, "200 OK");
    assert_eq!(server.get("/k").line, "404 Not Found");
}

#[test]
fn a_slash_may_be_escaped_and_a_plus_is_a_plus() {
    let server = start(None);
    server.put("/a%2Fb+c", b"1");
    assert_eq!(server.get("/a/b%2Bc").text(), "1");
}

#[test]
fn a_key_may_be_named_like_the_bulk_route() {
    let server = start(None);
    server.put("/bulk%2Fget", b"1");
    assert_eq!(server.get("/bulk%2Fget").text(), "1");
}

#[test]
fn broken_escapes_are_refused() {
    let line = start(None).get("/%ED%A0%80").line;
    assert_eq!(line, "400 Could not URL-decode key name");
}

#[test]
fn a_long_key_is_refused() {
    let line = start(None).get(&format!("/{}", "k".repeat(513))).line;
    let text = "414 UTF-8 encoded length of 513 exceeds key length limit of 512.";
    assert_eq!(line, text);
}

#[test]
fn metadata_travels_as_utf8() {
    let server = start(None);
    server.binding("PUT /k", "cf-kv-metadata: {\"a\":\"ä\"}\r\n", b"");
    assert!(
        server
            .get("/k")
            .head
            .contains("cf-kv-metadata: {\"a\":\"ä\"}")
    );
}

#[test]
fn metadata_that_is_no_json_or_too_long_is_refused() {
    let server = start(None);
    let put = |metadata: &str| {
        let header = format!("cf-kv-metadata: {metadata}\r\n");
        server.binding("PUT /k", &header, b"").line
    };
    assert_eq!(put("{"), "400 Metadata must be valid JSON");
    let long = format!("\"{}\"", "m".repeat(1023));
    assert_eq!(
        put(&long),
        "413 Metadata length of 1025 exceeds limit of 1024."
    );
}

#[test]
fn expirations_too_near_are_refused() {
    let server = start(None);
    let ttl = "400 Invalid expiration_ttl of 30. Expiration TTL must be at least 60.";
    assert_eq!(server.put("/k?expiration_ttl=30", b""), ttl);
    let zero = "400 Invalid expiration_ttl of 0. Please specify integer greater than 0.";
    assert_eq!(server.put("/k?expiration_ttl=0", b""), zero);
    assert!(
        server
            .put("/k?expiration=1", b"")
            .ends_with("since the UNIX epoch.")
    );
}

#[test]
fn a_value_of_25_mib_is_stored_whole() {
    let server = start(None);
    assert_eq!(server.put("/k", &vec![7; MIB_25]), "200 OK");
    assert!(server.get("/k").body == vec![7; MIB_25]);
}

#[test]
fn one_byte_more_is_refused_declared_or_chunked() {
    let server = start(None);
    let text = "413 Value length of 26214401 exceeds limit of 26214400.";
    assert_eq!(server.put("/k", &vec![7; MIB_25 + 1]), text);
    let mut chunked = format!("{:x}\r\n", MIB_25 + 1).into_bytes();
    chunked.resize(chunked.len() + MIB_25 + 1, 7);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let headers = "x-kv-namespace: ns\r\ntransfer-encoding: chunked\r\n";
    let line = server.raw("PUT /k", headers, &chunked).line;
    assert!(line.starts_with("413 Value length of "), "{line}");
    assert_eq!(server.get("/k").line, "404 Not Found");
}

#[test]
fn a_list_is_paged_in_byte_order() {
    let server = start(None);
    for key in ["/b", "/a", "/c"] {
        server.put(key, b"");
    }
    let page = server.get("/?key_count_limit=2");
    let start = "{\"keys\":[{\"name\":\"a\"},{\"name\":\"b\"}],\"list_complete\":false,\"cursor\":";
    assert!(page.text().starts_with(start), "{}", page.text());
    let rest = "{\"keys\":[{\"name\":\"c\"}],\"list_complete\":true}";
    assert_eq!(server.get("/?prefix=c").text(), rest);
    assert_eq!(server.get("/?cursor=nonsense").line, "400 Invalid cursor");
}

#[test]
fn a_bulk_get_answers_in_the_order_asked_for() {
    let server = start(None);
    server.put("/10", b"ten");
    let body = br#"{"keys":["z","10"],"withMetadata":true}"#;
    let answer = server.binding("POST /bulk/get", "", body);
    let text = r#"{"z":null,"10":{"value":"ten","metadata":null}}"#;
    assert_eq!(answer.text(), text);
    let none = server.binding("POST /bulk/get", "", br#"{"keys":[]}"#).line;
    assert_eq!(none, "400 You must request a minimum of 1 key");
}

#[test]
fn a_request_without_a_namespace_is_refused() {
    let server = start(None);
    let line = server.raw("GET /k", "", b"").line;
    assert!(line.starts_with("400 namespace not found"), "{line}");
    let unknown = server.raw("GET /k", "x-kv-namespace: \u{e4}\r\n", b"");
    assert_eq!(unknown.line, "400 namespace not found: ?");
}

#[test]
fn only_the_token_opens() {
    let server = start(Some("secret"));
    let ask = |header: &str| server.binding("GET /k", header, b"").line;
    assert_eq!(ask(""), "401 Authentication error");
    assert_eq!(
        ask("authorization: Bearer wrong\r\n"),
        "401 Authentication error"
    );
    assert_eq!(ask("authorization: Bearer secret\r\n"), "404 Not Found");
}

#[test]
fn a_key_named_like_a_directory_is_refused() {
    let server = start(None);
    for key in [".", "..", "%2E", "%2e%2E"] {
        let name = key.replace("%2E", ".").replace("%2e", ".");
        let line = format!("400 \"{name}\" is not allowed as a key name.");
        assert_eq!(server.put(&format!("/{key}"), b"v"), line);
    }
    assert_eq!(server.put("/", b"v"), "400 Key names must not be empty");
    assert_eq!(server.put("/..%2F..%2Fx%00%0A", b"v"), "200 OK");
    assert_eq!(server.get("/..%2F..%2Fx%00%0A").text(), "v");
    assert_eq!(server.keys(), 1);
}

#[test]
fn a_limit_or_prefix_out_of_bounds_is_refused() {
    let server = start(None);
    let limit = |n: &str| server.get(&format!("/?key_count_limit={n}")).line;
    let text = |n: &str, rule: &str| {
        format!("400 Invalid key_count_limit of {n}. Please specify an integer {rule}.")
    };
    assert_eq!(limit("1001"), text("1001", "less than 1000"));
    assert_eq!(limit("0"), text("0", "greater than 0"));
    assert_eq!(limit("x"), text("x", "greater than 0"));
    assert_eq!(limit("1"), "200 OK");
    let prefix = |len: usize| server.get(&format!("/?prefix={}", "p".repeat(len))).line;
    assert_eq!(
        prefix(513),
        "414 UTF-8 encoded length of 513 exceeds key length limit of 512."
    );
    assert_eq!(prefix(512), "200 OK");
    assert_eq!(
        server.get("/?prefix=%FF").line,
        "400 Could not URL-decode the query"
    );
}

#[test]
fn a_cache_ttl_under_30_is_refused() {
    let server = start(None);
    let get = |ttl: &str| server.get(&format!("/k?cache_ttl={ttl}")).line;
    for ttl in ["29", "0", "-1", "x", ""] {
        let line = format!("400 Invalid cache_ttl of {ttl}. Cache TTL must be at least 30.");
        assert_eq!(get(ttl), line);
    }
    assert_eq!(get("30"), "404 Not Found");
}

/// What the header says of the hot cache, and what the value is.
fn cached(server: &Running, path: &str) -> (Option<String>, String) {
    let answer = server.get(path);
    let mut lines = answer.head.lines();
    let status = lines.find_map(|line| line.strip_prefix("cf-cache-status: "));
    (status.map(str::to_owned), answer.text().to_owned())
}

#[test]
fn the_cache_status_tells_a_hit_from_a_miss() {
    let server = start_cached();
    let of = |status: &str, text: &str| (Some(status.to_owned()), text.to_owned());
    for len in [3, 20_000, 300_000] {
        let (old, new) = ("o".repeat(len), "n".repeat(len));
        let path = format!("/k{len}?cache_ttl=60");
        server.put(&path, old.as_bytes());
        assert_eq!(cached(&server, &path), of("MISS", &old));
        // What is streamed from a file of its own is not copied.
        let second = if len < 65_536 { "HIT" } else { "MISS" };
        assert_eq!(cached(&server, &path), of(second, &old));
        server.put(&path, new.as_bytes());
        assert_eq!(cached(&server, &path), of("MISS", &new));
        server.binding(&format!("DELETE {path}"), "", b"");
        assert_eq!(server.get(&path).line, "404 Not Found");
    }
}

#[test]
fn without_a_cache_there_is_no_cache_status() {
    let server = start(None);
    server.put("/k", b"v");
    let none = (None, "v".to_owned());
    assert_eq!(cached(&server, "/k?cache_ttl=60"), none);
    assert_eq!(cached(&server, "/k?cache_ttl=60"), none);
}

#[test]
fn an_expiration_within_a_minute_is_refused() {
    let server = start(None);
    let at = server.store.clock().now() + 30;
    let rule = "Expiration times must be at least 60 seconds in the future.";
    let line = format!("400 Invalid expiration of {at}. {rule}");
    assert_eq!(server.put(&format!("/k?expiration={at}"), b""), line);
    assert_eq!(
        server.put("/k?expiration=1&expiration_ttl=60", b""),
        "200 OK"
    );
    assert!(server.get("/k").head.contains("cf-expiration: "));
}

#[test]
fn a_cursor_goes_on_after_its_page_whatever_was_written() {
    let server = start(None);
    for key in ["/b", "/c", "/d"] {
        server.put(key, b"");
    }
    let page = server.get("/?key_count_limit=1").json();
    let cursor = page["cursor"].as_str().unwrap();
    server.put("/a", b"");
    server.put("/bb", b"");
    server.binding("DELETE /b", "", b"");
    server.binding("DELETE /c", "", b"");
    let rest = server.get(&format!("/?cursor={cursor}"));
    let text = r#"{"keys":[{"name":"bb"},{"name":"d"}],"list_complete":true}"#;
    assert_eq!(rest.text(), text);
}

#[test]
fn a_cursor_of_another_namespace_is_refused() {
    let server = start(None);
    for key in ["/a", "/b"] {
        server.put(key, b"");
    }
    let page = server.get("/?key_count_limit=1").json();
    let cursor = page["cursor"].as_str().unwrap();
    let path = format!("GET /?key_count_limit=1&cursor={cursor}");
    assert_eq!(server.binding(&path, "", b"").line, "200 OK");
    server.store.create_namespace("other").unwrap();
    let other = server.raw(&path, "x-kv-namespace: other\r\n", b"");
    assert_eq!(other.line, "400 Invalid cursor");
}

#[test]
fn other_methods_are_not_allowed() {
    let server = start(None);
    for method in ["POST", "PATCH", "OPTIONS"] {
        let answer = server.binding(&format!("{method} /k"), "", b"");
        assert_eq!(answer.line, "405 Method Not Allowed");
        assert!(answer.body.is_empty());
        assert!(answer.head.contains("allow: GET, PUT, DELETE\r\n"));
    }
}
