//! Keys that are paths, escapes that are none, and parameters that mean nothing.

use super::{Case, binding, request};
use crate::support::{NAMESPACES, start};

/// For a server whose namespace `ns` has this id.
pub(super) fn cases(id: &str) -> Vec<Case> {
    let mut cases = keys(id);
    cases.extend(parameters(id));
    cases.extend(namespaces());
    cases
}

fn keys(id: &str) -> Vec<Case> {
    let (no, broken) = (
        "is not allowed as a key name",
        "Could not URL-decode key name",
    );
    let keys = [
        ("", "Key names must not be empty"),
        (".", no),
        ("..", no),
        ("%2E", no),
        ("%2e.", no),
        (".%2E", no),
        ("%", broken),
        ("k%2", broken),
        ("%zz", broken),
        ("%+1", broken),
        ("%u0041", broken),
        // Bytes that are no UTF-8, a slash in two bytes, a NUL in two, a surrogate, beyond the last.
        ("%FF", broken),
        ("%C0%AF", broken),
        ("%C0%80", broken),
        ("%ED%A0%80", broken),
        ("%F4%90%80%80", broken),
    ];
    let of_both = |(key, says)| {
        let rest = format!("PUT {NAMESPACES}/{id}/values/{key}");
        [
            Case::new(400, says, binding(&format!("PUT /{key}"), "", b"v")),
            Case::new(400, says, request(&rest, "", b"v")),
        ]
    };
    keys.into_iter().flat_map(of_both).collect()
}

fn parameters(id: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for number in [
        "",
        "-1",
        "0",
        "NaN",
        "inf",
        "1e3",
        "60.5",
        "0x40",
        "60%20",
        "60,60",
        "%F0%9D%9F%94",
        "99999999999999999999",
    ] {
        for (name, says) in [
            ("expiration_ttl", "Invalid expiration_ttl"),
            ("expiration", "Invalid expiration of"),
        ] {
            let line = format!("PUT /k?{name}={number}");
            cases.push(Case::new(400, says, binding(&line, "", b"v")));
        }
    }
    for limit in ["-1", "abc", "1.5", "99999999999999999999"] {
        let line = format!("GET /?key_count_limit={limit}");
        cases.push(Case::new(
            400,
            "Invalid key_count_limit",
            binding(&line, "", b""),
        ));
        let line = format!("GET {NAMESPACES}/{id}/keys?limit={limit}");
        cases.push(Case::new(
            400,
            "Invalid key_count_limit",
            request(&line, "", b""),
        ));
    }
    for metadata in ["{", "nul", "{\"a\":1}{", "'a'", "[1,]", "\\"] {
        let header = format!("cf-kv-metadata: {metadata}\r\n");
        let says = "Metadata must be valid JSON";
        cases.push(Case::new(400, says, binding("PUT /k", &header, b"v")));
    }
    let cursor = "Invalid cursor";
    let query = "Could not URL-decode the query";
    cases.push(Case::new(400, cursor, binding("GET /?cursor=x", "", b"")));
    cases.push(Case::new(400, query, binding("PUT /k?x=%FF", "", b"v")));
    cases
}

fn namespaces() -> Vec<Case> {
    let put = |headers: &str| request("PUT /k", headers, b"v");
    let unknown = "namespace not found";
    vec![
        Case::new(400, unknown, put("")),
        Case::new(400, unknown, put("x-kv-namespace: \r\n")),
        Case::new(400, unknown, put("x-kv-namespace: NS\r\n")),
        Case::new(400, unknown, put("x-kv-namespace: ns/../ns\r\n")),
        Case::new(400, unknown, put("x-kv-namespace: \u{fe}\r\n")),
        Case::new(
            400,
            "10011",
            request(&format!("PUT {NAMESPACES}/../values/k"), "", b"v"),
        ),
        Case::new(
            400,
            "10011",
            request(&format!("PUT {NAMESPACES}/ns/values/k"), "", b"v"),
        ),
    ]
}

#[test]
fn a_key_or_parameter_that_means_nothing_is_refused() {
    let server = start(None);
    for case in cases(&server.id) {
        case.run(&server);
    }
}
