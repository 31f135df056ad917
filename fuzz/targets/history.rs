//! What a store's directory says when it is read in the simplest way: every record one after the other,
//! nothing checked. The oracle of `dir_open`, for directories that nobody damaged.

use std::collections::{BTreeMap, BTreeSet};

/// The files of a directory, by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// An entry: value, metadata, expiration, generation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) value: Vec<u8>,
    pub(crate) metadata: Vec<u8>,
    pub(crate) expiration: u64,
    pub(crate) generation: u64,
}

/// A namespace's name and a key in it.
pub(crate) type Name = (String, Vec<u8>);
/// Namespaces that exist, and what is in them.
pub(crate) type State = (BTreeSet<String>, BTreeMap<Name, Entry>);

/// Where a record lies in a file.
pub(crate) struct Place {
    pub(crate) file: String,
    pub(crate) offset: usize,
    /// Without the padding.
    pub(crate) len: usize,
    pub(crate) seqno: u64,
    /// The highest sequence number it says was durable.
    pub(crate) durable: u64,
    pub(crate) more: bool,
}

/// Everything that ever was.
pub(crate) struct History {
    pub(crate) records: Vec<Place>,
    /// The state after each batch, with its last sequence number; the first is empty.
    pub(crate) states: Vec<(u64, State)>,
    /// Every entry that was ever put.
    pub(crate) entries: BTreeSet<(Vec<u8>, Entry)>,
    pub(crate) keys: BTreeSet<Vec<u8>>,
}

/// A little-endian number of up to eight bytes.
pub(crate) fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let bytes = bytes[at..at + len].iter().rev();
    bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

pub(crate) fn size(bytes: &[u8], at: usize, len: usize) -> usize {
    number(bytes, at, len) as usize
}

impl History {
    pub(crate) fn read(files: &Files) -> History {
        let mut history = History {
            records: Vec::new(),
            states: vec![(0, State::default())],
            entries: BTreeSet::new(),
            keys: BTreeSet::new(),
        };
        let segments: Vec<_> = files.iter().filter(|(n, _)| n.ends_with(".seg")).collect();
        let mut names = BTreeMap::new();
        let mut live: BTreeMap<(u64, Vec<u8>), Entry> = BTreeMap::new();
        for (at, (file, bytes)) in segments.iter().enumerate() {
            // The next segment says how much of this one counts.
            let end = segments.get(at + 1).map(|(_, next)| size(next, 88, 8));
            let end = end.unwrap_or(bytes.len());
            let mut offset = 128;
            while offset + 64 <= end && bytes[offset + 4] != 0 {
                let record = &bytes[offset..];
                let (key_len, body_len) = (size(record, 6, 2), size(record, 8, 4));
                let seqno = number(record, 16, 8);
                let len = 64 + key_len + body_len;
                history.records.push(Place {
                    file: file.to_string(),
                    offset,
                    len,
                    seqno,
                    durable: seqno - number(record, 52, 4),
                    more: record[5] & 1 != 0,
                });
                let namespace = number(record, 32, 4);
                let key = record[64..64 + key_len].to_vec();
                let body = &record[64 + key_len..len];
                match record[4] {
                    kind @ (1 | 2) => {
                        let (metadata, value) = body.split_at(size(record, 12, 2));
                        let value = if kind == 1 {
                            value
                        } else {
                            large(files, value)
                        };
                        let entry = Entry {
                            value: value.to_vec(),
                            metadata: metadata.to_vec(),
                            expiration: number(record, 24, 8),
                            generation: seqno,
                        };
                        history.keys.insert(key.clone());
                        history.entries.insert((key.clone(), entry.clone()));
                        live.insert((namespace, key), entry);
                    }
                    3 => drop(live.remove(&(namespace, key))),
                    4 if body[0] == 0 => {
                        let name = String::from_utf8_lossy(&body[17..]).into_owned();
                        names.insert(namespace, name);
                    }
                    4 => drop(names.remove(&namespace)),
                    _ => {}
                }
                if record[5] & 1 == 0 {
                    let seen = live.iter().filter_map(|((namespace, key), entry)| {
                        let name = names.get(namespace)?;
                        Some(((name.clone(), key.clone()), entry.clone()))
                    });
                    let state = (names.values().cloned().collect(), seen.collect());
                    history.states.push((seqno, state));
                }
                offset += len.next_multiple_of(8);
            }
        }
        history
    }
}

fn large<'a>(files: &'a Files, pointer: &[u8]) -> &'a [u8] {
    let name = format!("{:016x}.large", number(pointer, 0, 8));
    &files[&name][4096..4096 + size(pointer, 8, 4)]
}
