//! How much of a segment expires when.

use crate::is_erasable;

/// Two buckets for each power of two of seconds, as far as a `u32` goes.
const BUCKETS: usize = 64;
const _: () = {
    assert!(BUCKETS == 2 * u32::BITS as usize);
    assert!(BUCKETS < u8::MAX as usize, "its number is a byte");
};

/// The bytes of a segment by their expiration, counted from a second at which it was new.
///
/// A bucket is half a power of two wide: what is 40 days away is known to within two weeks, what is
/// an hour away to within 20 minutes. Its bytes count as live until the last second of the bucket.
#[derive(Clone, Debug)]
pub struct Expiries {
    since: u64,
    buckets: [u64; BUCKETS],
    lasting: u64,
}

impl Expiries {
    /// Returns an empty count.
    pub fn new(since: u64) -> Expiries {
        Expiries {
            since,
            buckets: [0; BUCKETS],
            lasting: 0,
        }
    }

    /// Returns the second from which it counts, and the bytes in each bucket that has any, by number.
    pub fn parts(&self) -> (u64, Vec<(u8, u64)>) {
        let all = self.buckets.iter().chain([&self.lasting]);
        let numbered = (0u8..).zip(all.copied());
        (
            self.since,
            numbered.filter(|(_, bytes)| *bytes > 0).collect(),
        )
    }

    /// Returns the count of which these are the parts; a bucket that there is not counts as lasting.
    pub fn from_parts(since: u64, parts: &[(u8, u64)]) -> Expiries {
        let mut expiries = Expiries::new(since);
        for (bucket, bytes) in parts {
            let place = expiries.buckets.get_mut(usize::from(*bucket));
            let place = place.unwrap_or(&mut expiries.lasting);
            *place = place.saturating_add(*bytes);
        }
        expiries
    }

    /// Counts a record that is visible up to this second, `u64::MAX` for ever.
    pub fn add(&mut self, last_visible: u64, bytes: u64) {
        let place = self.place(last_visible);
        *place = place.saturating_add(bytes);
    }

    /// No longer counts a record.
    pub fn remove(&mut self, last_visible: u64, bytes: u64) {
        let place = self.place(last_visible);
        *place = place.saturating_sub(bytes);
    }

    /// Returns how many bytes are not erasable yet, and for how many seconds more they are visible, on
    /// average; what lasts for ever counts as `ever` seconds.
    pub fn live(&self, now: u64, ever: u64) -> (u64, u64) {
        let mut bytes = self.lasting;
        let mut seconds = u128::from(self.lasting) * u128::from(ever);
        for (bucket, count) in (0u32..).zip(self.buckets) {
            let end = self.since.saturating_add(last_second(bucket));
            if !is_erasable(end, now) {
                bytes = bytes.saturating_add(count);
                seconds += u128::from(count) * u128::from(end.saturating_sub(now).min(ever));
            }
        }
        let mean = seconds / u128::from(bytes.max(1));
        debug_assert!(bytes >= self.lasting, "what lasts is never erasable");
        debug_assert!(
            mean <= u128::from(ever),
            "nothing lasts longer than for ever"
        );
        (bytes, u64::try_from(mean).unwrap_or(u64::MAX))
    }

    fn place(&mut self, last_visible: u64) -> &mut u64 {
        let after = last_visible.saturating_sub(self.since);
        match u32::try_from(after) {
            Err(_) => &mut self.lasting,
            Ok(after) => {
                let bucket = usize::try_from(bucket(after)).unwrap_or(BUCKETS);
                self.buckets.get_mut(bucket).unwrap_or(&mut self.lasting)
            }
        }
    }
}

/// The highest bit of a number, and the bit below it.
fn bucket(after: u32) -> u32 {
    let bucket = match after.checked_ilog2() {
        None | Some(0) => after,
        Some(bit) => 2 * bit + ((after >> (bit - 1)) & 1),
    };
    debug_assert!((bucket as usize) < BUCKETS, "there is one for every number");
    debug_assert!(
        u64::from(after) <= last_second(bucket),
        "nothing is given up too soon"
    );
    bucket
}

/// The highest number in a bucket.
fn last_second(bucket: u32) -> u64 {
    debug_assert!((bucket as usize) < BUCKETS, "there is no such bucket");
    match bucket {
        0 | 1 => u64::from(bucket),
        _ => (u64::from(3 + (bucket & 1)) << (bucket / 2 - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GRACE;

    #[test]
    fn every_second_is_in_the_first_bucket_that_ends_after_it() {
        for after in (0..70_000).chain((16..32).flat_map(|b| [(1 << b) - 1, 1 << b, 3 << (b - 1)]))
        {
            let bucket = bucket(after);
            assert!(u64::from(after) <= last_second(bucket), "{after}");
            assert!(
                bucket == 0 || u64::from(after) > last_second(bucket - 1),
                "{after}"
            );
        }
        assert_eq!(bucket(u32::MAX), 63);
    }

    #[test]
    fn bytes_and_their_life_are_those_of_the_buckets() {
        let mut expiries = Expiries::new(1_000);
        assert_eq!(expiries.parts(), (1_000, Vec::new()));
        assert_eq!(expiries.live(0, 50), (0, 0));
        expiries.add(u64::MAX, 1);
        assert_eq!(expiries.live(0, 50), (1, 50));
        // Five seconds after it was new, and in a bucket that ends with that second; and 95, in one of 64 to 95.
        expiries.add(1_005, 1);
        expiries.add(1_090, 2);
        let bucket = |after| u8::try_from(bucket(after)).unwrap_or(u8::MAX);
        let parts = vec![(bucket(5), 1), (bucket(95), 2), (64, 1)];
        assert_eq!(expiries.parts(), (1_000, parts));
        assert_eq!(expiries.live(1_000, 50), (4, (50 + 5 + 2 * 50) / 4));
        assert_eq!(expiries.live(1_000, 1_000), (4, (1_000 + 5 + 2 * 95) / 4));
        assert_eq!(expiries.live(1_005 + GRACE, 8), (4, 2), "to the second");
        assert_eq!(expiries.live(1_006 + GRACE, 8), (3, 8 / 3));
        assert_eq!(expiries.live(1_096 + GRACE, 8), (1, 8));
        expiries.remove(1_005, 1);
        expiries.remove(u64::MAX, 5);
        assert_eq!(expiries.parts(), (1_000, vec![(bucket(95), 2)]));
    }

    #[test]
    fn what_is_not_erasable_counts_as_live() {
        let mut expiries = Expiries::new(1_000);
        let seconds = [1_000, 1_001, 1_100, 5_000, 90_000, 3_000_000, u64::MAX];
        for last_visible in seconds {
            expiries.add(last_visible, 10);
        }
        for now in (1_000..4_000_000).step_by(777) {
            let exact = seconds.iter().filter(|s| !is_erasable(**s, now)).count() as u64 * 10;
            let (live, life) = expiries.live(now, 1 << 20);
            assert!(live >= exact && life <= 1 << 20, "{now}: {live} {exact}");
        }
        assert_eq!(expiries.live(u64::from(u32::MAX) * 2, 9), (10, 9));
        let (since, parts) = expiries.parts();
        assert_eq!(parts.last(), Some(&(64, 10)));
        let again = Expiries::from_parts(since, &parts);
        assert_eq!(again.live(90_000, 7), expiries.live(90_000, 7));
        expiries.remove(u64::MAX, 10);
        assert_eq!(expiries.live(u64::from(u32::MAX) * 2, 9), (0, 0));
    }
}
