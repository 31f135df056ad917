//! What a person at the command line meets.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop"
)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Runs a command line in a directory and returns exit code, stdout and stderr.
fn run(directory: &Path, line: &str, stdin: &[u8]) -> (i32, String, String) {
    let mut command = command(directory, line);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    // A command that refuses its arguments reads nothing.
    _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn command(directory: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rimstone"));
    command.current_dir(directory).args(line.split(' '));
    command.env_remove("RIMSTONE_TOKEN");
    command
}

/// A directory with a store that has the namespace `flags`.
fn store() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(
        run(directory.path(), "namespace create flags --data d", b"").0,
        0
    );
    directory
}

fn fails(directory: &Path, line: &str, stdin: &[u8], message: &str) {
    let (code, stdout, stderr) = run(directory, line, stdin);
    assert_eq!((code, stdout.as_str()), (1, ""), "{line}");
    assert_eq!(stderr, format!("rimstone: {message}\n"), "{line}");
}

struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Serves the store and returns with its address.
fn serve(directory: &Path) -> (Served, String) {
    serve_with(directory, "serve --data d --listen localhost:0")
}

fn serve_with(directory: &Path, line: &str) -> (Served, String) {
    let mut command = command(directory, line);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap();
    (Served(child), address.to_owned())
}

#[test]
fn a_value_goes_in_and_comes_out_byte_for_byte() {
    let directory = store();
    let at = directory.path();
    let put = "key put k --path - --namespace flags --data d";
    assert_eq!(run(at, put, b"a\nb\n"), (0, String::new(), String::new()));
    let (code, value, _) = run(at, "key get k --namespace flags --data d", b"");
    assert_eq!((code, value.as_str()), (0, "a\nb\n"));
    assert_eq!(run(at, "key delete k --namespace flags --data d", b"").0, 0);
    let message = "there is no key \"k\"; `rimstone key list` shows those there are";
    fails(at, "key get k --namespace flags --data d", b"", message);
}

#[test]
fn a_place_without_a_store_is_named_with_the_reason() {
    let directory = store();
    let at = directory.path();
    File::create(at.join("file")).unwrap();
    let message = "there is no store in x; name another directory, or create a namespace in it";
    fails(at, "namespace list --data x", b"", message);
    assert!(!at.join("x").exists());
    let message = "opening failed on file: Not a directory (os error 20)";
    fails(at, "namespace list --data file", b"", message);
    let other = "contains \"file\"; choose an empty or a new directory";
    fails(
        at,
        "serve --data . --listen 127.0.0.1:0",
        b"",
        &format!(". is not a Rimstone store: it {other}"),
    );
}

#[test]
fn a_served_store_is_locked_and_says_what_to_do() {
    let directory = store();
    let (_served, address) = serve(directory.path());
    let message = "the store in d is locked: another process has it open; \
        if that is `rimstone serve`, ask it over HTTP, or stop it first";
    for line in [
        "namespace list --data d",
        "key list --namespace flags --data d",
        "key put k v --namespace flags --data d",
        "stats --data d",
        "compact --data d",
    ] {
        fails(directory.path(), line, b"", message);
    }
    let taken = format!("cannot listen on {address}: Address already in use (os error 98)");
    fails(
        directory.path(),
        &format!("serve --data new --listen {address}"),
        b"",
        &taken,
    );
    assert!(!directory.path().join("new").exists());
}

#[test]
fn beyond_loopback_the_server_needs_a_token_and_a_flag() {
    let directory = store();
    let rule = "beyond loopback the server needs a token (RIMSTONE_TOKEN) and --insecure-listen";
    let message = format!("cannot listen on 0.0.0.0:0: {rule}");
    fails(
        directory.path(),
        "serve --data d --listen 0.0.0.0:0",
        b"",
        &message,
    );
    let line = "serve --data d --listen 0.0.0.0:0 --insecure-listen";
    fails(directory.path(), line, b"", &message);
}

#[test]
fn a_broken_bulk_file_changes_nothing() {
    let directory = store();
    let at = directory.path();
    for (pairs, message) in [
        (
            "{",
            "- must hold a JSON array of objects with key and value: ",
        ),
        (
            r#"[{"key":"a","value":"1"},{"key":"..","value":"1"}]"#,
            "\"..\": \"..\" is not allowed",
        ),
        (
            r#"[{"key":"a","value":"1"},{"key":"b","value":"?","base64":true}]"#,
            "\"b\": the value is not base64",
        ),
    ] {
        let (code, _, stderr) = run(
            at,
            "bulk put - --namespace flags --data d",
            pairs.as_bytes(),
        );
        assert_eq!(code, 1);
        assert!(
            stderr.starts_with(&format!("rimstone: {message}")),
            "{stderr}"
        );
    }
    let (_, keys, _) = run(at, "key list --namespace flags --data d", b"");
    assert_eq!(keys, "[]\n");
}

#[test]
fn arguments_are_checked_before_the_store_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let long = format!("key get {} --namespace flags --data d", "k".repeat(513));
    fails(
        at,
        &long,
        b"",
        "UTF-8 encoded length of 513 exceeds key length limit of 512.",
    );
    assert_eq!(run(at, "namespace list", b"").0, 2);
    assert_eq!(run(at, "key get k --data d", b"").0, 2);
    let (code, _, stderr) = run(at, "serve --data d --listen nonsense", b"");
    assert!(
        code == 2 && stderr.contains("--listen <HOST:PORT>"),
        "{stderr}"
    );
    assert!(!at.join("d").exists());
}

#[test]
fn a_reader_that_leaves_is_no_error_and_a_full_disk_is() {
    let directory = store();
    let at = directory.path();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let list = "namespace list --data d";
    assert!(command(at, list).stdout(writer).status().unwrap().success());
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = command(at, list)
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        output.stderr,
        b"rimstone: No space left on device (os error 28)\n"
    );
}

#[test]
fn compacting_frees_what_was_deleted_and_keeps_the_rest() {
    let directory = store();
    let run = |line: &str| {
        let (code, stdout, stderr) = run(directory.path(), line, b"");
        assert_eq!((code, stderr.as_str()), (0, ""), "{line}");
        stdout
    };
    for key in ["a", "b", "c"] {
        run(&format!("key put {key} v --namespace flags --data d"));
    }
    run("key delete a --namespace flags --data d");
    run("key delete b --namespace flags --data d");
    let freed = run("compact --data d");
    let freed = freed.strip_suffix(" bytes freed\n").unwrap();
    assert!(freed.parse::<u64>().unwrap() > 1 << 20, "{freed}");
    assert_eq!(run("key get c --namespace flags --data d"), "v");
    let stats = run("stats --json --data d");
    assert!(stats.contains("\"keys\":1,"), "{stats}");
}

/// Flips a bit in the only place of the store's files of a kind that holds these bytes.
fn flip(directory: &Path, kind: &str, bytes: &[u8]) {
    let mut flipped = 0;
    for entry in std::fs::read_dir(directory.join("d")).unwrap() {
        let path = entry.unwrap().path();
        let mut content = std::fs::read(&path).unwrap();
        let place = content.windows(bytes.len()).position(|w| w == bytes);
        if let Some(place) = place.filter(|_| path.to_string_lossy().ends_with(kind)) {
            content[place] ^= 1;
            std::fs::write(&path, content).unwrap();
            flipped += 1;
        }
    }
    assert_eq!(flipped, 1);
}

#[test]
fn verify_finds_a_flipped_bit_and_says_whose_it_is() {
    let directory = store();
    let at = directory.path();
    let put = "key put k --path - --namespace flags --data d";
    assert_eq!(run(at, put, b"the only value").0, 0);
    let (code, stdout, stderr) = run(at, "verify d --rate 10M", b"");
    assert_eq!(
        (code, stdout.as_str(), stderr.as_str()),
        (0, "d is intact\n", "")
    );
    flip(at, ".seg", b"the only value");
    let (code, stdout, stderr) = run(at, "verify d", b"");
    assert_eq!(
        (code, stderr.as_str()),
        (1, "rimstone: 1 place is damaged\n")
    );
    let mut lines = stdout.lines();
    let found = lines.next().unwrap();
    let what = "checksum of a record's value, of key \"k\" in \"flags\"";
    assert!(found.starts_with("d/") && found.ends_with(what), "{found}");
    let advice =
        "    reading the key fails: put or delete it, or restore a backup, or `rimstone repair d`";
    assert_eq!((lines.next(), lines.next()), (Some(advice), None));
    let missing = "there is no store in x; name another directory, or create a namespace in it";
    fails(at, "verify x", b"", missing);
}

#[test]
fn verify_reads_a_store_that_is_being_served() {
    let directory = store();
    let (_served, _) = serve(directory.path());
    let (code, stdout, _) = run(directory.path(), "verify d", b"");
    assert_eq!((code, stdout.as_str()), (0, "d is intact\n"));
}

#[test]
fn a_store_that_is_being_served_is_backed_up_and_restored() {
    let directory = store();
    let at = directory.path();
    assert_eq!(run(at, "key put k v --namespace flags --data d", b"").0, 0);
    let served = serve(at);
    let (code, stdout, stderr) = run(at, "backup d b", b"");
    assert_eq!(
        (code, stdout.as_str(), stderr.as_str()),
        (0, "1 keys are in b\n", "")
    );
    fails(
        at,
        "backup d b",
        b"",
        "b is not empty; choose an empty or a new directory",
    );
    drop(served);
    std::fs::remove_dir_all(at.join("d")).unwrap();
    let (code, stdout, _) = run(at, "restore b d", b"");
    assert_eq!((code, stdout.as_str()), (0, "d is restored from b\n"));
    assert_eq!(run(at, "key get k --namespace flags --data d", b"").1, "v");
}

#[test]
fn a_degraded_store_says_so_in_stats_and_when_it_is_served() {
    let directory = store();
    let at = directory.path();
    let stats = |line: &str| run(at, line, b"").1;
    assert!(stats("stats --data d").contains("degraded false\n"));
    for key in ["a", "b"] {
        let put = format!("key put {key} --path - --namespace flags --data d");
        assert_eq!(run(at, &put, format!("value of {key}").as_bytes()).0, 0);
    }
    // Behind the last checkpoint, so that whoever opens the store reads it.
    flip(at, ".seg", b"value of a");
    let json: serde_json::Value = serde_json::from_str(&stats("stats --json --data d")).unwrap();
    assert_eq!(json.pointer("/degraded"), Some(&true.into()));
    let shown = stats("stats --data d");
    assert!(
        shown.contains("degraded true\n") && shown.contains("damage d/"),
        "{shown}"
    );
    let mut served = command(
        at,
        "serve --data d --listen localhost:0 --metrics localhost:0",
    );
    let served = served.stderr(Stdio::piped()).stdout(Stdio::piped());
    let mut served = Served(served.spawn().unwrap());
    let mut lines = BufReader::new(served.0.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("the store is degraded")));
    let mut lines = BufReader::new(served.0.stdout.take().unwrap()).lines();
    let told = lines.find_map(|line| {
        let line = line.unwrap();
        let address = line.strip_prefix("metrics on http://")?;
        Some(address.strip_suffix("/metrics")?.to_owned())
    });
    let mut socket = std::net::TcpStream::connect(told.unwrap()).unwrap();
    socket
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut said = String::new();
    socket.read_to_string(&mut said).unwrap();
    assert!(said.contains("\nrimstone_degraded 1\n"), "{said}");
}

/// The address of this machine that is not loopback, if it has one.
fn address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Sends nothing: it only chooses a route.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[test]
fn no_connections_at_all_for_an_address_are_refused() {
    let directory = store();
    let line = "serve --data d --connections-per-address 0";
    let refused = command(directory.path(), line).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        String::from_utf8(refused.stderr)
            .unwrap()
            .contains("at least 1")
    );
}

#[test]
fn an_address_has_as_many_connections_as_the_flag_says() {
    let Some(address) = address() else {
        assert!(std::env::var_os("CI").is_none(), "CI has another address");
        // Past the capture of the test harness.
        let line = "SKIPPED: this machine has no address beyond loopback";
        _ = writeln!(std::io::stderr(), "{line}");
        return;
    };
    let directory = store();
    let line = format!(
        "serve --data d --listen {address}:0 --insecure-listen --connections-per-address 2"
    );
    let mut command = command(directory.path(), &line);
    command.env("RIMSTONE_TOKEN", "t");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    let _served = Served(child);
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap();
    let ask = |socket: &mut std::net::TcpStream| {
        let mut byte = [0];
        _ = socket.write_all(b"GET /client/v4/user/tokens/verify HTTP/1.1\r\nhost: x\r\n\r\n");
        socket.read(&mut byte).unwrap_or(0)
    };
    let connect = || std::net::TcpStream::connect(address).unwrap();
    let mut kept = [connect(), connect()];
    assert!(kept.iter_mut().all(|socket| ask(socket) == 1));
    assert_eq!(ask(&mut connect()), 0, "one too many");
    assert!(kept.iter_mut().all(|socket| ask(socket) == 1));
}

#[test]
fn a_backup_without_a_large_value_says_whose_it_is_and_what_to_do() {
    let directory = store();
    let at = directory.path();
    let put = "key put big --path - --namespace flags --data d";
    assert_eq!(run(at, put, &vec![7; 100_000]).0, 0);
    let large = std::fs::read_dir(at.join("d"))
        .unwrap()
        .map(|file| file.unwrap().path());
    let mut large = large.filter(|path| path.extension().is_some_and(|e| e == "large"));
    std::fs::remove_file(large.next().unwrap()).unwrap();
    let (code, _, stderr) = run(at, "backup d b", b"");
    assert_eq!(code, 1);
    assert!(stderr.contains("of key \"big\" in \"flags\""), "{stderr}");
    assert!(stderr.contains("rimstone repair d"), "{stderr}");
    assert_eq!(
        run(at, "key delete big --namespace flags --data d", b"").0,
        0
    );
    assert_eq!(run(at, "backup d b", b"").0, 0);
}

#[test]
fn repair_asks_keeps_the_damaged_store_and_names_what_is_lost() {
    let directory = store();
    let at = std::fs::canonicalize(directory.path()).unwrap();
    let run = |line: &str, stdin: &[u8]| run(&at, line, stdin);
    for (key, value) in [
        ("a", "an old value"),
        ("a", "the only value"),
        ("b", "other"),
    ] {
        let put = format!("key put {key} --path - --namespace flags --data d");
        assert_eq!(run(&put, value.as_bytes()).0, 0);
    }
    flip(&at, ".seg", b"the only value");
    let (code, stdout, stderr) = run("repair d", b"\n");
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(
        stderr.ends_with("[y/N] rimstone: nothing was changed\n"),
        "{stderr}"
    );
    let (code, stdout, stderr) = run("repair d", b"y\n");
    assert_eq!(code, 0, "{stderr}");
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{stdout}");
    let lost = lines[0];
    assert!(
        lost.starts_with("lost: \"a\" in \"flags\": ") && lost.ends_with("value checksum"),
        "{lost}"
    );
    assert_eq!(lines[1], "1 entries are kept, 1 keys are known to be lost");
    let kept = format!(
        "the damaged store is kept in {}",
        at.join("d.damaged").display()
    );
    assert_eq!(lines[2], kept);
    assert_eq!(run("key get b --namespace flags --data d", b"").1, "other");
    // Neither the damaged value nor the one before it.
    assert_eq!(run("key get a --namespace flags --data d", b"").0, 1);
    assert_eq!(run("verify d", b"").0, 0);
    assert_eq!(run("verify d.damaged", b"").0, 1);
    let (code, _, stderr) = run("repair d --yes", b"");
    assert!(
        code == 1 && stderr.contains("is there from another repair"),
        "{stderr}"
    );
}

#[test]
fn stats_tell_what_segments_hold_and_draw_them() {
    let directory = store();
    let run = |line: &str| {
        let (code, stdout, stderr) = run(directory.path(), line, b"");
        assert_eq!((code, stderr.as_str()), (0, ""), "{line}");
        stdout
    };
    for (key, value) in [("a", "one"), ("b", "two"), ("a", "three")] {
        run(&format!("key put {key} {value} --namespace flags --data d"));
    }
    run("compact --data d");
    let stats = run("stats --data d --map map.svg");
    let class = stats
        .lines()
        .find(|line| line.trim_start().starts_with("for ever"));
    let numbers: Vec<&str> = class.unwrap().split_whitespace().skip(2).collect();
    // A segment with a header of 128 bytes and two records of 72 bytes each.
    assert_eq!(numbers, ["1", "272", "144", "0", "0", "128", "1.89"]);
    let map = std::fs::read_to_string(directory.path().join("map.svg")).unwrap();
    assert!(map.starts_with("<svg ") && map.ends_with("</svg>\n"));
    assert!(map.contains("for ever: 1 segment of 0 MiB"), "{map}");
    let json: serde_json::Value = serde_json::from_str(&run("stats --json --data d")).unwrap();
    assert_eq!(json.pointer("/live_bytes"), Some(&144.into()));
    assert_eq!(json.pointer("/classes/1/class"), Some(&"for ever".into()));
}

#[test]
fn a_server_has_the_cache_that_it_is_told_to_have() {
    let directory = store();
    let refused = run(directory.path(), "serve --data d --cache 1X", b"");
    assert!(
        refused.2.contains("a size is a number and K, M, G or T"),
        "{}",
        refused.2
    );
    run(
        directory.path(),
        "key put k v --namespace flags --data d",
        b"",
    );
    for (cache, expected) in [("--cache 8M", Some("HIT")), ("--cache 0", None)] {
        let line = format!("serve --data d --listen localhost:0 {cache}");
        let (_served, address) = serve_with(directory.path(), &line);
        let get = || {
            let mut socket = TcpStream::connect(&address).unwrap();
            let head = "GET /k?cache_ttl=60 HTTP/1.1\r\nhost: x\r\nx-kv-namespace: flags\r\n";
            write!(socket, "{head}connection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).unwrap();
            let mut lines = answer.lines().map(str::to_owned);
            lines.find_map(|line| Some(line.strip_prefix("cf-cache-status: ")?.to_owned()))
        };
        get();
        assert_eq!(get().as_deref(), expected, "with {cache}");
    }
}

#[test]
fn deleting_many_keys_asks_first() {
    let directory = store();
    let at = directory.path();
    for key in ["a1", "a2", "b"] {
        let put = format!("key put {key} value --namespace flags --data d");
        assert_eq!(run(at, &put, b"").0, 0);
    }
    let keys = || {
        run(at, "key list --namespace flags --data d", b"")
            .1
            .matches("name")
            .count()
    };
    let delete = "key delete --prefix a --namespace flags --data d";
    let (code, _, asked) = run(at, delete, b"n\n");
    assert_eq!(code, 1);
    assert!(
        asked.starts_with("Delete every key that begins with \"a\" in \"flags\"?"),
        "{asked}"
    );
    assert_eq!(keys(), 3);
    assert_eq!(run(at, delete, b"y\n").0, 0);
    assert_eq!(keys(), 1);
    let empty = "key delete --prefix= --namespace flags --data d";
    fails(at, empty, b"y\n", "an empty prefix is every key: say --all");
    assert_eq!(
        run(at, "key delete --all --yes --namespace flags --data d", b"").0,
        0
    );
    assert_eq!(keys(), 0);
}

#[test]
fn a_capacity_is_a_size() {
    let directory = store();
    for size in ["64K", "12", "x", "64X", "99999999T"] {
        let line = format!("serve --data d --listen localhost:0 --capacity {size}");
        let (code, _, stderr) = run(directory.path(), &line, b"");
        assert_eq!(code, 2, "{size}: {stderr}");
        assert!(stderr.contains("--capacity"), "{stderr}");
    }
    let line = "serve --data d --listen localhost:0 --capacity 64M";
    let (_served, address) = serve_with(directory.path(), line);
    assert!(TcpStream::connect(address).is_ok());
}
