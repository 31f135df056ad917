//! Streams a file into a store and out again, in pieces of 64 KiB whatever its size:
//! `cargo run -p rimstone --example stream -- DIRECTORY FILE`.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]
#![allow(clippy::disallowed_methods, reason = "the file is the user's own")]

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};

use rimstone::{PutOptions, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (directory, path) = arguments
        .next()
        .zip(arguments.next())
        .ok_or("usage: stream DIRECTORY FILE")?;
    let store = Store::open(directory)?;
    let files = store.namespace("files")?;

    let mut input = BufReader::new(File::open(&path)?);
    let mut writer = files.writer("file", &PutOptions::new())?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len = input.read(&mut buffer)?;
        let Some(piece) = buffer.get(..len).filter(|piece| !piece.is_empty()) else {
            break;
        };
        writer.write(piece)?;
    }
    // Nothing is stored before this; a writer that is dropped leaves nothing behind.
    writer.finish()?;

    let mut copy = path.clone();
    copy.push(".copy");
    let mut output = BufWriter::new(File::create(&copy)?);
    let stream = files.stream("file")?.ok_or("it was just stored")?;
    let len = stream.len();
    for piece in stream {
        // Each piece was verified against its checksum.
        output.write_all(&piece?)?;
    }
    output.flush()?;
    println!("{len} bytes are in {}", copy.display());
    store.close()?;
    Ok(())
}
