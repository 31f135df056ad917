//! Requests: generated, with fixed seeds, or read from a file.

use std::fs;

use fastrand::Rng;

/// One read of a key; a miss fetches `size` bytes.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// In seconds, never less than that of the request before.
    pub time: u32,
    pub key: u64,
    pub size: u32,
}

/// Ranks with a probability in proportion to `1 / rank^skew`, by their cumulated weights.
pub struct Zipf(Vec<f64>);

impl Zipf {
    pub fn new(keys: usize, skew: f64) -> Zipf {
        let mut sum = 0.0;
        let weights = (1..=keys).map(|rank| (rank as f64).powf(-skew));
        Zipf(
            weights
                .map(|w| {
                    sum += w;
                    sum
                })
                .collect(),
        )
    }

    pub fn draw(&self, rng: &mut Rng) -> u64 {
        let total = self.0.last().copied().expect("keys");
        let at = rng.f64() * total;
        self.0.partition_point(|sum| *sum < at) as u64
    }
}

/// Numbers that look like nothing, different for different inputs.
pub fn scramble(n: u64) -> u64 {
    let n = (n ^ (n >> 31)).wrapping_mul(0x7FB5_D329_728E_A185);
    let n = (n ^ (n >> 27)).wrapping_mul(0x81DA_DEF4_BC2D_D44D);
    n ^ (n >> 33)
}

/// A size that belongs to a key: spread evenly over the powers of ten from 100 B to 100 MB.
pub fn size_of(key: u64) -> u32 {
    let part = (scramble(key ^ 77) >> 11) as f64 / (1u64 << 53) as f64;
    10f64.powf(2.0 + 6.0 * part) as u32
}

/// A workload: its name, its requests, and how many entries (or bytes, with sizes) fit.
pub struct Workload {
    pub name: String,
    pub requests: Vec<Request>,
    pub capacity: u64,
    pub sized: bool,
    /// Seconds for which a fetched value is fresh.
    pub ttl: Option<u32>,
}

impl Workload {
    /// Those that are summed up together.
    pub fn kind(&self) -> &'static str {
        match self {
            Workload { sized: true, .. } => "with sizes",
            Workload { name, .. } if name.starts_with("unseen") => "unseen",
            Workload { name, .. } if name.starts_with("drawn") => "drawn",
            Workload { name, .. } if name.starts_with("tuned") => "tuned",
            Workload { .. } => "unit sizes",
        }
    }
}

const REQUESTS: usize = 1_000_000;
const KEYS: usize = 200_000;

fn unit(name: &str, capacity: u64, keys: impl Iterator<Item = u64>) -> Workload {
    let request = |key| Request {
        time: 0,
        key: scramble(key),
        size: 1,
    };
    Workload {
        name: name.to_owned(),
        requests: keys.take(REQUESTS).map(request).collect(),
        capacity,
        sized: false,
        ttl: None,
    }
}

fn zipf(name: &str, skew: f64, capacity: u64) -> Workload {
    let (zipf, mut rng) = (Zipf::new(KEYS, skew), Rng::with_seed(1));
    unit(
        name,
        capacity,
        std::iter::repeat_with(move || zipf.draw(&mut rng)),
    )
}

/// A zipf whose hot keys become others, a few at a time.
fn shifting(skew: f64, every: u64) -> impl Iterator<Item = u64> {
    let (zipf, mut rng) = (Zipf::new(KEYS, skew), Rng::with_seed(2));
    (0u64..).map(move |at| zipf.draw(&mut rng) + at / every)
}

/// Zipf with a scan of keys that nobody asks for again in one fifth of the time.
fn scans() -> impl Iterator<Item = u64> {
    let (zipf, mut rng) = (Zipf::new(KEYS, 0.9), Rng::with_seed(3));
    let scanned = 1 << 40;
    (0u64..).map(move |at| match at % 100_000 {
        80_000.. => scanned + at,
        _ => zipf.draw(&mut rng),
    })
}

/// Two loops, one that fits and one that does not.
fn loops(capacity: u64) -> impl Iterator<Item = u64> {
    (0u64..).map(move |at| match at % 3 {
        0 => at / 3 % (capacity / 4),
        _ => (1 << 40) + at / 3 * 2 % (2 * capacity) + at % 3,
    })
}

/// Half of the requests read a new key a few times within a short while, the others are zipf.
fn bursts() -> impl Iterator<Item = u64> {
    let (zipf, mut rng) = (Zipf::new(KEYS, 0.8), Rng::with_seed(4));
    (0u64..).map(move |at| {
        if rng.bool() {
            let age = (rng.f64().powi(3) * 20_000.0) as u64;
            (1 << 40) + (at.saturating_sub(age)) / 4
        } else {
            zipf.draw(&mut rng)
        }
    })
}

/// What was read a moment ago is read again: distances of reuse spread evenly over powers of ten.
fn recency() -> impl Iterator<Item = u64> {
    let (mut rng, mut past, mut new) = (Rng::with_seed(5), Vec::new(), 0);
    std::iter::repeat_with(move || {
        let distance = 10f64.powf(rng.f64() * 5.5) as usize;
        let key = if past.len() > distance {
            past[past.len() - 1 - distance]
        } else {
            new += 1;
            new
        };
        past.push(key);
        key
    })
}

/// Zipf, and a third of keys that come once.
fn once() -> impl Iterator<Item = u64> {
    let (zipf, mut rng) = (Zipf::new(KEYS, 0.9), Rng::with_seed(6));
    (0u64..).map(move |at| {
        if rng.u8(..) < 85 {
            (1 << 40) + at
        } else {
            zipf.draw(&mut rng)
        }
    })
}

fn uniform() -> impl Iterator<Item = u64> {
    let mut rng = Rng::with_seed(7);
    std::iter::repeat_with(move || rng.u64(..KEYS as u64))
}

/// A zipf of which nothing is fresh for long: the requests are spread over ten minutes.
fn short_lived() -> Workload {
    let mut workload = zipf("zipf 0.9, ttl 60 s", 0.9, 20_000);
    for (at, request) in workload.requests.iter_mut().enumerate() {
        request.time = (at * 600 / REQUESTS) as u32;
    }
    workload.ttl = Some(60);
    workload
}

/// The same keys with sizes over six orders of magnitude, and room for this part of all bytes.
fn with_sizes(mut workload: Workload, name: &str, part: f64) -> Workload {
    let mut total = 0;
    let mut seen = std::collections::HashSet::new();
    for request in &mut workload.requests {
        request.size = size_of(request.key);
        total += if seen.insert(request.key) {
            u64::from(request.size)
        } else {
            0
        };
    }
    Workload {
        name: name.to_owned(),
        capacity: (total as f64 * part) as u64,
        sized: true,
        ..workload
    }
}

pub fn all() -> Vec<Workload> {
    vec![
        zipf("zipf 0.7", 0.7, 20_000),
        zipf("zipf 0.9", 0.9, 10_000),
        zipf("zipf 1.1", 1.1, 2_000),
        unit("uniform", 20_000, uniform()),
        unit("loops", 20_000, loops(20_000)),
        unit("scans in zipf 0.9", 10_000, scans()),
        unit("one-hit keys in zipf 0.9", 10_000, once()),
        unit("hot set shifts slowly", 10_000, shifting(0.9, 100)),
        unit("hot set shifts fast", 10_000, shifting(1.0, 5)),
        unit("bursts in zipf 0.8", 10_000, bursts()),
        unit("recency", 20_000, recency()),
        short_lived(),
        with_sizes(zipf("", 0.7, 0), "sizes, zipf 0.7", 0.05),
        with_sizes(zipf("", 1.0, 0), "sizes, zipf 1.0", 0.01),
        with_sizes(
            unit("", 0, shifting(0.9, 20)),
            "sizes, hot set shifts",
            0.02,
        ),
        with_sizes(unit("", 0, once()), "sizes, one-hit keys", 0.02),
    ]
}

/// Hot keys that become others all at once, now and then; seeds and skews that nothing was tuned with.
fn jumps(skew: f64, every: u64) -> impl Iterator<Item = u64> {
    let (zipf, mut rng) = (Zipf::new(KEYS, skew), Rng::with_seed(11));
    (0u64..).map(move |at| scramble(zipf.draw(&mut rng) ^ (at / every) << 40))
}

/// Tenants of different skews, of which another one is busy every while.
fn tenants() -> impl Iterator<Item = u64> {
    let skews = [0.6, 0.8, 1.0, 1.2];
    let zipfs = skews.map(|skew| Zipf::new(KEYS / 4, skew));
    let mut rng = Rng::with_seed(12);
    (0usize..).map(move |at| {
        let busy = at / 50_000 % zipfs.len();
        let tenant = if rng.bool() {
            busy
        } else {
            rng.usize(..zipfs.len())
        };
        (tenant as u64) << 40 | zipfs[tenant].draw(&mut rng)
    })
}

/// A walk over all keys in a third of the time, and a zipf that drifts.
fn walk_and_drift() -> impl Iterator<Item = u64> {
    let (zipf, mut rng) = (Zipf::new(KEYS, 0.85), Rng::with_seed(13));
    (0u64..).map(move |at| match at % 3 {
        0 => 1 << 40 | at / 3 % 50_000,
        _ => zipf.draw(&mut rng) + at / 40,
    })
}

/// Half of the requests walk again and again over a little more than fits, the others are zipf.
fn walk_over_too_many() -> impl Iterator<Item = u64> {
    let (zipf, mut rng) = (Zipf::new(KEYS, 0.75), Rng::with_seed(14));
    (0u64..).map(move |at| match at % 2 {
        0 => 1 << 40 | at / 2 % 14_000,
        _ => zipf.draw(&mut rng),
    })
}

/// A new key every few requests; the older one is, the less it is asked for.
fn news() -> impl Iterator<Item = u64> {
    let mut rng = Rng::with_seed(15);
    (0u64..).map(move |at| {
        let age = (rng.f64() * (KEYS as f64).ln()).exp() as u64;
        (1 << 40) + at / 6 - age
    })
}

/// What the policy was not tuned with: run and told, but never looked at for a choice.
pub fn unseen() -> Vec<Workload> {
    vec![
        unit("unseen: hot set jumps", 10_000, jumps(0.9, 150_000)),
        unit("unseen: tenants take turns", 15_000, tenants()),
        unit("unseen: walk and drift", 15_000, walk_and_drift()),
        unit("unseen: walk over too many", 12_000, walk_over_too_many()),
        unit("unseen: news", 8_000, news()),
    ]
}

type Keys = Box<dyn Iterator<Item = u64>>;

/// A part of a drawn workload: what it is, in words, and its keys. `capacity` entries fit.
fn draw_part(kind: usize, capacity: u64, draw: &mut Rng) -> (String, Keys) {
    let mut rng = Rng::with_seed(draw.u64(..));
    let skew = 0.6 + 0.6 * draw.f64();
    let zipf = Zipf::new(KEYS, skew);
    let mut between = |least: f64, most: f64| least * (most / least).powf(draw.f64());
    let requests = 0u64..;
    match kind {
        0 => (
            format!("zipf {skew:.2}"),
            Box::new(requests.map(move |_| zipf.draw(&mut rng))),
        ),
        1 => {
            let every = between(3.0, 300.0) as u64;
            (
                format!("zipf {skew:.2} drifts by one in {every}"),
                Box::new(requests.map(move |at| zipf.draw(&mut rng) + at / every)),
            )
        }
        2 => {
            let every = between(10_000.0, 300_000.0) as u64;
            (
                format!("zipf {skew:.2} becomes others in {every}"),
                Box::new(
                    requests.map(move |at| scramble(zipf.draw(&mut rng) ^ (at / every) << 40)),
                ),
            )
        }
        3 => {
            let scan = between(0.3, 5.0) * capacity as f64;
            let (scan, pause) = (scan as u64 + 1, (between(0.5, 5.0) * scan) as u64 + 1);
            (
                format!("zipf {skew:.2}, scans of {scan} after {pause}"),
                Box::new(requests.map(move |at| match at % (scan + pause) < scan {
                    true => 1 << 40 | at,
                    false => zipf.draw(&mut rng),
                })),
            )
        }
        4 => {
            let len = between(0.8, 2.0) * capacity as f64;
            let len = len as u64 + 1;
            (
                format!("a loop of {len}"),
                Box::new(requests.map(move |at| 1 << 41 | at % len)),
            )
        }
        5 => {
            let reads = between(2.0, 8.0) as u64;
            let within = between(0.2, 5.0) * capacity as f64;
            (
                format!("bursts of {reads} within {within:.0}"),
                Box::new(requests.map(move |at| {
                    let age = (rng.f64().powi(3) * within) as u64;
                    1 << 42 | at.saturating_sub(age) / reads
                })),
            )
        }
        6 => {
            let farthest = between(1.5, 20.0) * capacity as f64;
            let mut past = Vec::new();
            (
                format!("read again within {farthest:.0}"),
                Box::new(requests.map(move |at| {
                    let distance = farthest.powf(rng.f64()) as usize;
                    let old = past.len().checked_sub(1 + distance);
                    let key = old.map_or(1 << 43 | at, |old| past[old]);
                    past.push(key);
                    key
                })),
            )
        }
        7 => {
            let every = between(2.0, 20.0) as u64;
            (
                format!("news, one in {every}"),
                Box::new(requests.map(move |at| {
                    let age = (rng.f64() * (KEYS as f64).ln()).exp() as u64;
                    (1 << 44) + at / every - age
                })),
            )
        }
        _ => {
            let part = between(0.1, 0.6);
            (
                format!("zipf {skew:.2}, {:.0} % come once", 100.0 * part),
                Box::new(requests.map(move |at| match rng.f64() < part {
                    true => 1 << 45 | at,
                    false => zipf.draw(&mut rng),
                })),
            )
        }
    }
}

/// Workloads whose parameters are drawn: one of each kind, then mixtures and turns of two kinds.
fn draw_all(name: &str, seed: u64) -> Vec<Workload> {
    let mut draw = Rng::with_seed(seed);
    let workload = |at: usize| {
        let capacity = (KEYS as f64 * 0.001 * 200f64.powf(draw.f64())) as u64;
        let (first, mut keys) = draw_part(
            if at < 9 { at } else { draw.usize(..9) },
            capacity,
            &mut draw,
        );
        let (second, mut others) = draw_part(draw.usize(..9), capacity, &mut draw);
        let turn = 1 << draw.u32(14..18);
        let (name, keys): (String, Keys) = match at {
            0..9 => (format!("{name}: {first}"), keys),
            9..12 => {
                let mut rng = Rng::with_seed(draw.u64(..));
                let mixed = std::iter::from_fn(move || {
                    if rng.bool() {
                        keys.next()
                    } else {
                        others.next()
                    }
                });
                (format!("{name}: {first} and {second}"), Box::new(mixed))
            }
            _ => {
                let turns = (0u32..).map_while(move |at| {
                    if at / turn % 2 == 0 {
                        keys.next()
                    } else {
                        others.next()
                    }
                });
                (
                    format!("{name}: {first}, then {second} in turns of {turn}"),
                    Box::new(turns),
                )
            }
        };
        unit(&format!("{name}, {capacity} fit"), capacity, keys)
    };
    (0..15).map(workload).collect()
}

/// Workloads that settings are chosen by.
pub fn tuned() -> Vec<Workload> {
    draw_all("tuned", 1)
}

/// Workloads of the same kinds that no setting was chosen by.
pub fn drawn() -> Vec<Workload> {
    draw_all("drawn", 2)
}

/// Reads a trace: a request a line, `time key size`, separated by blanks; time in seconds, a key of
/// any characters but blanks, size in bytes. Empty lines and those that begin with `#` are skipped.
pub fn read(file: &str) -> Vec<Request> {
    let text = fs::read_to_string(file).expect("a trace file");
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(parse).collect()
}

fn parse(line: &str) -> Request {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [time, key, size] = fields[..] else {
        panic!("not `time key size`: {line}")
    };
    let time: f64 = time.parse().expect("seconds");
    let key = key
        .bytes()
        .fold(0, |hash, byte| scramble(hash ^ u64::from(byte)));
    Request {
        time: time as u32,
        key,
        size: size.parse().expect("bytes"),
    }
}
