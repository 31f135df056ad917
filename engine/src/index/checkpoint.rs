//! Saves the table with the lists that belong to it, and maps what was saved.
//!
//! A checkpoint file is written once. It is whole when its header is there, which comes last and
//! only after the log is durable through the checkpoint's sequence number; so any whole one may be
//! opened. `CURRENT` names the newest.

use std::path::Path;
use std::sync::Arc;

use super::buckets::{CHUNK_LEN, saved_size};
use super::table::{Image, PARTITIONS, Table};
use crate::error::{Error, Result, io_error};
use crate::format::checkpoint::{
    DATA_START, HEADER_LEN, Header, Meta, PartitionEntry, VERSION, decode_current, encode_current,
    file_name,
};
use crate::format::segment::{HEADER_LEN as SEGMENT_HEADER_LEN, Refusal, SEGMENT_LEN};
use crate::vfs::{Map, Output, Vfs};

pub(crate) const CURRENT: &str = "CURRENT";
/// A table of up to so many bytes is verified while it is opened, which takes about a millisecond.
const EAGER_MAX: usize = 4 << 20;
const _: () = assert!(EAGER_MAX >= CHUNK_LEN);
pub(crate) const TABLE_DAMAGE: &str = "checksum of the table";

/// The name of `CURRENT` until it is whole.
pub(crate) const CURRENT_NEW: &str = "CURRENT.new";

/// A checkpoint that was read.
pub(crate) struct Checkpoint {
    pub(crate) header: Header,
    pub(crate) meta: Meta,
    pub(crate) table: Table,
}

/// Writes a checkpoint of the table as it was when its capture began. `header` and `meta` come
/// without what is said of the partitions. Before the header makes the file whole, `settle` adds the
/// runs and makes the log durable.
pub(crate) fn save(
    vfs: &dyn Vfs,
    dir: &Path,
    mut header: Header,
    mut meta: Meta,
    table: &Table,
    settle: impl FnOnce(&mut Meta) -> Result<()>,
) -> Result<()> {
    debug_assert!(
        meta.segments.iter().all(|entry| entry.number > 0),
        "0 is no segment's number"
    );
    debug_assert!(
        meta.segments.is_sorted_by(|a, b| a.id < b.id),
        "each segment once"
    );
    debug_assert!(
        meta.larges.is_sorted_by(|a, b| a < b),
        "each large value once"
    );
    debug_assert!(
        meta.namespaces.is_sorted_by(|a, b| a.number < b.number),
        "each number once"
    );
    debug_assert!(meta.partitions.is_empty());
    debug_assert!(meta.chunks.is_empty());
    debug_assert!(
        header.position.offset.is_multiple_of(8),
        "records begin there"
    );
    let path = dir.join(file_name(header.id));
    let writing = |e| io_error("writing", &path, e);
    let write = || {
        let file = vfs.create(&path).map_err(writing)?;
        let mut out = Output::new(&*file, DATA_START);
        for partition in 0..PARTITIONS {
            let image = table.captured(partition);
            let size = saved_size(partition, image.multiple);
            debug_assert_eq!(size.map(|(len, _)| len), Some(image.bytes.len()));
            meta.partitions.push(entry(&image));
            meta.chunks.extend(image.crcs());
            out.push(&image.bytes).map_err(writing)?;
        }
        let sizes = || {
            (0..)
                .zip(&meta.partitions)
                .map(|(at, p)| saved_size(at, p.multiple))
        };
        debug_assert_eq!(
            sizes().flatten().map(|(_, chunks)| chunks).sum::<usize>(),
            meta.chunks.len(),
            "a checksum for each chunk"
        );
        if table.is_damaged() {
            return Err(damaged_table(dir));
        }
        settle(&mut meta)?;
        let lists = meta.encode();
        debug_assert!(
            Meta::decode(&lists).is_none_or(|read| read == meta),
            "it is what will be read"
        );
        out.push(&lists).map_err(writing)?;
        let end = out.flush().map_err(writing)?;
        header.meta_len = u64::try_from(lists.len()).unwrap_or(0);
        header.meta_offset = end.saturating_sub(header.meta_len);
        header.meta_crc = crc32fast::hash(&lists);
        debug_assert_eq!(
            header.meta_offset,
            DATA_START
                + meta
                    .partitions
                    .iter()
                    .enumerate()
                    .filter_map(|(at, entry)| {
                        saved_size(at, entry.multiple).map(|(len, _)| len as u64)
                    })
                    .sum::<u64>(),
            "lists follow the table"
        );
        debug_assert!(header.meta_offset >= DATA_START);
        debug_assert!(meta.partitions.len() == PARTITIONS);
        file.write_at(&header.encode(), 0).map_err(writing)?;
        file.sync().map_err(|e| io_error("flushing", &path, e))?;
        vfs.sync_dir(dir).map_err(|e| io_error("flushing", dir, e))
    };
    let saved = write();
    table.end_capture();
    if saved.is_err() {
        // Nothing names the file; if it cannot be removed, the next open does.
        let _ = vfs.remove(&path);
    }
    saved
}

fn entry(image: &Image) -> PartitionEntry {
    PartitionEntry {
        entries: u32::try_from(image.entries).unwrap_or(u32::MAX),
        multiple: image.multiple,
    }
}

/// Makes a checkpoint the one that the next open uses.
pub(crate) fn publish(vfs: &dyn Vfs, dir: &Path, id: u64) -> Result<()> {
    let (new, path) = (dir.join(CURRENT_NEW), dir.join(CURRENT));
    match vfs.remove(&new) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(io_error("removing", &new, e));
        }
        _ => {}
    }
    let file = vfs
        .create(&new)
        .map_err(|e| io_error("creating", &new, e))?;
    file.write_at(encode_current(id).as_bytes(), 0)
        .and_then(|()| file.sync())
        .and_then(|()| vfs.rename(&new, &path))
        .and_then(|()| vfs.sync_dir(dir))
        .map_err(|e| io_error("writing", &path, e))
}

/// The checkpoint that `CURRENT` names; `None` if it is damaged.
pub(crate) fn current(vfs: &dyn Vfs, dir: &Path) -> Result<Option<u64>> {
    let path = dir.join(CURRENT);
    let file = vfs.open(&path).map_err(|e| io_error("opening", &path, e))?;
    let len = file.len().map_err(|e| io_error("reading", &path, e))?;
    let mut bytes = vec![0; usize::try_from(len.min(64)).unwrap_or(0)];
    file.read_at(&mut bytes, 0)
        .map_err(|e| io_error("reading", &path, e))?;
    Ok(decode_current(&bytes))
}

/// Maps a checkpoint. Its header and lists are verified here, and so is the table if that is done in a
/// moment; of a larger one each page is verified when it is first needed. A table of version 1 is moved to
/// memory.
///
/// # Errors
/// As for [`read`].
pub(crate) fn load(vfs: &dyn Vfs, dir: &Path, id: u64) -> Result<Checkpoint> {
    let (header, meta, map) = read(vfs, dir, id)?;
    let table = map_table(&map, &meta);
    let table = table.filter(|table| header.version > 1 || table.settle_version_1());
    if let Some(table) = table.as_ref().filter(|table| table.bytes() <= EAGER_MAX) {
        table.will_need(0..PARTITIONS);
        (0..PARTITIONS).for_each(|partition| table.settle(partition));
    }
    let table = table.filter(|table| !table.is_damaged());
    debug_assert!(header.id == id, "another's is refused");
    let table = table.ok_or_else(|| Error::Corrupt {
        path: dir.join(file_name(id)),
        offset: DATA_START,
        reason: TABLE_DAMAGE,
    })?;
    Ok(Checkpoint {
        header,
        meta,
        table,
    })
}

/// Maps a checkpoint and reads its header and lists.
///
/// # Errors
/// `Corrupt` if it is damaged or not whole, `UnsupportedFormat`, or an I/O error.
pub(crate) fn read(vfs: &dyn Vfs, dir: &Path, id: u64) -> Result<(Header, Meta, Arc<Map>)> {
    let path = dir.join(file_name(id));
    let file = vfs.open(&path).map_err(|e| io_error("opening", &path, e))?;
    let damage = |reason| Error::Corrupt {
        path: path.clone(),
        offset: 0,
        reason,
    };
    if file.len().map_err(|e| io_error("reading", &path, e))? < DATA_START {
        return Err(damage("the checkpoint is not whole"));
    }
    let map = file
        .map_private()
        .map_err(|e| io_error("mapping", &path, e))?;
    let header = Header::decode(map.slice(0, HEADER_LEN).unwrap_or_default());
    let header = header.map_err(|refusal| match refusal {
        Refusal::Damaged(reason) => damage(reason),
        Refusal::Newer(found) => Error::UnsupportedFormat {
            path: path.clone(),
            found,
            supported: VERSION,
        },
    })?;
    if header.id != id {
        return Err(damage("the header is another checkpoint's"));
    }
    let position = u64::from(header.position.offset);
    let records = SEGMENT_HEADER_LEN as u64..=SEGMENT_LEN;
    if !records.contains(&position) || !position.is_multiple_of(8) {
        return Err(damage("the log goes on where no record begins"));
    }
    let place = usize::try_from(header.meta_offset)
        .ok()
        .zip(usize::try_from(header.meta_len).ok());
    let lists = place.and_then(|(offset, len)| {
        map.will_need(offset, len);
        map.slice(offset, len)
    });
    let lists = lists.filter(|lists| crc32fast::hash(lists) == header.meta_crc);
    let meta = lists.and_then(Meta::decode);
    let meta = meta.map(|meta| meta.upgraded(header.version));
    let meta = meta.ok_or_else(|| damage("checksum of the checkpoint's lists"))?;
    Ok((header, meta, Arc::new(map)))
}

/// What is said of a table that a checkpoint does not hold as it was saved.
pub(crate) fn damaged_table(dir: &Path) -> Error {
    Error::Corrupt {
        path: dir.into(),
        offset: 0,
        reason: "the checkpoint's table is damaged; open the store again to replay the log",
    }
}

/// Reads all of a checkpoint and returns its lists. `read` is told of the bytes that were read.
///
/// # Errors
/// As for [`read`](read()), and `Corrupt` with the first page that does not have its checksum.
pub(crate) fn scrub(
    vfs: &dyn Vfs,
    dir: &Path,
    id: u64,
    mut read_bytes: impl FnMut(u64),
) -> Result<Meta> {
    let (_, meta, map) = read(vfs, dir, id)?;
    let damage = |offset: usize| Error::Corrupt {
        path: dir.join(file_name(id)),
        offset: offset as u64,
        reason: TABLE_DAMAGE,
    };
    let mut at = usize::try_from(DATA_START).unwrap_or(usize::MAX);
    let mut crcs = meta.chunks.iter();
    for (partition, entry) in meta.partitions.iter().enumerate() {
        let size = saved_size(partition, entry.multiple).ok_or_else(|| damage(at))?;
        map.will_need(at, size.0);
        let bytes = map.slice(at, size.0).ok_or_else(|| damage(at))?;
        for chunk in bytes.chunks(CHUNK_LEN) {
            debug_assert!(chunk.len() <= CHUNK_LEN);
            debug_assert!(!chunk.is_empty());
            if crcs.next() != Some(&crc32fast::hash(chunk)) {
                return Err(damage(at));
            }
            at = at.saturating_add(chunk.len());
        }
        read_bytes(size.0 as u64);
    }
    Ok(meta)
}

/// Whether a checkpoint has no header, which is written last.
pub(crate) fn is_unfinished(vfs: &dyn Vfs, dir: &Path, id: u64) -> bool {
    let mut header = [1u8; HEADER_LEN];
    let file = vfs.open(&dir.join(file_name(id)));
    let read = file.and_then(|file| file.read_at(&mut header, 0));
    read.is_err() || header == [0; HEADER_LEN]
}

fn map_table(map: &Arc<Map>, meta: &Meta) -> Option<Table> {
    let sizes = meta.partitions.iter().map(|entry| {
        let entries = usize::try_from(entry.entries).unwrap_or(usize::MAX);
        (entry.multiple, entries)
    });
    let start = usize::try_from(DATA_START).ok()?;
    Table::mapped(map, start, sizes, &meta.chunks)
}

/// Puts the checksums of a file right, where its lists can be read: for fuzzing, which would not get past
/// them otherwise.
#[cfg(feature = "fuzzing")]
pub(crate) fn reseal(file: &mut [u8]) {
    use crate::format::{field, set};

    if file.len() < HEADER_LEN {
        return;
    }
    let place = |at| usize::try_from(field!(file, at, u64)).unwrap_or(usize::MAX);
    let lists = place(120)..place(120).saturating_add(place(128));
    if let Some(mut meta) = file.get(lists.clone()).and_then(Meta::decode) {
        reseal_pages(file, field!(file, 8, u16), &mut meta);
        let bytes = file.get_mut(lists.clone()).unwrap_or_default();
        bytes.copy_from_slice(&meta.encode());
    }
    let crc = crc32fast::hash(file.get(lists).unwrap_or_default());
    set!(file, 92, crc);
    let crc = crc32fast::hash(file.get(..140).unwrap_or_default());
    set!(file, 140, crc);
}

#[cfg(feature = "fuzzing")]
fn reseal_pages(file: &[u8], version: u16, meta: &mut Meta) {
    let start = usize::try_from(DATA_START).unwrap_or(usize::MAX);
    let mut rest = file.get(start..).unwrap_or_default();
    let partitions = meta.clone().upgraded(version).partitions;
    let mut crcs = meta.chunks.iter_mut();
    for (partition, entry) in partitions.iter().enumerate() {
        let size = saved_size(partition, entry.multiple);
        let Some((pages, after)) = size.and_then(|size| rest.split_at_checked(size.0)) else {
            return;
        };
        let right = pages.chunks(CHUNK_LEN).map(crc32fast::hash);
        right.zip(&mut crcs).for_each(|(right, crc)| *crc = right);
        rest = after;
    }
}
