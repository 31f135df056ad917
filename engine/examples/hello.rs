//! Opens a store, puts, gets and lists: `cargo run -p rimstone --example hello -- DIRECTORY`.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use rimstone::{ListOptions, PutOptions, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args_os().nth(1).ok_or("usage: hello DIRECTORY")?;
    let store = Store::open(directory)?;
    let flags = store.namespace("flags")?;

    // Durable when this returns.
    flags.put("user:1", "on")?;
    let hour = PutOptions::new()
        .expiration_ttl(Duration::from_secs(3600))
        .metadata(r#"{"by":"hello"}"#);
    flags.put_with("user:2", "off", &hour)?;

    if let Some(value) = flags.get("user:1")? {
        println!("user:1 is {}", String::from_utf8_lossy(&value));
    }

    let mut options = ListOptions::new().prefix("user:").limit(100);
    loop {
        let page = flags.list(&options)?;
        for key in page.keys() {
            let name = String::from_utf8_lossy(key.name);
            println!("{name} expires at {:?}", key.expiration);
        }
        let Some(cursor) = page.cursor else { break };
        options = options.cursor(cursor);
    }
    store.close()?;
    Ok(())
}
