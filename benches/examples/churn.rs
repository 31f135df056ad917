//! Overwrites keys at random for long, and prints what space and the slowest puts cost.
//!
//! `cargo run --release -p rimstone-bench --example churn -- NEW_DIRECTORY [KEYS] [ROUNDS]`
#![allow(clippy::print_stdout, reason = "that is what it is for")]

use std::time::{Duration, Instant};

use rimstone::{Durability, Options};

/// Bytes of a value.
const VALUE: usize = 400;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("name a new directory")?;
    let keys: u64 = args.next().map_or(Ok(500_000), |text| text.parse())?;
    let rounds: u64 = args.next().map_or(Ok(10), |text| text.parse())?;
    let store = Options::new().durability(Durability::None).open(dir)?;
    let namespace = store.namespace("churn")?;
    let mut random = 1u64;
    for round in 0..rounds {
        let (began, mut longest, mut slow) = (Instant::now(), Duration::ZERO, 0);
        for n in 0..keys {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            // The first round fills the store.
            let key = if round == 0 { n } else { (random >> 33) % keys };
            let put = Instant::now();
            namespace.put(format!("user:{key:012}"), [7; VALUE])?;
            let took = put.elapsed();
            longest = longest.max(took);
            slow += u64::from(took > Duration::from_millis(10));
        }
        let (stats, took) = (store.stats(), began.elapsed());
        let (disk, live) = (stats.disk_bytes >> 20, stats.live_bytes >> 20);
        println!(
            "{took:.1?}: {disk} MiB for {live} live; longest put {longest:.1?}, {slow} over 10 ms"
        );
    }
    store.close()?;
    Ok(())
}
