//! Whoever does not hold the token gets nothing, and nobody is told what it is.

use super::{Case, request};
use crate::support::start;

const TOKEN: &str = "Planted-Token-4fd1c0ffee";

/// A put with these headers and one without a token that is refused: each must be told the same.
pub(super) fn cases() -> Vec<Case> {
    let basic = "UGxhbnRlZC1Ub2tlbi00ZmQxYzBmZmVlOg==";
    let headers = [
        String::new(),
        "authorization: \r\n".to_owned(),
        "authorization: Bearer\r\n".to_owned(),
        "authorization: Bearer \r\n".to_owned(),
        format!("authorization: {TOKEN}\r\n"),
        format!("authorization: Bearer{TOKEN}\r\n"),
        format!("authorization: Bearer\t{TOKEN}\r\n"),
        format!("authorization: Basic {basic}\r\n"),
        format!("authorization: Token {TOKEN}\r\n"),
        format!("authorization: Bearer Bearer {TOKEN}\r\n"),
        format!("authorization: Bearer \"{TOKEN}\"\r\n"),
        format!("authorization: Bearer {TOKEN},\r\n"),
        format!("authorization: Bearer {}\r\n", TOKEN.to_lowercase()),
        format!("authorization: Bearer {}\r\n", &TOKEN[1..]),
        format!("authorization: Bearer {}\r\n", &TOKEN[..TOKEN.len() - 1]),
        format!("authorization: Bearer {TOKEN}x\r\n"),
        format!("authorization: Bearer {TOKEN}{TOKEN}\r\n"),
        format!("authorization: Bearer {TOKEN} x\r\n"),
        format!("authorization: Bearer \u{fe}{TOKEN}\r\n"),
        format!("authorization: Bearer {}\r\n", "x".repeat(15_000)),
        format!("authorization: Bearer x\r\nauthorization: Bearer {TOKEN}\r\n"),
        format!("authorization: Bearer {TOKEN}\r\nauthorization: Bearer x\r\n"),
        format!("x-auth-key: {TOKEN}\r\nx-auth-email: a@b.c\r\n"),
        format!("proxy-authorization: Bearer {TOKEN}\r\n"),
        format!("cookie: authorization=Bearer {TOKEN}\r\n"),
    ];
    let targets = [
        format!("/k?token={TOKEN}"),
        format!("/k?access_token={TOKEN}&authorization=Bearer%20{TOKEN}"),
        format!("http://{TOKEN}@x/k"),
    ];
    let put = |target: &str, headers: &str| {
        let headers = format!("x-kv-namespace: ns\r\n{headers}");
        Case::new(401, "", request(&format!("PUT {target}"), &headers, b"v"))
    };
    let by_header = headers.iter().map(|headers| put("/k", headers));
    let by_target = targets.iter().map(|target| put(target, ""));
    by_header.chain(by_target).collect()
}

#[test]
fn without_the_token_everybody_is_told_the_same() {
    let server = start(Some(TOKEN));
    let mut told = cases()
        .iter()
        .map(|case| without_date(&case.run(&server)))
        .collect::<Vec<_>>();
    assert!(told.iter().all(|said| !said.contains(TOKEN)));
    told.dedup();
    assert_eq!(told.len(), 1, "{told:#?}");
}

fn without_date(said: &str) -> String {
    let lines = said.lines().filter(|line| !line.starts_with("date: "));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_scheme_is_read_in_any_case_and_space_around_the_token_is_none_of_it() {
    let server = start(Some(TOKEN));
    for header in [
        format!("authorization: Bearer {TOKEN}\r\n"),
        format!("AUTHORIZATION:bEARER {TOKEN}\r\n"),
        format!("authorization: Bearer   {TOKEN} \t \r\n"),
    ] {
        let answer = server.binding("GET /k", &header, b"");
        assert_eq!(answer.status(), 404, "{header}");
    }
}
