//! The saved inputs that have a name: what each target is meant to be given, as a place to start from.
//!
//! What libFuzzer found lies beside them under names that are hashes, and inputs that failed once under
//! names of what must hold.

use std::path::{Path, PathBuf};

use rimstone_tests::Dice;

/// A target, the name of an input, the input.
pub type Seed = (&'static str, &'static str, Vec<u8>);

fn dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where a target's saved inputs lie.
#[must_use]
pub fn corpus(target: &str) -> PathBuf {
    dir().join("corpus").join(target)
}

/// Writes all of them.
///
/// # Errors
/// What the operating system says.
pub fn write() -> std::io::Result<()> {
    for (target, name, bytes) in all() {
        std::fs::create_dir_all(corpus(target))?;
        std::fs::write(corpus(target).join(name), bytes)?;
    }
    Ok(())
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Seed> {
    [files(), stores(), histories(), requests(), bodies()].concat()
}

/// A file of the fixture that holds one of every kind.
fn fixture(name: &str) -> Vec<u8> {
    let path = dir().join("../tests/fixtures/full").join(name);
    std::fs::read(path).expect("the fixtures")
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// What decoders of files are given.
fn files() -> Vec<Seed> {
    let front = fixture("0000000200000000.seg");
    let large = fixture("0000000200000001.large");
    let saved = fixture("0000000200000002.ckpt");
    let run = fixture("0000000200000003.run");
    let number = |at: usize| {
        let bytes = saved[at..at + 8].try_into().expect("eight bytes");
        u64::from_le_bytes(bytes) as usize
    };
    let lists = &saved[number(120)..][..number(128)];
    let place = join(&[&front[12..16], &front[64..72], &128u32.to_le_bytes()]);
    let key = |n: u32| join(&[&[1, 0, 2], format!("{n:02}").as_bytes()]);
    let keys: Vec<_> = (2..80).flat_map(key).collect();
    vec![
        ("record", "smallest", vec![]),
        ("record", "put", join(&[&place, &front[128..528]])),
        ("segment_header", "front", front[..128].to_vec()),
        ("segment_header", "large", large[..128].to_vec()),
        ("segment_open", "file", join(&[&[0], &front])),
        ("segment_open", "durable", join(&[&[64], &front])),
        (
            "segment_open",
            "forged",
            join(&[&[1], &front[..128], &FORGED]),
        ),
        ("segment_open", "written", join(&[&[2], &WRITTEN])),
        ("segment_open", "cut", join(&[&[2, 0], &WRITTEN[1..]])),
        (
            "checkpoint",
            "header_and_lists",
            join(&[&saved[..144], lists]),
        ),
        ("checkpoint", "lists", lists.to_vec()),
        ("checkpoint", "empty_lists", vec![0; 28]),
        ("checkpoint_open", "whole", vec![0]),
        ("checkpoint_open", "bit_of_the_header", vec![0, 0, 72, 3]),
        ("checkpoint_open", "bit_of_the_lists", vec![0, 64, 9, 0, 3]),
        ("checkpoint_open", "cut", vec![0, 66, 0, 1]),
        (
            "checkpoint_open",
            "forged_page",
            vec![1, 193, 0, 32, 0, 0, 4, 9, 9, 9, 9],
        ),
        (
            "checkpoint_open",
            "forged_lists",
            vec![1, 65, 0, 32, 1, 0, 1, 1, 7],
        ),
        ("current", "current", fixture("CURRENT")),
        ("run_open", "file", join(&[&[0], &run])),
        ("run_open", "forged", join(&[&[1], &run])),
        ("run_open", "written", join(&[&[2], &RUN])),
        (
            "run_open",
            "blocks",
            join(&[&[2, 5, 0, 0, 0, 0, 2, b'k', b'k'], &keys]),
        ),
        (
            "cursor",
            "issued",
            join(&[
                b"0123456789abcdef",
                &[7, 1, 0, 0, 0, 1, b'p', 1, b'q', 1, b'r', 2, 0],
                b"key",
            ]),
        ),
    ]
}

/// A tombstone, then a put, whose checksums are not right yet.
const FORGED: [u8; 144] = {
    let mut records = [0; 144];
    records[4] = 3;
    records[6] = 1;
    records[16] = 1;
    records[64] = b'k';
    records[72 + 4] = 1;
    records[72 + 6] = 1;
    records[72 + 8] = 4;
    records[72 + 16] = 2;
    records[72 + 64] = b'k';
    records
};

/// Three records, the last of which says that the first two are durable, and a bit of the first to change.
const WRITTEN: [u8; 24] = [
    33, 2, 0, 0, 0, 0, 0, 0, 1, b'a', 2, b'v', b'w', 4, 1, 1, b'b', 0, 2, 1, 1, b'a', 0, 0,
];

/// Records of a run: flags, shared bytes, the rest of the key, and what the flags ask for.
const RUN: [u8; 32] = [
    5, 0, 0, 0, 1, 2, b'a', b'b', 0, 0, 2, b'a', b'b', 6, 2, 1, b'c', 9, 0, 0, 0, 0, 0, 0, 0, 2,
    b'{', b'}', 1, 1, 1, b'z',
];

/// What `dir_open` does to a directory: which file, what, from where.
fn stores() -> Vec<Seed> {
    // Of the fixture `full` by name; the store is opened twice.
    let [first, front, large, saved, run, current] = [0, 1, 2, 3, 4, 5u32];
    let change = |mode: u8, kind: u8, file: u32, at: u32, rest: &[u8]| {
        let (file, at) = (file.to_le_bytes(), (at * 2).to_le_bytes());
        join(&[&[mode, kind], &file, &[0; 4], &at, rest])
    };
    let gone = |file| change(4, 6, file, 0, &[]);
    let in_record = |mode: u8, record: u32| {
        let (record, at) = (record.to_le_bytes(), 40u32.to_le_bytes());
        join(&[&change(mode, 9, 0, 0, &[]), &record, &at, &[1]])
    };
    let seed = |name, bytes| ("dir_open", name, bytes);
    vec![
        seed("untouched", vec![4]),
        seed("smallest", vec![5]),
        seed("first_segment_gone", gone(first)),
        seed("large_gone", gone(large)),
        seed("checkpoint_gone", gone(saved)),
        seed("run_gone", gone(run)),
        seed("current_gone", gone(current)),
        seed("current_damaged", change(4, 0, current, 2, &[1])),
        seed("large_damaged", change(4, 0, large, 5_000, &[1])),
        seed("truncated", change(4, 3, front, 600, &[])),
        seed("record_0", in_record(4, 0)),
        seed("record_1", in_record(4, 1)),
        seed("record_2", in_record(4, 2)),
        seed("forged_record", in_record(6, 3)),
        seed("forged_run", change(6, 0, run, 70, &[1])),
        seed("forged_page", change(6, 0, saved, 4_096, &[1])),
        seed("forged_lists", change(6, 0, saved, 364_800, &[1])),
    ]
}

/// Steps of `ops`, `faults`, `cache` and `kv_requests`.
fn histories() -> Vec<Seed> {
    let dice = |name, seed, len: usize| {
        let mut dice = Dice::new(seed);
        let bytes = std::iter::repeat_with(|| dice.roll().to_le_bytes()[0]);
        ("cache", name, bytes.take(len).collect())
    };
    // Puts of one key after the other, then lookups of all, later, with less room.
    let put = |n: u8| [6, n, 5, 30, 1, n];
    let puts = |from: u8, to: u8| (from..to).flat_map(put).collect::<Vec<_>>();
    let later = |seconds: u8| vec![14, seconds, 0];
    let asked = |from: u8, to: u8| (from..to).flat_map(|n| [4, n, 5]).collect::<Vec<_>>();
    let requests = [
        &[0, 0, 3, 2, 9, 0, 0, 2][..],
        &[1, 5, 4, 3, 7, 5, 60, 3],
        &[0, 3, 240, 1, 1, 0, 0, 0],
        &[4, 1, 3],
        &[4, 4, 4],
        &[6, 0, 4],
        &[7, 0, 1, 1],
        &[7, 1, 0, 12],
        &[8, 2, 3, 5, 4, 1, 0, 2, 6, 3, 2, 100, 3, 7, 9, 9, 0, 0],
        &[9, 0, 2, 5, 9],
        &[10, 3, 3, 3, 5, 6],
        &[11, 0, 61],
        &[5, 0, 4],
        &[3, 1, 3],
        &[7, 0, 0, 5],
    ];
    vec![
        ("ops", "checkpoint_and_cuts", CHECKPOINT_AND_CUTS.to_vec()),
        ("ops", "no_flushes", NO_FLUSHES.to_vec()),
        ("ops", "no_cache", join(&[&[2], &CHECKPOINT_AND_CUTS[1..]])),
        (
            "ops",
            "small_cache",
            join(&[&[6], &CHECKPOINT_AND_CUTS[1..]]),
        ),
        ("faults", "cut_and_full", FAULTS.concat()),
        (
            "cache",
            "all_expire",
            join(&[&[200, 1, 0], &puts(0, 60), &later(7), &asked(0, 60)]),
        ),
        (
            "cache",
            "one_shard_evicts",
            join(&[&[2, 0, 2], &puts(0, 150)]),
        ),
        ("cache", "fill_overtaken", FILL_OVERTAKEN.to_vec()),
        dice("random_0", 0, 1600),
        dice("random_1", 1, 1600),
        dice("random_2", 2, 400),
        ("kv_requests", "all", requests.concat()),
        ("kv_requests", "each_refusal", EACH_REFUSAL.to_vec()),
    ]
}

const CHECKPOINT_AND_CUTS: [u8; 43] = [
    0, 0, 0, 0, 3, 5, 7, 0, 2, 0x5c, 0x39, 4, 6, 5, 7, 0x0e, 0, 0x0c, 4, 5, 7, 0x13, 4, 1, 9, 0, 3,
    0x0f, 0x13, 0x0a, 2, 0x13, 0x12, 3, 0x0b, 0, 4, 6, 0, 3, 0x10, 0, 0x13,
];

const NO_FLUSHES: [u8; 23] = [
    1, 8, 3, 4, 1, 2, 0x61, 0x62, 4, 2, 1, 0x78, 0x0d, 0x0f, 0x13, 0x80, 1, 0x13, 8, 1, 9, 0, 1,
];

/// Puts, a batch, a checkpoint, a cut, a failing flush and a full disk: eight bytes each behind the first.
const FAULTS: [&[u8]; 13] = [
    &[0],
    &[0, 0, 1, 0, 9, 0, 9, 0],
    &[1, 0, 2, 14, 1, 1, 0, 0],
    &[16, 0, 2, 0, 1, 15, 220, 3],
    &[26, 0, 0, 0, 0, 0, 0, 0],
    &[2, 0, 1, 12, 9, 1, 0, 1],
    &[30, 3, 2, 2, 1, 7, 0, 0],
    &[12, 0, 1, 0, 0, 0, 0, 0],
    &[32, 1, 1, 3, 1, 0, 0, 0],
    &[3, 0, 4, 0, 1, 1, 0, 0],
    &[29, 0, 0, 0, 0, 0, 0, 0],
    &[32, 0, 5, 0, 0, 0, 0, 0],
    &[4, 0, 5, 13, 200, 1, 0, 0],
];

/// Fills that begin, then puts, deletes and clears, then the fills end.
const FILL_OVERTAKEN: [u8; 36] = [
    40, 1, 0, 4, 1, 0x0f, 6, 1, 0x0f, 9, 1, 1, 0x0a, 0, 0x0f, 9, 1, 2, 0, 1, 0x0f, 4, 2, 0x0f,
    0x0d, 2, 0, 0x0a, 0, 0x0f, 9, 1, 3, 0, 2, 0x0f,
];

/// Keys, times, metadata and limits that are refused, in both dialects.
const EACH_REFUSAL: [u8; 62] = [
    0, 0, 240, 1, 0, 0, 0, 0, 0, 1, 241, 1, 0, 0, 0, 0, 0, 0, 242, 1, 0, 0, 0, 0, 0, 1, 243, 1, 0,
    0, 0, 0, 0, 0, 3, 1, 0, 5, 9, 0, 0, 0, 3, 1, 0, 0, 0, 5, 0, 5, 3, 1, 0, 0, 0, 6, 7, 1, 0, 3, 4,
    8,
];

/// What a client sends on one connection.
fn requests() -> Vec<Seed> {
    let inside = "host: x\r\nx-kv-namespace: ns\r\n";
    let get = format!("GET /key HTTP/1.1\r\n{inside}\r\n");
    let list = format!("GET /?key_count_limit=5&prefix=k HTTP/1.1\r\n{inside}\r\n");
    let put = format!(
        "PUT /a%2Fb?expiration_ttl=60 HTTP/1.1\r\n{inside}cf-kv-metadata: {{\"a\":1}}\r\n\
         content-length: 3\r\n\r\nabcDELETE /key HTTP/1.1\r\n{inside}\r\n"
    );
    let short = format!("PUT /a HTTP/1.1\r\n{inside}content-length: 9\r\n\r\nabc");
    let chunked = format!(
        "PUT /a HTTP/1.1\r\n{inside}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    );
    let lengths = format!(
        "PUT /a HTTP/1.1\r\n{inside}transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\nabc"
    );
    let keys = "{\"keys\":[\"key\",\"b\"],\"withMetadata\":true}";
    let bulk = format!(
        "POST /bulk/get HTTP/1.1\r\n{inside}content-length: {}\r\n\r\n{keys}",
        keys.len()
    );
    let namespaces = "/client/v4/accounts/any/storage/kv/namespaces";
    let create = format!(
        "POST {namespaces} HTTP/1.1\r\nhost: x\r\ncontent-length: 17\r\n\r\n{{\"title\":\"other\"}}\
         GET {namespaces}?page=1&order=title HTTP/1.1\r\nhost: x\r\n\r\n"
    );
    let seed = |name, text: String| ("http_bytes", name, text.into_bytes());
    vec![
        seed("get", get),
        seed("list", list),
        seed("put", put),
        seed("short_body", short),
        seed("chunked", chunked),
        seed("two_lengths", lengths),
        seed("bulk_get", bulk),
        seed("create_namespace", create),
    ]
}

/// Bodies and queries, behind the byte that says of what.
fn bodies() -> Vec<Seed> {
    let of = |kind: u8, text: &str| join(&[&[kind], text.as_bytes()]);
    let form = |kind: u8, boundary: &str, parts: &[(&str, &str)]| {
        let part = |(name, content): &(&str, &str)| {
            format!(
                "--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n"
            )
        };
        let parts: String = parts.iter().map(part).collect();
        of(kind, &format!("{parts}--{boundary}--\r\n"))
    };
    let full = [
        ("value", "v"),
        ("metadata", "{\"a\":1}"),
        ("expiration_ttl", "60"),
    ];
    let apart = [
        ("value", "v"),
        ("metadata[a]", "1"),
        ("metadata[b][c]", "2"),
        ("metadata[d][]", "3"),
    ];
    let unfinished = "--B\r\ncontent-disposition: form-data; name=\"value\"\r\n\r\nv\r";
    let pairs = "[{\"key\":\"a\",\"value\":\"1\"},{\"key\":\"b\",\"value\":\"Mg==\",\"base64\":true,\
                 \"expiration_ttl\":60,\"metadata\":{\"x\":[1]}}]";
    let broken = "[{\"key\":\"a\",\"value\":\"1\"},{\"key\":\"\",\"value\":\"1\"}]";
    let asked =
        "{\"keys\":[\"key\",\"a\"],\"type\":\"text\",\"withMetadata\":true,\"cacheTtl\":\"60\"}";
    vec![
        ("multipart", "value_and_metadata", form(0, "B", &full)),
        ("multipart", "no_value", form(0, "B", &[("metadata", "{}")])),
        ("multipart", "taken_apart", form(1, "----x", &apart)),
        ("multipart", "unfinished", of(0, unfinished)),
        ("bulk_json", "put", of(0, pairs)),
        ("bulk_json", "put_broken", of(0, broken)),
        ("bulk_json", "delete", of(1, "[\"key\",\"a\"]")),
        ("bulk_json", "get", of(2, asked)),
        (
            "query",
            "put",
            of(0, "expiration=1700000100&expiration_ttl=60"),
        ),
        ("query", "keys", of(1, "limit=10&prefix=a%2F&cursor=")),
        ("query", "plus", of(1, "prefix=b/%C3%A9&x=%zz+y")),
        ("query", "itself", of(2, "page=1")),
    ]
}
