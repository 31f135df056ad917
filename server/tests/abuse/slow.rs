//! Clients that take their time, all at once.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use rimstone_server::limits::Limits;

use crate::support::{MIB_25, NAMESPACES, start_within};

const SHORT: Duration = Duration::from_millis(100);
/// Far longer than any limit of these tests.
const LONG: Duration = Duration::from_secs(60);

/// What a slow client does; then it waits to be cut off.
pub(super) enum Act {
    Send(Vec<u8>),
    /// The byte, over and over, until the server has enough.
    Trickle(u8),
    /// Reads a byte in a while, for longer than is allowed.
    Sip,
    /// Does nothing for longer than is allowed.
    Rest,
    /// A whole response is read.
    Receive,
}

use Act::{Receive, Rest, Send, Sip, Trickle};

pub(super) type Case = Vec<Act>;

fn send(bytes: impl Into<Vec<u8>>) -> Act {
    Send(bytes.into())
}

/// For a server whose namespace `ns` has this id and a large value `large`.
pub(super) fn cases(id: &str) -> Vec<Case> {
    let inside = format!("{NAMESPACES}/{id}");
    let put = |headers: &str| {
        send(format!(
            "PUT {inside}/values/k HTTP/1.1\r\nhost: x\r\n{headers}\r\n"
        ))
    };
    let bulk = format!("PUT {inside}/bulk HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n[");
    let form = "content-type: multipart/form-data; boundary=B\r\ncontent-length: 999\r\n";
    let large = format!("GET {inside}/values/large HTTP/1.1\r\nhost: x\r\n\r\n");
    let get = "GET /k HTTP/1.1\r\nhost: x\r\nx-kv-namespace: ns\r\n\r\n";
    let declared = || put("content-length: 9999999\r\n");
    let chunked = || put("transfer-encoding: chunked\r\n");
    vec![
        // Heads.
        vec![],
        vec![send("G")],
        vec![send("\r\n")],
        vec![send("GET /k")],
        vec![send("GET /k HTTP/1.1\r")],
        vec![send("GET /k HTTP/1.1\r\n")],
        vec![send("GET /k HTTP/1.1\r\nhos")],
        vec![send("GET /k HTTP/1.1\r\nhost: x\r\n\r")],
        vec![Trickle(b'G')],
        vec![send("GET /"), Trickle(b'k')],
        vec![send("GET /k HTTP/1.1\r\nx: "), Trickle(b'x')],
        // After a request that was answered.
        vec![send(get), Receive],
        vec![send(get), Receive, send("GET /k HT")],
        vec![send(get), Receive, Trickle(b'G')],
        // Bodies.
        vec![declared()],
        vec![declared(), send("v")],
        vec![declared(), Trickle(b'v')],
        vec![chunked()],
        vec![chunked(), send("f")],
        vec![chunked(), send("5\r\nab")],
        vec![chunked(), send("1\r\nv\r\n")],
        vec![chunked(), send("1\r\nv\r\n0\r\n")],
        vec![chunked(), send("fffff\r\n"), Trickle(b'v')],
        vec![send(bulk)],
        vec![
            put(form),
            send("--B\r\ncontent-disposition: form-data; name=\"val"),
        ],
        // Responses.
        vec![send(large.clone()), Rest],
        vec![send(large.clone()), Sip],
        vec![send(large.repeat(20)), Rest],
    ]
}

/// Acts until the server ends the connection; `false` if it does not.
fn is_cut_off(mut socket: TcpStream, case: &Case) -> bool {
    socket.set_read_timeout(Some(LONG)).unwrap();
    let mut byte = [0];
    for act in case {
        match act {
            Send(bytes) => socket.write_all(bytes).unwrap(),
            Trickle(byte) => {
                while socket.write_all(&[*byte]).is_ok() {
                    thread::sleep(SHORT / 20)
                }
            }
            Sip => {
                for _ in 0..100 {
                    _ = socket.read(&mut byte);
                    thread::sleep(SHORT / 10);
                }
            }
            Rest => thread::sleep(SHORT * 10),
            Receive => assert!(socket.read(&mut [0; 1024]).unwrap() > 0),
        }
    }
    // What was said before is in the way.
    let told = socket.read_to_end(&mut Vec::new());
    match told {
        Ok(read) => read < MIB_25,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn whoever_takes_too_long_is_cut_off_and_others_are_served() {
    let limits = Limits {
        idle: SHORT * 2,
        head: SHORT * 2,
        pause: SHORT * 2,
        rate: 1 << 20,
        ..Limits::default()
    };
    let server = start_within(None, limits);
    assert_eq!(
        server
            .inside("PUT", "values/large", &vec![7; MIB_25])
            .status(),
        200
    );
    let cases = cases(&server.id);
    thread::scope(|scope| {
        let slow: Vec<_> = (0..)
            .zip(&cases)
            .map(|(number, case)| {
                let socket = server.connect();
                (number, scope.spawn(move || is_cut_off(socket, case)))
            })
            .collect();
        while !slow.iter().all(|(_, client)| client.is_finished()) {
            assert_eq!(server.binding("GET /k", "", b"").status(), 404);
        }
        for (number, client) in slow {
            assert!(client.join().unwrap(), "case {number}");
        }
    });
    assert_eq!(server.keys(), 1);
}
