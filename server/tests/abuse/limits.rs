//! One more than is allowed.

use super::{Case, binding, request};
use crate::support::{NAMESPACES, start};

/// `count` items of a JSON array.
fn array(item: &str, count: usize) -> Vec<u8> {
    let items = vec![item; count].join(",");
    format!("[{items}]").into_bytes()
}

/// A head that declares a body of `len` bytes, of which none follows.
fn declared(line: &str, len: u64) -> String {
    format!("{line} HTTP/1.1\r\nhost: x\r\nx-kv-namespace: ns\r\ncontent-length: {len}\r\n\r\n")
}

/// For a server whose namespace `ns` has this id.
pub(super) fn cases(id: &str) -> Vec<Case> {
    let mut cases = heads();
    cases.extend(lengths(id));
    cases.extend(counts(id));
    cases
}

fn heads() -> Vec<Case> {
    let line = "Request line exceeds limit of 8192 bytes";
    let headers = "Headers exceed limit of 16384 bytes";
    let many = "431 Request Header Fields Too Large";
    let put = |headers: String| binding("PUT /k", &headers, b"v");
    let q = "q".repeat(8192);
    let x = "x".repeat(16 * 1024);
    vec![
        Case::new(414, line, binding(&format!("PUT /k?{q}"), "", b"v")),
        Case::new(414, line, binding(&format!("PUT /{q}"), "", b"v")),
        Case::new(
            414,
            line,
            request(&format!("GET {NAMESPACES}?{q}"), "", b""),
        ),
        Case::new(414, line, binding(&format!("{q} /k"), "", b"v")),
        Case::new(431, headers, put(format!("x: {x}\r\n"))),
        Case::new(431, headers, put(format!("{x}: x\r\n"))),
        Case::new(
            431,
            headers,
            put(format!("x: {}\r\n", &x[..200]).repeat(90)),
        ),
        Case::new(431, many, put("x: x\r\n".repeat(100))),
        Case::new(431, many, put("x:\r\n".repeat(5000))),
    ]
}

fn lengths(id: &str) -> Vec<Case> {
    let key = "UTF-8 encoded length of 513 exceeds key length limit of 512";
    let value = "exceeds limit of 26214400";
    let metadata = "Metadata length of 1025 exceeds limit of 1024";
    let (k513, inside) = ("k".repeat(513), format!("{NAMESPACES}/{id}"));
    let json = format!("\"{}\"", "m".repeat(1023));
    let form = format!(
        "--B\r\ncontent-disposition: form-data; name=\"value\"\r\n\r\nv\r\n\
         --B\r\ncontent-disposition: form-data; name=\"metadata\"\r\n\r\n{json}\r\n--B--\r\n"
    );
    let kind = "content-type: multipart/form-data; boundary=B\r\n";
    let pair = |pair: String| request(&format!("PUT {inside}/bulk"), "", pair.as_bytes());
    let euro = "%E2%82%AC".repeat(171);
    vec![
        Case::new(414, key, binding(&format!("PUT /{k513}"), "", b"v")),
        Case::new(414, key, binding(&format!("PUT /{euro}"), "", b"v")),
        Case::new(
            414,
            key,
            request(&format!("PUT {inside}/values/{k513}"), "", b"v"),
        ),
        Case::new(414, key, binding(&format!("GET /?prefix={k513}"), "", b"")),
        Case::new(
            414,
            key,
            request(&format!("GET {inside}/keys?prefix={euro}"), "", b""),
        ),
        Case::new(413, value, declared("PUT /k", 26_214_401)),
        Case::new(413, value, declared("PUT /k", u64::MAX - 2)),
        Case::new(
            413,
            value,
            declared(&format!("PUT {inside}/values/k"), 26_214_401),
        ),
        Case::new(
            413,
            "100000000",
            declared(&format!("PUT {inside}/bulk"), 100_000_001),
        ),
        Case::new(
            413,
            "1048576",
            declared(&format!("POST {NAMESPACES}"), 1_048_577),
        ),
        Case::new(413, "1048576", declared("POST /bulk/get", 1_048_577)),
        Case::new(
            413,
            metadata,
            binding("PUT /k", &format!("cf-kv-metadata: {json}\r\n"), b"v"),
        ),
        Case::new(
            413,
            metadata,
            request(&format!("PUT {inside}/values/k"), kind, form.as_bytes()),
        ),
        Case::new(
            413,
            metadata,
            pair(format!(r#"[{{"key":"k","value":"v","metadata":{json}}}]"#)),
        ),
        Case::new(
            414,
            key,
            pair(format!(r#"[{{"key":"{k513}","value":"v"}}]"#)),
        ),
    ]
}

fn counts(id: &str) -> Vec<Case> {
    let inside = format!("{NAMESPACES}/{id}");
    let rest = |line: &str, body: &[u8]| {
        let (method, path) = line.split_once(' ').unwrap();
        request(&format!("{method} {inside}{path}"), "", body)
    };
    let pair = array(r#"{"key":"k","value":"v"}"#, 10_001);
    let hundred = format!(
        r#"{{"keys":{}}}"#,
        String::from_utf8(array(r#""k""#, 101)).unwrap()
    );
    let title = format!(r#"{{"title":"{}"}}"#, "t".repeat(513));
    let (ttl, at) = ("Invalid expiration_ttl", "Invalid expiration of");
    vec![
        Case::new(400, "10000", rest("PUT /bulk", &pair)),
        Case::new(400, "10000", rest("DELETE /bulk", &array(r#""k""#, 10_001))),
        Case::new(
            400,
            "10000",
            rest("POST /bulk/delete", &array(r#""k""#, 10_001)),
        ),
        Case::new(400, "100", rest("POST /bulk/get", hundred.as_bytes())),
        Case::new(
            400,
            "100",
            binding("POST /bulk/get", "", hundred.as_bytes()),
        ),
        Case::new(
            400,
            "512",
            request(&format!("POST {NAMESPACES}"), "", title.as_bytes()),
        ),
        Case::new(400, "512", rest("PUT ", title.as_bytes())),
        Case::new(
            400,
            "key_count_limit of 1001",
            binding("GET /?key_count_limit=1001", "", b""),
        ),
        Case::new(
            400,
            "key_count_limit of 0",
            binding("GET /?key_count_limit=0", "", b""),
        ),
        Case::new(
            400,
            "key_count_limit of 1001",
            rest("GET /keys?limit=1001", b""),
        ),
        Case::new(400, "key_count_limit of 9", rest("GET /keys?limit=9", b"")),
        Case::new(400, ttl, binding("PUT /k?expiration_ttl=59", "", b"v")),
        Case::new(400, ttl, rest("PUT /values/k?expiration_ttl=59", b"v")),
        Case::new(
            400,
            ttl,
            binding("PUT /k?expiration_ttl=1099511627776", "", b"v"),
        ),
        Case::new(
            400,
            at,
            binding("PUT /k?expiration=1099511627776", "", b"v"),
        ),
        Case::new(400, at, binding("PUT /k?expiration=1", "", b"v")),
        Case::new(
            400,
            "cache_ttl of 29",
            binding("GET /k?cache_ttl=29", "", b""),
        ),
    ]
}

#[test]
fn one_more_than_is_allowed_is_refused() {
    let server = start(None);
    for case in cases(&server.id) {
        case.run(&server);
    }
}
