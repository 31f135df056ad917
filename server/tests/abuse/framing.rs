//! HTTP that is meant to be read in two ways.

use super::Case;
use crate::support::start;

/// A put of the binding with these further header lines, and this after its head.
fn put(lines: &str, rest: &str) -> String {
    format!("PUT /k HTTP/1.1\r\nhost: x\r\nx-kv-namespace: ns\r\n{lines}\r\n{rest}")
}

/// What a second request in a body looks like.
const HIDDEN: &str =
    "PUT /hidden HTTP/1.1\r\nhost: x\r\nx-kv-namespace: ns\r\ncontent-length: 1\r\n\r\nh";

/// The response to anything malformed is hyper's, a refusal without words.
fn refused(sent: impl Into<Vec<u8>>) -> Case {
    Case::new(400, "", sent)
}

pub(super) fn cases() -> Vec<Case> {
    let tables = [
        doubtful_lengths(),
        doubtful_codings(),
        broken_chunks(),
        malformed_headers(),
        malformed_lines(),
        refusals_with_a_body(),
    ];
    tables.into_iter().flatten().collect()
}

fn run(cases: Vec<Case>) {
    let server = start(None);
    for case in cases {
        case.run(&server);
    }
}

fn doubtful_lengths() -> Vec<Case> {
    let lines = [
        "content-length: 1\r\ncontent-length: 2\r\n",
        "content-length: 1, 1\r\n",
        "content-length: 1,2\r\n",
        "content-length: +1\r\n",
        "content-length: -1\r\n",
        "content-length: 0x1\r\n",
        "content-length: 1.0\r\n",
        "content-length: 1 1\r\n",
        "content-length: \r\n",
        "content-length: one\r\n",
        "content-length: 18446744073709551616\r\n",
        "content-length: 99999999999999999999999\r\n",
    ];
    let case = |lines| refused(put(lines, &format!("v{HIDDEN}")));
    lines.map(case).into()
}

#[test]
fn a_length_that_is_doubtful_is_refused() {
    run(doubtful_lengths());
}

fn doubtful_codings() -> Vec<Case> {
    let lines = [
        "transfer-encoding: identity\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding: \"chunked\"\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "transfer-encoding:\r\n chunked\r\n",
        "transfer-encoding: chunked\x0b\r\n",
    ];
    let body = format!("1\r\nv\r\n0\r\n\r\n{HIDDEN}");
    let mut cases = Vec::from(lines.map(|lines| refused(put(lines, &body))));
    let old = put("transfer-encoding: chunked\r\n", "1\r\nv\r\n0\r\n\r\n");
    cases.push(refused(old.replace("HTTP/1.1", "HTTP/1.0")));
    cases
}

#[test]
fn a_transfer_coding_that_is_doubtful_is_refused() {
    run(doubtful_codings());
}

fn broken_chunks() -> Vec<Case> {
    let bodies = [
        "\r\nv\r\n0\r\n\r\n",
        "x\r\nv\r\n0\r\n\r\n",
        "-1\r\nv\r\n0\r\n\r\n",
        "0x1\r\nv\r\n0\r\n\r\n",
        "1\nv\r\n0\r\n\r\n",
        "1\r\nvv\r\n0\r\n\r\n",
        "1\r\nv\n0\r\n\r\n",
        "1\r\nv\r\n0\r\n",
        "1\r\nv\r\n",
        "2\r\nv",
        "fffffffffffffffff\r\nv\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nv\r\n0\r\n\r\n",
    ];
    let extension = format!("1;{}\r\nv\r\n0\r\n\r\n", "x".repeat(1 << 20));
    let trailers = format!("1\r\nv\r\n0\r\n{}\r\n", "x: x\r\n".repeat(100_000));
    let long = [extension.as_str(), trailers.as_str()];
    let case = |body: &&str| refused(put("transfer-encoding: chunked\r\n", body));
    bodies.iter().chain(&long).map(case).collect()
}

#[test]
fn a_broken_chunk_is_refused() {
    run(broken_chunks());
}

fn malformed_headers() -> Vec<Case> {
    let lines = [
        "content-length : 1\r\n",
        "content-length\t: 1\r\n",
        " content-length: 1\r\n",
        "content-length\r\n",
        ": 1\r\n",
        "a b: c\r\ncontent-length: 1\r\n",
        "x: a\r\n b\r\ncontent-length: 1\r\n",
        "x: a\r\n\tb\r\ncontent-length: 1\r\n",
        "x: a\0b\r\ncontent-length: 1\r\n",
        "x: a\rb\r\ncontent-length: 1\r\n",
        "x\0: a\r\ncontent-length: 1\r\n",
        "host: y\r\ncontent-length: 1\r\n",
    ];
    lines.map(|lines| refused(put(lines, "v"))).into()
}

fn malformed_lines() -> Vec<Case> {
    let lines = [
        "PUT /k HTTP/1.1\r",
        "PUT  /k HTTP/1.1\r\n",
        "PUT /k  HTTP/1.1\r\n",
        "PUT /k HTTP/1.1 \r\n",
        "PUT\t/k\tHTTP/1.1\r\n",
        "PUT /a b HTTP/1.1\r\n",
        "PUT /k\0 HTTP/1.1\r\n",
        "PUT /k HTTP/9.9\r\n",
        "PUT /k HTTP/1.1x\r\n",
        "PUT /k http/1.1\r\n",
        "PUT /k\r\n",
        "PUT k HTTP/1.1\r\n",
        "P\u{dc}T /k HTTP/1.1\r\n",
        "(PUT) /k HTTP/1.1\r\n",
    ];
    let put = put("content-length: 1\r\n", "v");
    let with = |line| refused(put.replacen("PUT /k HTTP/1.1\r\n", line, 1));
    let mut cases = Vec::from(lines.map(with));
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0\r\n\r\n",
        b"\xff\xff\xff\xff\r\n\r\n",
    ] {
        cases.push(refused(bytes));
    }
    cases
}

#[test]
fn a_malformed_head_is_refused() {
    run(malformed_headers());
    run(malformed_lines());
    // For another version of HTTP, hyper has no words.
    let http2 = start(None).send(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]);
    assert!(http2.is_empty());
}

/// Where hyper follows the letter of RFC 9112 rather than refusing, there is one reading only.
#[test]
fn what_is_not_refused_is_read_in_one_way() {
    let server = start(None);
    let chunked = format!("1\r\nv\r\n0\r\n\r\n{HIDDEN}");
    // Chunked wins over a length, and the connection ends with it.
    for lines in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
    ] {
        let said = server.send(&[put(lines, &chunked).as_bytes()]);
        let said = String::from_utf8_lossy(&said);
        assert!(
            said.starts_with("HTTP/1.1 200 OK\r\nconnection: close\r\n"),
            "{said}"
        );
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1);
        assert_eq!(server.keys(), 1);
    }
    // Two lengths that agree are one.
    let twice = put("content-length: 1\r\ncontent-length: 1\r\n", "v");
    let said = server.send(&[format!("{twice}{twice}").as_bytes()]);
    assert_eq!(
        String::from_utf8_lossy(&said)
            .matches("HTTP/1.1 200 OK")
            .count(),
        2
    );
    assert_eq!(server.keys(), 1);
    // A bare line feed ends a line.
    let feeds = put("content-length: 1\r\n", "v").replace("\r\n", "\n");
    let said = server.send(&[feeds.as_bytes()]);
    assert!(said.starts_with(b"HTTP/1.1 200 OK\r\n"));
    assert_eq!(server.keys(), 1);
}

/// A put without a key, whose body is a request.
fn refusals_with_a_body() -> Vec<Case> {
    let line = "PUT / HTTP/1.1\r\nhost: x\r\nx-kv-namespace: ns\r\n";
    let len = HIDDEN.len();
    vec![
        refused(format!("{line}content-length: {len}\r\n\r\n{HIDDEN}")),
        refused(format!(
            "{line}transfer-encoding: chunked\r\n\r\n{len:x}\r\n{HIDDEN}\r\n0\r\n\r\n"
        )),
    ]
}

#[test]
fn a_refusal_leaves_nothing_of_its_body_to_be_read_as_a_request() {
    run(refusals_with_a_body());
}
