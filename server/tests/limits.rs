//! What a client may cost the server.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::time::Duration;

use rimstone::Options;
use rimstone_server::limits::Limits;

use crate::support::{Answer, MIB_25, NAMESPACES, Running, say, start, start_on, start_within};

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(60);

/// Limits of which none is met within a test.
fn patient() -> Limits {
    Limits {
        request: LONG,
        idle: LONG,
        head: LONG,
        pause: LONG,
        ..Limits::default()
    }
}

/// Whether the server closes the connection without another word.
fn closes(mut socket: TcpStream) -> bool {
    socket.set_read_timeout(Some(LONG / 2)).unwrap();
    match socket.read(&mut [0]) {
        Ok(len) => len == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn put_head(server: &Running, headers: &str) -> String {
    let id = &server.id;
    format!("PUT {NAMESPACES}/{id}/values/k HTTP/1.1\r\nhost: x\r\n{headers}\r\n")
}

#[test]
fn an_idle_connection_is_closed_before_and_after_a_request() {
    let server = start_within(
        None,
        Limits {
            idle: SHORT,
            ..patient()
        },
    );
    assert!(closes(server.connect()));
    let mut socket = server.connect();
    socket
        .write_all(b"GET /k HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    assert_eq!(Answer::read(&mut socket).unwrap().status(), 400);
    assert!(closes(socket));
}

#[test]
fn a_head_that_stops_or_trickles_is_closed() {
    let server = start_within(
        None,
        Limits {
            head: SHORT,
            ..patient()
        },
    );
    let mut socket = server.connect();
    socket.write_all(b"GET /k HTTP/1.1\r\nhost: x\r\n").unwrap();
    assert!(closes(socket));
    let mut socket = server.connect();
    let trickle = std::iter::repeat_n(b"G", 10_000);
    let refused = trickle.into_iter().any(|byte| {
        std::thread::sleep(Duration::from_millis(5));
        socket.write_all(byte).is_err()
    });
    assert!(refused);
}

#[test]
fn a_slow_head_does_not_begin_before_its_first_byte() {
    let server = start_within(
        None,
        Limits {
            head: SHORT,
            ..patient()
        },
    );
    let mut socket = server.connect();
    // The second time, the first request's time must not go on.
    for _ in 0..2 {
        std::thread::sleep(SHORT * 2);
        socket
            .write_all(b"GET /k HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        assert_eq!(Answer::read(&mut socket).unwrap().status(), 400);
    }
}

#[test]
fn a_body_that_pauses_is_refused_and_nothing_is_stored() {
    let server = start_within(
        None,
        Limits {
            pause: SHORT,
            idle: SHORT,
            ..patient()
        },
    );
    for headers in [
        "content-length: 9\r\n",
        "content-length: 999999\r\n",
        "transfer-encoding: chunked\r\n",
    ] {
        let mut socket = server.connect();
        socket
            .write_all(put_head(&server, headers).as_bytes())
            .unwrap();
        socket.write_all(b"5\r\nab").unwrap();
        let refusal = Answer::read(&mut socket).unwrap().refusal();
        assert_eq!(refusal, (408, 10001, "Request body timed out".to_owned()));
        assert!(closes(socket));
    }
    assert_eq!(server.keys(), 0);
}

#[test]
fn a_body_below_the_least_rate_is_refused() {
    let limits = Limits {
        pause: SHORT * 2,
        rate: 1 << 20,
        ..patient()
    };
    let server = start_within(None, limits);
    let mut socket = server.connect();
    socket
        .write_all(put_head(&server, "content-length: 999999\r\n").as_bytes())
        .unwrap();
    let mut trickle = socket.try_clone().unwrap();
    std::thread::spawn(move || {
        while trickle.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    assert_eq!(Answer::read(&mut socket).unwrap().status(), 408);
    assert_eq!(server.keys(), 0);
}

#[test]
fn a_reader_that_stops_is_closed() {
    let server = start_within(
        None,
        Limits {
            pause: SHORT,
            ..patient()
        },
    );
    assert_eq!(
        server.inside("PUT", "values/k", &vec![7; MIB_25]).status(),
        200
    );
    let mut socket = server.connect();
    let line = format!(
        "GET {NAMESPACES}/{}/values/k HTTP/1.1\r\nhost: x\r\n\r\n",
        server.id
    );
    socket.write_all(line.as_bytes()).unwrap();
    std::thread::sleep(SHORT * 5);
    let mut all = Vec::new();
    _ = socket.read_to_end(&mut all);
    assert!(all.len() < MIB_25);
}

#[test]
fn a_body_that_takes_too_long_in_all_is_refused() {
    let limits = Limits {
        request: SHORT * 3,
        rate: 1,
        ..patient()
    };
    let server = start_within(None, limits);
    let mut socket = server.connect();
    socket
        .write_all(put_head(&server, "content-length: 999999\r\n").as_bytes())
        .unwrap();
    let mut steady = socket.try_clone().unwrap();
    std::thread::spawn(move || {
        while steady.write_all(b"xxxx").is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    assert_eq!(Answer::read(&mut socket).unwrap().status(), 408);
    assert_eq!(server.keys(), 0);
}

#[test]
fn a_response_that_takes_too_long_in_all_is_cut_off() {
    let limits = Limits {
        request: SHORT * 3,
        rate: 1,
        ..patient()
    };
    let server = start_within(None, limits);
    // Not through the server, which has no time for it.
    let ns = server.store.find_namespace("ns").unwrap();
    ns.put("k", vec![7; MIB_25]).unwrap();
    let mut socket = server.connect();
    let line = format!(
        "GET {NAMESPACES}/{}/values/k HTTP/1.1\r\nhost: x\r\n\r\n",
        server.id
    );
    socket.write_all(line.as_bytes()).unwrap();
    let (mut all, mut piece) = (0, vec![0; 64 << 10]);
    while let Ok(read @ 1..) = socket.read(&mut piece) {
        all += read;
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(all < MIB_25);
}

#[test]
fn an_address_has_so_many_connections_and_loopback_any_number() {
    let limits = Limits {
        per_address: 2,
        ..patient()
    };
    let server = start_within(None, limits);
    let many: Vec<_> = (0..5).map(|_| server.connect()).collect();
    assert_eq!(server.binding("GET /k", "", b"").status(), 404);
    drop(many);
    let Some(address) = address_of_this_machine() else {
        assert!(std::env::var_os("CI").is_none(), "CI has another address");
        say("SKIPPED: this machine has no address but loopback");
        return;
    };
    let server = start_on(address, Options::new(), Some("t"), limits);
    let token = "authorization: Bearer t\r\n";
    let first = server.connect();
    let second = server.connect();
    assert!(closes(server.connect()));
    drop((first, second));
    // Until the server has seen that they are gone, this one is closed, too.
    let get = format!("GET /k HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{token}\r\n");
    while server.send(&[get.as_bytes()]).is_empty() {}
}

/// One that is not loopback. Nothing is sent to find it.
fn address_of_this_machine() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[test]
fn a_line_over_8_kib_is_refused() {
    let server = start(None);
    let line = |len: usize| format!("GET /{}", "k".repeat(len - "GET / HTTP/1.1".len()));
    let answer = server.binding(&line(8193), "", b"");
    assert_eq!(answer.line, "414 Request line exceeds limit of 8192 bytes.");
    // Short enough to be read as a key, which is too long.
    let answer = server.binding(&line(8192), "", b"");
    assert!(
        answer.line.starts_with("414 UTF-8 encoded length of "),
        "{}",
        answer.line
    );
    let path = format!("GET {NAMESPACES}?{}", "q".repeat(9000));
    let text = "Request line exceeds limit of 8192 bytes.".to_owned();
    assert_eq!(server.raw(&path, "", b"").refusal(), (414, 10001, text));
}

#[test]
fn headers_over_16_kib_or_100_are_refused() {
    let server = start(None);
    let wide = format!("x: {}\r\n", "x".repeat(16 * 1024));
    let answer = server.binding("GET /k", &wide, b"");
    assert_eq!(answer.line, "431 Headers exceed limit of 16384 bytes.");
    let fits = format!("x: {}\r\n", "x".repeat(16_000));
    assert_eq!(server.binding("GET /k", &fits, b"").status(), 404);
    let many = "x: x\r\n".repeat(100);
    let answer = server.binding("GET /k", &many, b"");
    assert_eq!(answer.line, "431 Request Header Fields Too Large");
    let few = "x: x\r\n".repeat(90);
    assert_eq!(server.binding("GET /k", &few, b"").status(), 404);
}

#[test]
fn a_head_without_end_is_cut_off() {
    let server = start(None);
    let endless = vec![b'x'; 1 << 20];
    for start in ["GET /", "GET / HTTP/1.1\r\nx: "] {
        let said = server.send(&[start.as_bytes(), &endless]);
        // The reset of the connection may overtake the answer.
        assert!(
            said.is_empty() || said.starts_with(b"HTTP/1.1 4"),
            "{start}"
        );
    }
    assert_eq!(server.binding("GET /k", "", b"").status(), 404);
}

#[test]
fn beyond_the_most_connections_the_next_one_waits() {
    let server = start_within(
        None,
        Limits {
            connections: 1,
            idle: SHORT,
            ..patient()
        },
    );
    let first = server.connect();
    assert_eq!(server.binding("GET /k", "", b"").status(), 404);
    assert!(closes(first));
}

#[test]
fn bodies_beyond_the_memory_for_all_are_told_to_come_back() {
    let server = start_within(
        None,
        Limits {
            memory: 1 << 20,
            ..patient()
        },
    );
    let busy = (
        503,
        10022,
        "The server is busy with other bodies; try again".to_owned(),
    );
    let form = vec![b'x'; 2 << 20];
    let bulk = vec![b' '; 2 << 20];
    for _ in 0..3 {
        let answer = server.inside("PUT", "bulk", &bulk);
        assert!(answer.head.contains("retry-after: 1"), "{}", answer.head);
        assert_eq!(answer.refusal(), busy);
        assert_eq!(server.form("values/k", &form).refusal(), busy);
    }
    // What a refused request held is free again, and a value that streams needs little.
    assert_eq!(server.inside("PUT", "values/k", &form).status(), 200);
    assert_eq!(server.inside("PUT", "bulk", b"[]").status(), 200);
    let line = server.binding("PUT /k", "", &form).line;
    assert_eq!(line, "200 OK");
}

#[test]
fn memory_is_shared_between_requests() {
    let server = start_within(
        None,
        Limits {
            memory: 1 << 20,
            ..patient()
        },
    );
    let id = &server.id;
    let head = format!(
        "PUT {NAMESPACES}/{id}/bulk HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n"
    );
    let more = vec![b' '; 100_000];
    let holding = || {
        let mut socket = server.connect();
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(&vec![b' '; 999_999]).unwrap();
        socket
    };
    // Whichever of the two comes late finds no room.
    let mut held = holding();
    while server.inside("PUT", "bulk", &more).status() != 503 {
        held = holding();
    }
    drop(held);
    while server.inside("PUT", "bulk", &more).status() == 503 {}
}

#[test]
fn a_client_that_asks_first_is_refused_before_it_sends() {
    let server = start_within(None, patient());
    let mut socket = server.connect();
    let headers = "content-length: 99999999\r\nexpect: 100-continue\r\n";
    socket
        .write_all(put_head(&server, headers).as_bytes())
        .unwrap();
    assert_eq!(Answer::read(&mut socket).unwrap().status(), 413);
    assert!(closes(socket));
    let mut socket = server.connect();
    let headers = "content-length: 1\r\nexpect: 100-continue\r\n";
    socket
        .write_all(put_head(&server, headers).as_bytes())
        .unwrap();
    assert_eq!(Answer::read(&mut socket).unwrap().line, "100 Continue");
    socket.write_all(b"v").unwrap();
    assert_eq!(Answer::read(&mut socket).unwrap().status(), 200);
}
