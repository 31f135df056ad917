use std::sync::Arc;

use bytes::Bytes;

use crate::core::{Core, Found};
use crate::entry::{Entry, EntryRef, Value};
use crate::error::{Error, Result};
use crate::format::record::{INLINE_MAX, KEY_MAX, Kind, LargePointer, METADATA_MAX};
use crate::hot;
use crate::list::{ListOptions, ListedKey, Page};
use crate::log::commit::Op;
use crate::log::large::Large;
use crate::log::segment::{Slice, large_path};
use crate::namespaces::{NamespaceId, State, View};
use crate::options::{Durability, PutOptions, ReadOptions};
use crate::read::{Lent, copied, end_if_missing, streamed};
use crate::store::Owner;
use crate::stream::{Body, ValueStream, ValueWriter};
use crate::sync::epoch::{self, Guard};

/// Largest value, in bytes: that of Workers KV.
pub(crate) const VALUE_MAX: u64 = 25 << 20;
/// Values up to this are copied out of the mapping: that costs less than a slice that keeps its
/// segment, and pins nothing.
pub(crate) const COPY_MAX: usize = 4096;
const _: () = {
    assert!(COPY_MAX <= INLINE_MAX);
    assert!((INLINE_MAX as u64) < VALUE_MAX);
    assert!(VALUE_MAX <= u32::MAX as u64, "a length has 32 bits");
};

/// A set of keys of its own inside a store. Cheap to clone, usable from any thread.
///
/// Every call on a namespace that was dropped fails with
/// [`Error::NoSuchNamespace`](crate::Error::NoSuchNamespace).
#[derive(Clone)]
pub struct Namespace {
    pub(crate) owner: Arc<Owner>,
    pub(crate) state: Arc<State>,
}

impl Namespace {
    /// The namespace's identity, the same for ever.
    #[must_use]
    pub fn id(&self) -> NamespaceId {
        self.state.id
    }

    /// Its present name.
    #[must_use]
    pub fn name(&self) -> String {
        self.state.name()
    }

    /// Stores a value, without metadata and for ever, and returns its generation.
    ///
    /// # Errors
    /// `InvalidKey`, `TooLarge` (25 MiB), `Full`, `Poisoned`, `Corrupt` if nobody can say what the key
    /// holds since the checkpoint's table is damaged there, or an I/O error; nothing is stored.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<u64> {
        self.put_with(key, value, &PutOptions::new())
    }

    /// Stores a value as `options` say and returns its generation. It replaces value, metadata and
    /// expiration together.
    ///
    /// # Errors
    /// As for [`put`](Namespace::put), and `Conflict` if the condition does not hold.
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: &PutOptions,
    ) -> Result<u64> {
        let op = self.put_op(key.as_ref(), value.as_ref(), options)?;
        let immediate = self.is_immediate(options.durability);
        Ok(self.core().commit(vec![op], immediate)?.generation)
    }

    /// Streams a value in with bounded memory. Nothing is stored until
    /// [`finish`](ValueWriter::finish); dropping the writer forgets the value.
    ///
    /// # Errors
    /// `InvalidKey`, `TooLarge` for the metadata.
    pub fn writer(&self, key: impl AsRef<[u8]>, options: &PutOptions) -> Result<ValueWriter> {
        self.check(key.as_ref(), options)?;
        Ok(ValueWriter::new(self.clone(), key.as_ref(), options))
    }

    /// Returns the newest value of `key`, or `None`.
    ///
    /// An expired key is missing. The value was verified against its checksum, and stays valid after
    /// the key is overwritten.
    ///
    /// # Errors
    /// `InvalidKey`, `Corrupt` if stored bytes do not match their checksum.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        Ok(self.get_with_metadata(key)?.map(Entry::into_value))
    }

    /// Returns the newest entry of `key`, read as `options` say.
    ///
    /// # Errors
    /// As for [`get`](Namespace::get).
    pub fn get_with(&self, key: impl AsRef<[u8]>, options: &ReadOptions) -> Result<Option<Entry>> {
        let (key, view) = (key.as_ref(), self.state.view()?);
        let hash = self.hash(&view, key)?;
        let read = self.hot_read(&view, key, options);
        if let Some(held) = self.held(&view, key, hash, read.as_ref()) {
            return Ok(Some(copied(&held)));
        }
        let guard = self.pin(hash);
        let lent = self.lend(&view, key, hash, read.as_ref(), &guard)?;
        Ok(lent.map(Lent::into_entry))
    }

    /// Returns the newest entry of `key`: value, metadata, expiration, generation.
    ///
    /// # Errors
    /// As for [`get`](Namespace::get).
    pub fn get_with_metadata(&self, key: impl AsRef<[u8]>) -> Result<Option<Entry>> {
        self.get_with(key, &ReadOptions::new())
    }

    /// Lends the entry of `key` to `f` in place: no copy, no reference count.
    ///
    /// # Errors
    /// As for [`get`](Namespace::get).
    pub fn read<R>(
        &self,
        key: impl AsRef<[u8]>,
        f: impl FnOnce(EntryRef<'_>) -> R,
    ) -> Result<Option<R>> {
        self.read_with(key, &ReadOptions::new(), f)
    }

    /// As [`read`](Namespace::read), as `options` say. The entry tells whether the hot cache had it.
    ///
    /// # Errors
    /// As for [`get`](Namespace::get).
    pub fn read_with<R>(
        &self,
        key: impl AsRef<[u8]>,
        options: &ReadOptions,
        f: impl FnOnce(EntryRef<'_>) -> R,
    ) -> Result<Option<R>> {
        let (key, view) = (key.as_ref(), self.state.view()?);
        let hash = self.hash(&view, key)?;
        let read = self.hot_read(&view, key, options);
        if let Some(held) = self.held(&view, key, hash, read.as_ref()) {
            return Ok(Some(f(hot::lend(&held))));
        }
        let guard = self.pin(hash);
        let lent = self.lend(&view, key, hash, read.as_ref(), &guard)?;
        Ok(lent.map(|lent| f(lent.entry())))
    }

    /// Returns the newest value of `key` as a stream, its metadata at once.
    ///
    /// # Errors
    /// As for [`get`](Namespace::get); a large value is verified piece by piece as it is read.
    pub fn stream(&self, key: impl AsRef<[u8]>) -> Result<Option<ValueStream>> {
        self.stream_with(key, &ReadOptions::new())
    }

    /// As [`stream`](Namespace::stream), as `options` say. What is streamed from a segment of its own (more
    /// than 64 KiB) is not copied into the hot cache, but taken from there.
    ///
    /// # Errors
    /// As for [`stream`](Namespace::stream).
    pub fn stream_with(
        &self,
        key: impl AsRef<[u8]>,
        options: &ReadOptions,
    ) -> Result<Option<ValueStream>> {
        let (key, view) = (key.as_ref(), self.state.view()?);
        let hash = self.hash(&view, key)?;
        let read = self.hot_read(&view, key, options);
        if let Some(held) = self.held(&view, key, hash, read.as_ref()) {
            return Ok(Some(streamed(&held)));
        }
        let guard = self.pin(hash);
        let stream = self.lookup(&view, key, hash, &guard, |found| {
            self.fill_inline(&view, &found, hash, read.as_ref(), &guard);
            self.open_stream(&found)
        });
        end_if_missing(stream, read.as_ref())
    }

    /// As [`stream`](Namespace::stream), but `None` if the value is large or not in memory, so that
    /// reading it may wait for the disk. For callers on a thread that must not block. (Just after opening a
    /// page of the table may have to be read, too.)
    ///
    /// # Errors
    /// As for [`stream`](Namespace::stream).
    pub fn try_stream(&self, key: impl AsRef<[u8]>) -> Result<Option<Option<ValueStream>>> {
        self.try_stream_with(key, &ReadOptions::new())
    }

    /// As [`try_stream`](Namespace::try_stream), as `options` say. What the hot cache has is in memory.
    ///
    /// # Errors
    /// As for [`stream`](Namespace::stream).
    pub fn try_stream_with(
        &self,
        key: impl AsRef<[u8]>,
        options: &ReadOptions,
    ) -> Result<Option<Option<ValueStream>>> {
        let (key, core) = (key.as_ref(), self.core());
        let view = self.state.view()?;
        let hash = self.hash(&view, key)?;
        let read = self.hot_read(&view, key, options);
        if let Some(held) = self.held(&view, key, hash, read.as_ref()) {
            return Ok(Some(Some(streamed(&held))));
        }
        let guard = self.pin(hash);
        let mut resident = true;
        core.table.candidates(hash, &guard, |location| {
            let segment = core.segments.get(location.number(), &guard);
            resident &= segment.is_some_and(|s| s.is_resident(location.offset(), COPY_MAX));
        });
        if !resident {
            return Ok(None);
        }
        let stream = self.lookup(&view, key, hash, &guard, |found| {
            let header = &found.record.header;
            let (len, offset) = (header.record_len(), found.location.offset());
            let waits = header.kind == Kind::PutLarge
                || (len > COPY_MAX && !found.segment.is_resident(offset, len));
            if waits {
                return Ok(None);
            }
            self.fill_inline(&view, &found, hash, read.as_ref(), &guard);
            self.open_stream(&found).map(Some)
        });
        Ok(match end_if_missing(stream, read.as_ref())? {
            Some(Some(stream)) => Some(Some(stream)),
            Some(None) => None,
            None => Some(None),
        })
    }

    /// Deletes `key` and returns whether it existed. Deleting a missing key is fine.
    ///
    /// # Errors
    /// `InvalidKey`, `Full`, `Poisoned`, `Corrupt` as for a put, or an I/O error.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let op = self.delete_op(key.as_ref())?;
        Ok(self
            .core()
            .commit(vec![op], self.is_immediate(None))?
            .existed)
    }

    /// Deletes every key that begins with `prefix`, all of them if it is empty: one record in the log, at
    /// once, at any size. A write that returned before is deleted with the others, one that begins after is
    /// not, and one that comes at the same time is on either side.
    ///
    /// The space comes back in the background: of a whole namespace at no cost for a key, of a prefix by
    /// a tombstone for each. Up to 64 prefixes of a namespace may wait for that; who deletes one more does
    /// it.
    ///
    /// # Errors
    /// `InvalidKey` if the prefix is longer than a key may be, and as for [`delete`](Namespace::delete).
    pub fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<()> {
        let (core, immediate) = (self.core(), self.is_immediate(None));
        match prefix.as_ref() {
            [] => core.clear(&self.state, immediate),
            prefix => core.delete_prefix(&self.state, prefix, immediate),
        }
    }

    /// Returns one page of keys in byte order, with expiration and metadata; values are not touched.
    ///
    /// # Errors
    /// `InvalidCursor` if the cursor was not issued for this namespace and these options; `Corrupt` if a
    /// key run is damaged, which the next open makes anew from the log.
    pub fn list(&self, options: &ListOptions) -> Result<Page> {
        Page::of(options.limit, |page| self.read_page(options, page))
    }

    /// Lends the keys of one page to `f` in place, in byte order, and returns the cursor of the next page, `None`
    /// behind the last: [`list`](Namespace::list) without the copy.
    ///
    /// # Errors
    /// As for [`list`](Namespace::list). `f` may have been called before a damaged run was met; what it was lent
    /// is right.
    pub fn read_page(
        &self,
        options: &ListOptions,
        f: impl FnMut(ListedKey<'_>),
    ) -> Result<Option<String>> {
        let core = self.core();
        core.origin.check()?;
        let (secret, now) = (core.secret(), core.clock.now());
        let listed = core.keys.each_of(&self.state, options, &secret, now, f);
        if core.keys.wants_memtable_merge() {
            core.pages.wake();
        }
        listed.inspect_err(|error| core.distrust_runs_after(error))
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.owner.core
    }

    pub(crate) fn is_immediate(&self, durability: Option<Durability>) -> bool {
        let core = self.core();
        core.is_immediate(durability.unwrap_or(core.durability))
    }

    fn check_key(&self, key: &[u8]) -> Result<()> {
        self.hash(&self.state.view()?, key).map(drop)
    }

    fn check(&self, key: &[u8], options: &PutOptions) -> Result<()> {
        self.check_key(key)?;
        let len = options.metadata.len();
        if len > METADATA_MAX {
            let (len, max) = (u64::try_from(len).unwrap_or(u64::MAX), METADATA_MAX as u64);
            return Err(Error::TooLarge {
                what: "metadata",
                len,
                max,
            });
        }
        Ok(())
    }

    /// The hash of a key that may be asked for.
    pub(crate) fn hash(&self, view: &View, key: &[u8]) -> Result<u64> {
        if key.is_empty() || key.len() > KEY_MAX {
            return Err(Error::InvalidKey { len: key.len() });
        }
        Ok(self.core().hash(view.number, key))
    }

    /// A guard under which to look for a key. Loads wait for what pins it, but the bucket need not: it is
    /// asked for before, so that it comes while the get before this one still waits for its record.
    #[inline]
    fn pin(&self, hash: u64) -> Guard {
        self.core().table.prefetch(hash);
        epoch::pin()
    }

    /// What `f` makes of the live, verified record of a key.
    #[inline]
    pub(crate) fn lookup<'g, R>(
        &'g self,
        view: &View,
        key: &[u8],
        hash: u64,
        guard: &'g Guard,
        f: impl Fn(Found<'g>) -> Result<R>,
    ) -> Result<Option<R>> {
        let core = self.core();
        loop {
            let Some(found) = core.find(view.number, key, hash, guard)? else {
                return Ok(None);
            };
            if !found.is_visible(view, || core.clock.now()) {
                return Ok(None);
            }
            debug_assert_eq!(found.record.key, key, "no key's value is another's");
            debug_assert_eq!(found.record.header.namespace, view.number);
            let (location, segment) = (found.location, found.segment);
            if let Some(capacity) = &core.capacity {
                capacity.note_read(hash, segment);
            }
            if !segment.body_is_intact(location.offset(), &found.record, core.verify) {
                return Err(segment.damage(location.offset(), "value checksum"));
            }
            match f(found) {
                // Replaced meanwhile, and the file of its large value removed: look again.
                Err(_) if !core.holds(hash, location, guard) => {}
                result => return result.map(Some),
            }
        }
    }

    #[inline]
    pub(crate) fn large(&self, found: &Found<'_>) -> Result<Option<Arc<Large>>> {
        match found.record.header.kind {
            Kind::PutLarge => self.open_large(found).map(Some),
            _ => Ok(None),
        }
    }

    #[inline(never)]
    fn open_large(&self, found: &Found<'_>) -> Result<Arc<Large>> {
        let damage = || {
            found
                .segment
                .damage(found.location.offset(), "large value pointer")
        };
        let pointer = LargePointer::decode(found.record.value()).ok_or_else(damage)?;
        let (core, id) = (self.core(), pointer.segment);
        debug_assert!(
            found.record.header.kind == Kind::PutLarge,
            "others hold their value"
        );
        core.origin.check()?;
        if let Some(large) = core.mapped.get(id) {
            return Ok(large);
        }
        let path = large_path(&core.dir, id);
        let large = Large::open(&*core.vfs, path, pointer, core.verify);
        let large = large.map_err(|error| core.outdated(error))?;
        core.mapped.insert(id, Arc::clone(&large));
        if !core.larges.lock().contains(&id) {
            // Replaced meanwhile: its file is being removed, and should not keep its space.
            core.mapped.forget(id);
        }
        Ok(large)
    }

    fn open_stream(&self, found: &Found<'_>) -> Result<ValueStream> {
        let record = &found.record;
        let body = match self.large(found)? {
            Some(large) => Body::Large(large),
            None => Body::Inline(inline(found)),
        };
        Ok(ValueStream {
            body,
            metadata: Bytes::copy_from_slice(record.metadata()),
            expiration: record.header.expiration,
            generation: record.header.generation(),
            position: 0,
            cache_status: self.missed(),
        })
    }

    pub(crate) fn put_op(&self, key: &[u8], value: &[u8], options: &PutOptions) -> Result<Op> {
        self.check(key, options)?;
        if value.len() <= INLINE_MAX {
            return self.op(key, value, None, options);
        }
        let mut writer = ValueWriter::new(self.clone(), key, options);
        writer.write(value)?;
        writer.into_op()
    }

    /// A put of a value that lies in the record, or where `pointer` says.
    pub(crate) fn op(
        &self,
        key: &[u8],
        inline: &[u8],
        pointer: Option<LargePointer>,
        options: &PutOptions,
    ) -> Result<Op> {
        let ttl = options.expiration_ttl.map(|ttl| {
            let rounded = ttl
                .as_secs()
                .saturating_add(u64::from(ttl.subsec_nanos() > 0));
            self.core().clock.now().saturating_add(rounded)
        });
        debug_assert!(
            pointer.is_none() || inline.is_empty(),
            "a value lies in one place"
        );
        debug_assert!(inline.len() <= INLINE_MAX);
        debug_assert!(pointer.is_none_or(|pointer| u64::from(pointer.len) <= VALUE_MAX));
        let pointer = pointer.map(LargePointer::encode);
        let (kind, value) = match &pointer {
            Some(pointer) => (Kind::PutLarge, &pointer[..]),
            None => (Kind::Put, inline),
        };
        Ok(Op {
            expiration: ttl.or(options.expiration).unwrap_or(0),
            condition: options.condition,
            ..Op::keyed(kind, self.place(key), key, &options.metadata, value)
        })
    }

    pub(crate) fn delete_op(&self, key: &[u8]) -> Result<Op> {
        self.check_key(key)?;
        let place = self.place(key);
        Ok(Op::keyed(Kind::Tombstone, place, key, &[], &[]))
    }

    /// An operation that was made before, under the number that the namespace has now: who has had another
    /// may be forgotten.
    pub(crate) fn renumbered(&self, op: Op) -> Op {
        let namespace = self.state.number();
        if op.namespace == namespace {
            return op;
        }
        let hash = self.core().hash(namespace, op.key());
        Op {
            namespace,
            hash,
            ..op
        }
    }

    /// A hash of a key of this namespace that stays the same when the namespace gets another number.
    pub(crate) fn stable_hash(&self, key: &[u8]) -> u64 {
        let [a, b, c, d, ..] = self.id().0;
        self.core().hash(u32::from_le_bytes([a, b, c, d]), key)
    }

    /// The namespace's number and the hash of a key in it, whose bucket is on its way to the cache.
    fn place(&self, key: &[u8]) -> (u32, u64) {
        let (core, number) = (self.core(), self.state.number());
        let hash = core.hash(number, key);
        core.table.prefetch(hash);
        (number, hash)
    }
}

pub(crate) fn inline(found: &Found<'_>) -> Bytes {
    let value = found.record.value();
    if value.len() <= COPY_MAX {
        return Bytes::copy_from_slice(value);
    }
    let header = &found.record.header;
    let before = crate::format::record::HEADER_LEN
        + usize::from(header.key_len)
        + usize::from(header.metadata_len);
    let offset = found
        .location
        .offset()
        .saturating_add(u64::try_from(before).unwrap_or(0));
    let slice = Slice {
        segment: Arc::clone(found.segment),
        offset,
        len: value.len(),
    };
    debug_assert_eq!(
        (slice.as_ref().as_ptr(), slice.as_ref().len()),
        (value.as_ptr(), value.len()),
        "it is this record's value"
    );
    Bytes::from_owner(slice)
}
