//! `docs/openapi.json` and the routes say the same.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::{Map, Value};

use super::{METHODS, Part, Place, allows, place};

const DESCRIPTION: &str = include_str!("../../../docs/openapi.json");

fn paths() -> Map<String, Value> {
    let description: Value = serde_json::from_str(DESCRIPTION).unwrap();
    description["paths"].as_object().unwrap().clone()
}

/// A path with something in each of its holes.
fn filled(path: &str) -> String {
    path.replace(['{', '}'], "")
}

#[test]
fn every_route_is_described_and_what_is_described_is_routed() {
    let mut described = 0;
    for (path, operations) in paths() {
        let filled = filled(&path);
        let place = place(&filled).unwrap_or_else(|| panic!("{path} has no route"));
        for method in METHODS {
            let name = method.to_ascii_lowercase();
            let is_described = operations.get(&name).is_some();
            assert_eq!(is_described, allows(method, place), "{method} {path}");
            described += usize::from(is_described);
        }
        let known = METHODS.map(str::to_ascii_lowercase);
        assert!(
            operations
                .as_object()
                .unwrap()
                .keys()
                .all(|key| known.contains(key))
        );
    }
    // Fourteen of Workers KV, and the check of a token.
    assert_eq!(described, 15);
}

/// What a request to a place may be answered with: what is looked at before the place is known, what its
/// name, its body and the store's state may be refused for, and what may fail.
fn statuses(method: &str, place: Place<'_>) -> BTreeSet<u16> {
    let mut all = BTreeSet::from([200, 400, 401, 414, 431, 500]);
    if let Place::Inside(..) = place {
        all.insert(404);
    }
    let is_read = matches!(place, Place::Inside(_, Part::BulkGet));
    let is_bulk = matches!(place, Place::Inside(_, Part::Bulk));
    if method == "PUT" || method == "POST" || is_bulk {
        all.extend([408, 413, 503]);
    }
    if method != "GET" && !is_read {
        all.extend([503, 507]);
    }
    all
}

#[test]
fn every_operation_describes_all_that_it_may_answer() {
    for (path, operations) in paths() {
        let filled = filled(&path);
        let place = place(&filled).unwrap();
        for (method, operation) in operations.as_object().unwrap() {
            let described = operation["responses"].as_object().unwrap().keys();
            let described: BTreeSet<u16> = described.map(|code| code.parse().unwrap()).collect();
            let method = method.to_ascii_uppercase();
            assert_eq!(described, statuses(&method, place), "{method} {path}");
        }
    }
}

/// Every kind of place is in the description, which the test above goes through.
#[test]
fn no_place_is_left_out() {
    use super::Part::*;
    let mut places = paths().into_iter().map(|(path, _)| filled(&path));
    let seen: Vec<String> = places.by_ref().collect();
    let seen = seen.iter().map(|path| match place(path).unwrap() {
        Place::Token => 0,
        Place::Namespaces => 1,
        Place::Inside(_, part) => match part {
            Itself => 2,
            Keys => 3,
            Value(_) => 4,
            Metadata(_) => 5,
            Bulk => 6,
            BulkDelete => 7,
            BulkGet => 8,
        },
    });
    let mut seen: Vec<u8> = seen.collect();
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn no_other_method_is_allowed_anywhere() {
    for (path, _) in paths() {
        for method in [Method::HEAD, Method::OPTIONS, Method::PATCH, Method::TRACE] {
            assert!(!allows(method.as_str(), place(&filled(&path)).unwrap()));
        }
    }
}
