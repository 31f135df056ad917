//! Histories from bytes, eight of them an act: for random tests, and for fuzzing, which makes up the bytes.
//!
//! All acts take the same number of bytes, so that taking some away leaves the others what they were: a
//! history that fails shrinks act by act.

use rimstone::Durability;
use rimstone_tests::{Cut, Fault, Names, Unsynced};

use crate::session::{Act, DURABILITIES, KEYS};

/// Bytes of an act.
pub(crate) const ACT_LEN: usize = 8;

/// Numbers that bytes are worth, one after the other.
struct Bytes([u8; ACT_LEN], usize);

impl Bytes {
    fn next(&mut self) -> u8 {
        let byte = self.0.get(self.1).copied();
        self.1 += 1;
        byte.unwrap_or_default()
    }

    fn below(&mut self, end: u8) -> u8 {
        self.next() % end
    }

    fn one_in(&mut self, n: u8) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.next()) % all.len()]
    }

    /// Two of three times the first.
    fn ns(&mut self) -> usize {
        self.of(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2])
    }

    fn key(&mut self) -> u8 {
        self.below(KEYS)
    }

    /// Most values are short; some are in files of their own.
    fn len(&mut self) -> usize {
        let (kind, byte) = (self.below(15), usize::from(self.next()));
        match kind {
            0..12 => byte * 4,
            12 | 13 => 4_000 + byte * 64,
            _ => 65_530 + byte * 56,
        }
    }
}

/// The act that these bytes stand for: nine in ten do not hurt.
pub(crate) fn act(bytes: [u8; ACT_LEN]) -> Act {
    let mut bytes = Bytes(bytes, 0);
    match bytes.below(35) {
        0..12 => put(&mut bytes),
        12..16 => Act::Delete {
            ns: bytes.ns(),
            key: bytes.key(),
        },
        16..19 => batch(&mut bytes),
        19 => Act::DeletePrefix {
            ns: bytes.ns(),
            prefix: if bytes.one_in(2) {
                vec![]
            } else {
                vec![bytes.key()]
            },
        },
        20 => Act::Sync,
        21 | 22 => Act::Create { ns: bytes.ns() },
        23 => Act::Drop { ns: bytes.ns() },
        24 => Act::Rename {
            from: bytes.ns(),
            to: bytes.ns(),
        },
        25 => Act::Advance {
            seconds: if bytes.one_in(2) {
                4_000
            } else {
                1 + u64::from(bytes.below(19))
            },
        },
        26 => Act::Checkpoint,
        27 => Act::Compact,
        28 => Act::Reopen,
        29 => Act::Rebuild,
        30 | 31 => Act::Maintain {
            idle: bytes.one_in(2),
        },
        32 | 33 => Act::Cut {
            back: usize::from(bytes.below(12)),
            cut: cut(&mut bytes),
        },
        _ => fault(&mut bytes),
    }
}

fn put(bytes: &mut Bytes) -> Act {
    Act::Put {
        ns: bytes.ns(),
        key: bytes.key(),
        len: bytes.len(),
        ttl: bytes.one_in(5).then(|| 1 + u64::from(bytes.below(40))),
        durability: durability(bytes.next()),
    }
}

fn batch(bytes: &mut Bytes) -> Act {
    let (ns, count) = (bytes.ns(), 1 + bytes.below(4));
    let durability = durability(bytes.next());
    let keys = (0..count).map(|_| {
        let byte = bytes.next();
        let len = usize::from(byte / KEYS) * 16;
        (byte % KEYS, (byte < 200).then_some(len))
    });
    Act::Batch {
        ns,
        keys: keys.collect(),
        durability,
    }
}

fn durability(byte: u8) -> Durability {
    DURABILITIES[usize::from(byte) % DURABILITIES.len()]
}

fn cut(bytes: &mut Bytes) -> Cut {
    Cut {
        bytes: bytes.of(&[
            Unsynced::Lost,
            Unsynced::Kept,
            Unsynced::Sectors(512),
            Unsynced::Sectors(4096),
            Unsynced::Halves,
            Unsynced::Prefix,
        ]),
        names: bytes.of(&[Names::Lost, Names::Kept, Names::Any]),
        seed: u64::from(bytes.next()) << 8 | u64::from(bytes.next()),
    }
}

fn fault(bytes: &mut Bytes) -> Act {
    if bytes.one_in(3) {
        let room = u64::from(bytes.next()) * 800;
        return Act::Limit {
            room: bytes.one_in(2).then_some(room),
        };
    }
    Act::Fail {
        skip: u64::from(bytes.below(8)),
        fault: bytes.of(&Fault::ALL),
        lasting: bytes.one_in(2),
    }
}

/// The end of every history: all the space there is, the store closed and opened, and a cut.
pub(crate) fn last(seed: [u8; ACT_LEN]) -> [Act; 3] {
    let cut = cut(&mut Bytes(seed, 0));
    [
        Act::Limit { room: None },
        Act::Reopen,
        Act::Cut { back: 0, cut },
    ]
}
