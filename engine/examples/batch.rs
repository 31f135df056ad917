//! Changes two namespaces together or not at all: `cargo run -p rimstone --example batch -- DIRECTORY`.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use rimstone::{Error, PutOptions, Store, WriteBatch};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args_os().nth(1).ok_or("usage: batch DIRECTORY")?;
    let store = Store::open(directory)?;
    let users = store.namespace("users")?;
    let names = store.namespace("names")?;

    let mut batch = WriteBatch::new();
    batch.put(&users, "1", r#"{"name":"ada"}"#);
    // If the name is taken, the user is not stored either.
    batch.put_with(&names, "ada", "1", &PutOptions::new().if_absent());
    match store.write(batch) {
        Ok(()) => println!("stored"),
        Err(Error::Conflict { .. }) => println!("the name is taken, and nothing was stored"),
        Err(error) => return Err(error.into()),
    }
    store.close()?;
    Ok(())
}
