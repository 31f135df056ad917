//! A node in front of a slow origin: each reader says how old a value may be, one caller at a time
//! fetches a key, and a write is seen by everybody who asks after it.
//!
//! `cargo run -p rimstone-cache --example edge`
#![allow(clippy::print_stdout, reason = "an example shows what happens")]

use std::convert::Infallible;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use rimstone_cache::{Cache, MissCost, Value};

/// The value at the origin, and how often it was asked for.
struct Origin(Mutex<(String, u32)>);

impl Origin {
    fn fetch(&self) -> Result<Value<'static>, Infallible> {
        let mut origin = self.0.lock().unwrap_or_else(|failed| failed.into_inner());
        origin.1 += 1;
        let value = Value::from(origin.0.clone().into_bytes());
        Ok(value.ttl(Duration::from_secs(60)))
    }
}

fn main() {
    let origin = Origin(Mutex::new(("dark".to_owned(), 0)));
    let cache = Cache::builder(64 << 20)
        .miss_cost(MissCost::remote())
        .stale_while_revalidate(Duration::from_secs(30))
        .refresh_ahead(0.1)
        .build();
    let key = (7, "theme");
    let cache_ttl = Some(Duration::from_secs(30));

    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| cache.try_get_with(key, cache_ttl, || origin.fetch()));
        }
    });
    let stats = cache.stats();
    println!(
        "100 readers: {} hits, {} waited",
        stats.hits, stats.coalesced
    );

    // A write: the origin first, then the cache, and only then is it acknowledged.
    if let Ok(mut origin) = origin.0.lock() {
        origin.0 = "light".to_owned();
    }
    cache.invalidate(key);
    let entry = cache.try_get_with(key, cache_ttl, || origin.fetch());
    let Ok(entry) = entry;
    println!(
        "after the write: {}",
        String::from_utf8_lossy(entry.value())
    );
    let fetches = origin.0.lock().map_or(0, |origin| origin.1);
    println!("the origin was asked {fetches} times");
}
