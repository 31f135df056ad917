//! A part of the cache, used by one writer or many readers at a time.

use crate::clock::{NEVER, Seconds};
use crate::cost::Ranking;
use crate::fill::Fills;
use crate::floors::Floors;
use crate::history::{FREQUENCY_MAX, History, Left, Line};
use crate::index::{Bucket, Index, Spot};
use crate::leaving::Gone;
use crate::prefetch::Whereabouts;
use crate::queues::{Queues, Victim};
use crate::slots::{Place, QUEUE, Slots};
use crate::wheel::{Turned, Wheel};
use crate::{Cause, Entry, Key};

#[derive(Debug, Default)]
pub(crate) struct Shard {
    index: Index,
    slots: Slots,
    queues: Queues,
    wheel: Wheel,
    history: History,
    pub(crate) fills: Fills,
    pub(crate) floors: Floors,
}

/// Where the tables of a shard are, for those who have not locked it yet.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    index: Whereabouts<Bucket>,
    history: Whereabouts<Line>,
}

impl Ahead {
    /// Has the line brought near that a read of this hash reads first.
    #[inline]
    pub(crate) fn prefetch_read(&self, hash: u64) {
        self.index.prefetch(half(hash));
    }

    /// Has the lines brought near that a write of this hash reads first.
    pub(crate) fn prefetch_write(&self, hash: u64) {
        self.index.prefetch(half(hash));
        self.index.prefetch_next(half(hash));
        self.history.prefetch(half(hash));
    }

    /// The addresses of those lines.
    pub(crate) fn lines(&self, hash: u64) -> [usize; 2] {
        let (index, history) = (self.index.line(half(hash)), self.history.line(half(hash)));
        [index.addr(), history.addr()]
    }
}

/// The half of a hash that is used inside a shard.
#[allow(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
#[inline]
pub(crate) fn half(hash: u64) -> u32 {
    hash as u32
}

/// Whether an entry is that of a key. Its other lines are asked for while its first one is waited for.
#[inline]
fn is_of(key: Key<'_>) -> impl Fn(&Entry) -> bool {
    move |entry| {
        entry.0.prefetch_rest();
        entry.key() == key
    }
}

impl Shard {
    /// The entry of a key, whether or not it may be served.
    #[inline]
    pub(crate) fn find(&self, hash: u64, key: Key<'_>) -> Option<&Entry> {
        self.index.find(half(hash), is_of(key))
    }

    /// Has what the next evictions will read brought near, a step for each eviction: of the third in
    /// a queue its slot, which the queue does; then its line of the index and its history; then the
    /// entry itself, whose memory the next newcomer will get.
    fn look_ahead(&self, left: Left) {
        for queue in self.queues.moved(left) {
            let mut next = queue.iter::<QUEUE>(&self.slots);
            if let Some(first) = next.next() {
                self.index.prefetch_entry(self.slots.get(first).hash);
            }
            if let Some(second) = next.next() {
                let hash = self.slots.get(second).hash;
                self.index.prefetch(hash);
                self.history.prefetch(hash);
            }
        }
    }

    /// Puts an entry in, in place of what there was of its key, which is returned.
    pub(crate) fn insert(&mut self, hash: u64, entry: Entry, ranking: Ranking) -> Option<Gone> {
        let held = self.index.locate(half(hash), is_of(entry.key()));
        let held = held.and_then(|spot| Some((spot, self.index.at(spot)?)));
        let Some((spot, held)) = held else {
            self.admit(entry, ranking);
            return None;
        };
        let (at, hits) = (held.0.slot(), held.0.hits());
        let same_weight = held.weight() == entry.weight();
        if held.0.kept_until() != NEVER {
            self.wheel.remove(&mut self.slots, at);
        }
        self.set_timer(at, &entry);
        entry.0.set_slot(at);
        if same_weight {
            // It waits where it waited, which touches none of its neighbours; that it was written counts as a
            // read, since mostly a read had it fetched.
            (0..=hits).for_each(|_| entry.0.touch());
        } else {
            self.place_anew(at, hits, entry.weight(), ranking);
        }
        let entry = self.index.replace(spot, entry)?;
        let cause = Cause::Replaced;
        Some(Gone { entry, cause })
    }

    /// Places an entry that got another weight, after so many reads.
    fn place_anew(&mut self, at: u32, hits: u8, weight: u32, ranking: Ranking) {
        self.queues.remove(&mut self.slots, at);
        let slot = self.slots.get_mut(at);
        slot.weight = weight;
        slot.frequency = (slot.frequency + hits).min(FREQUENCY_MAX);
        match slot.place {
            Place::Main(_) => self.queues.push_main(&mut self.slots, at, ranking),
            _ => self.queues.push_small(&mut self.slots, at),
        }
    }

    fn admit(&mut self, entry: Entry, ranking: Ranking) {
        let (at, hash) = (self.slots.take(), entry.0.hash());
        self.history.fit(self.slots.used() as usize);
        let slot = self.slots.get_mut(at);
        slot.hash = hash;
        slot.weight = entry.weight();
        slot.frequency = (self.history.frequency(hash) + 1).min(FREQUENCY_MAX);
        let back = self.history.comes_back(hash, self.slots.used() as usize);
        self.queues.admit(&mut self.slots, at, back, ranking);
        entry.0.set_slot(at);
        self.set_timer(at, &entry);
        self.index.insert(entry);
    }

    fn set_timer(&mut self, at: u32, entry: &Entry) {
        let kept_until = entry.0.kept_until();
        if kept_until != NEVER {
            self.wheel.insert(&mut self.slots, at, kept_until);
        }
    }

    /// Takes a key's entry out.
    pub(crate) fn remove(&mut self, hash: u64, key: Key<'_>) -> Option<Gone> {
        let at = self.find(hash, key)?.0.slot();
        self.take_out(at, Cause::Explicit)
    }

    /// Takes out the entry whose turn it is.
    pub(crate) fn evict(&mut self, ranking: Ranking) -> Option<Gone> {
        let victim = self.queues.victim(&mut self.slots, &self.index, ranking);
        let Victim { at, left, spot } = victim?;
        let hash = self.slots.get(at).hash;
        self.history.leave(hash, left);
        self.vacate(at);
        let gone = self.part_with(hash, spot, Cause::Size);
        self.look_ahead(left);
        gone
    }

    /// Tells those who have not locked the shard where its tables are.
    pub(crate) fn tell(&self, ahead: &Ahead) {
        ahead.index.tell(self.index.lines());
        ahead.history.tell(self.history.lines());
    }

    /// Whether any entry has a timer.
    pub(crate) fn has_timers(&self) -> bool {
        !self.wheel.is_empty()
    }

    /// Takes out one entry that nobody may want any more; `None` if there is none. `steps` are left
    /// when it returns, and at 0 it stops.
    pub(crate) fn expire(&mut self, now: Seconds, steps: &mut usize) -> Option<Gone> {
        while *steps > 0 {
            *steps -= 1;
            let Turned::Due(at) = self.wheel.turn(&mut self.slots, now)? else {
                continue;
            };
            // A reader may have asked for more time since the timer was set.
            let until = self.at(at).map_or(0, |entry| entry.0.kept_until());
            if until <= now {
                return self.take_out(at, Cause::Expired);
            }
            self.wheel.insert(&mut self.slots, at, until);
        }
        None
    }

    /// The entry of a slot.
    fn at(&self, at: u32) -> Option<&Entry> {
        let hash = self.slots.get(at).hash;
        self.index.find(hash, |entry| entry.0.slot() == at)
    }

    fn take_out(&mut self, at: u32, cause: Cause) -> Option<Gone> {
        let hash = self.slots.get(at).hash;
        let spot = self.index.locate(hash, |entry| entry.0.slot() == at)?;
        self.vacate(at);
        self.part_with(hash, spot, cause)
    }

    /// Frees a slot.
    fn vacate(&mut self, at: u32) {
        self.queues.remove(&mut self.slots, at);
        self.wheel.remove(&mut self.slots, at);
        self.slots.give_back(at);
    }

    /// Takes the entry of a freed slot out of the index.
    fn part_with(&mut self, hash: u32, spot: Spot, cause: Cause) -> Option<Gone> {
        let entry = self.index.remove(hash, spot)?;
        let frequency = self.slots.get(entry.0.slot()).frequency;
        // It may come back; what is known of it should count then.
        self.history.remember(hash, frequency + entry.0.hits());
        self.shrink();
        Some(Gone { entry, cause })
    }

    /// Takes everything out. What is known of frequencies stays, and floors do.
    pub(crate) fn clear(&mut self) -> Vec<Gone> {
        let index = std::mem::take(&mut self.index);
        self.slots = Slots::default();
        self.queues = Queues::default();
        self.wheel.clear();
        let cause = Cause::Explicit;
        let entries = index.into_entries();
        entries.map(|entry| Gone { entry, cause }).collect()
    }

    /// Gives memory of free slots back.
    fn shrink(&mut self) {
        let Some(last) = self.slots.surplus() else {
            return;
        };
        self.slots.retire(&last);
        for from in last {
            if !self.slots.get(from).is_free() {
                let to = self.slots.relocate(from);
                self.queues.renumber(&mut self.slots, to);
                self.wheel.renumber(&mut self.slots, to);
                self.renumber(from, to);
            }
        }
        self.slots.drop_last_chunk();
        self.history.fit(self.slots.used() as usize);
    }

    /// Tells an entry its new slot. Its reads go into the frequency.
    fn renumber(&mut self, from: u32, to: u32) {
        let slot = self.slots.get(to);
        let entry = self.index.find(slot.hash, |entry| entry.0.slot() == from);
        if let Some(entry) = entry {
            let hits = entry.0.hits();
            entry.0.set_slot(to);
            (0..hits).for_each(|_| entry.0.touch());
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.used() as usize
    }

    /// The weight of all entries.
    pub(crate) fn weight(&self) -> u64 {
        self.queues.weight()
    }

    pub(crate) fn age(&self) -> f64 {
        self.queues.age()
    }

    /// How far its age may be ahead of another's: the last victims' worth.
    pub(crate) fn slack(&self) -> f64 {
        self.queues.slack()
    }

    /// All entries with their frequencies.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Entry, u8)> {
        let frequency = |entry: &Entry| self.slots.get(entry.0.slot()).frequency + entry.0.hits();
        self.index
            .iter()
            .map(move |entry| (entry, frequency(entry)))
    }

    /// Checks what always holds.
    pub(crate) fn validate(&self) {
        self.slots.validate();
        self.queues.validate(&self.slots);
        self.wheel.validate(&self.slots);
        assert_eq!(self.index.len(), self.len());
        assert_eq!(self.index.iter().count(), self.len());
        for entry in self.index.iter() {
            let slot = self.slots.get(entry.0.slot());
            assert!(!slot.is_free());
            assert_eq!(slot.hash, entry.0.hash());
            assert_eq!(slot.weight, entry.weight());
            assert!(slot.frequency <= FREQUENCY_MAX);
            assert_eq!(slot.bucket.is_some(), entry.0.kept_until() != NEVER);
            assert!(slot.bucket.is_none() || slot.timer <= entry.0.kept_until());
            let found = self.index.find(slot.hash, |held| held.key() == entry.key());
            assert!(found.is_some_and(|held| held.0.slot() == entry.0.slot()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Life;
    use crate::{MissCost, Value};

    fn entry(n: u64, secret: u64) -> (u64, Entry) {
        let hash = (n + secret * 1_000_003).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let hash = (hash ^ hash >> 32).wrapping_mul(0x7FB5_D329_728E_A185);
        let life = Life {
            fetched: 0,
            fresh_until: NEVER,
            kept_until: NEVER,
            generation: 0,
            hash: half(hash),
        };
        let name = n.to_le_bytes();
        (
            hash,
            Entry(Value::from("").into_block(Key::from(&name), life)),
        )
    }

    /// What is written again stays where it waits, but as if it was read; whether its weight is another one
    /// makes no difference to that it is held once, nor what timers the two have.
    #[test]
    fn what_is_written_again_is_held_once_and_stays_longer() {
        let ranking = Ranking::new(MissCost::objects());
        for (value, kept_until) in [("", NEVER), ("", 9), ("longer", NEVER), ("longer", 9)] {
            let mut shard = Shard::default();
            for n in 0..10 {
                let (hash, entry) = entry(n, 0);
                assert!(shard.insert(hash, entry, ranking).is_none());
            }
            for kept_until in [kept_until, NEVER, kept_until] {
                let (hash, first) = entry(0, 0);
                let (hash_in_shard, fetched, fresh_until) = (half(hash), 0, NEVER);
                let life = Life {
                    fetched,
                    fresh_until,
                    kept_until,
                    generation: 0,
                    hash: hash_in_shard,
                };
                let again = Entry(Value::from(value).into_block(first.key(), life));
                let gone = shard.insert(hash, again, ranking).expect("it was held");
                assert_eq!(gone.cause, Cause::Replaced);
                shard.validate();
                assert_eq!((shard.len(), shard.has_timers()), (10, kept_until != NEVER));
            }
            (0..9).for_each(|_| drop(shard.evict(ranking)));
            let left = shard.iter().next().expect("one is left").0;
            assert_eq!(
                (left.key(), left.value()),
                (Key::from(&0u64.to_le_bytes()), value.as_bytes())
            );
        }
    }

    /// Reads these keys through a shard that holds a thousand, and returns it with the hits in the second
    /// half of the reads.
    fn read(keys: &[u64], secret: u64) -> (Shard, u32) {
        let ranking = Ranking::new(MissCost::objects());
        let (mut shard, mut hits) = (Shard::default(), 0);
        for (at, key) in keys.iter().enumerate() {
            let (hash, entry) = entry(*key, secret);
            if let Some(held) = shard.find(hash, entry.key()) {
                held.0.touch();
                hits += u32::from(at >= keys.len() / 2);
                continue;
            }
            shard.insert(hash, entry, ranking);
            if shard.len() > 1_000 {
                shard.evict(ranking);
            }
        }
        shard.validate();
        (shard, hits)
    }

    /// Hits in the second half of a loop over twice as many as fit.
    fn hits_of_a_loop(secret: u64) -> u32 {
        let keys: Vec<u64> = (0..100_000).map(|n| n % 2_000).collect();
        read(&keys, secret).1
    }

    /// Newcomers have little room where they come back too late for any, or come once while others stay,
    /// and much where all are soon read again and then no more.
    #[test]
    fn the_room_for_newcomers_is_as_much_as_they_use() {
        let scrambled = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let small_share = |key: &dyn Fn(u64) -> u64| {
            let keys: Vec<u64> = (0..100_000).map(key).collect();
            read(&keys, 0).0.queues.small_share()
        };
        let looped = small_share(&|n| n % 1_500);
        let once = small_share(&|n| match n % 2 {
            0 => n + 100_000,
            _ => scrambled(n) * scrambled(n + 1) % 2_000 * (scrambled(n + 2) % 2_000) / 2_000,
        });
        let soon = small_share(&|n| n - scrambled(n) % 700.min(n + 1));
        assert!(
            looped < 0.05 && once < 0.1 && soon > 0.3,
            "{looped} {once} {soon}"
        );
    }

    /// Of a loop over more than fits a part stays and is read each time, whatever its keys' hashes are.
    #[test]
    fn a_loop_over_more_than_fits_does_not_push_itself_out() {
        let hits: Vec<u32> = (0..4).map(hits_of_a_loop).collect();
        let least = hits.iter().min();
        assert!(least > Some(&20_000), "of 25000 at best: {hits:?}");
    }

    /// A few entries are read all the time, the others three times when they come and never again:
    /// to have been asked for several times comes to count for little.
    #[test]
    fn those_read_most_count_less_once_they_are_seen_to_be_dead() {
        let ranking = Ranking::new(MissCost::objects());
        let (mut shard, mut alive) = (Shard::default(), Vec::new());
        for n in 0..5_000u64 {
            let (hash, entry) = entry(n, 0);
            shard.insert(hash, entry.clone(), ranking);
            (0..3).for_each(|_| entry.0.touch());
            if n < 50 {
                alive.push(entry);
            }
            alive.iter().for_each(|entry| entry.0.touch());
            if shard.len() > 200 {
                shard.evict(ranking);
            }
        }
        shard.validate();
        let rates = shard.queues.rates();
        assert!(rates.of(7) < 4.0 && rates.of(15) > 15.0, "{rates:?}");
    }
}
