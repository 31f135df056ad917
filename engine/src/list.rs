/// Which keys a page holds.
#[derive(Clone, Debug)]
pub struct ListOptions {
    pub(crate) prefix: Vec<u8>,
    pub(crate) start: Option<Vec<u8>>,
    pub(crate) end: Option<Vec<u8>>,
    pub(crate) limit: usize,
    pub(crate) cursor: Option<String>,
    pub(crate) reverse: bool,
}

impl Default for ListOptions {
    fn default() -> ListOptions {
        ListOptions {
            prefix: Vec::new(),
            start: None,
            end: None,
            limit: 1000,
            cursor: None,
            reverse: false,
        }
    }
}

impl ListOptions {
    /// The first 1000 keys of the namespace, in byte order.
    #[must_use]
    pub fn new() -> ListOptions {
        ListOptions::default()
    }

    /// Only keys that begin with these bytes.
    #[must_use]
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> ListOptions {
        self.prefix = prefix.as_ref().to_vec();
        self
    }

    /// Only keys at or after this one.
    #[must_use]
    pub fn start(mut self, start: impl AsRef<[u8]>) -> ListOptions {
        self.start = Some(start.as_ref().to_vec());
        self
    }

    /// Only keys before this one.
    #[must_use]
    pub fn end(mut self, end: impl AsRef<[u8]>) -> ListOptions {
        self.end = Some(end.as_ref().to_vec());
        self
    }

    /// At most this many keys, at least one; 1000 by default.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> ListOptions {
        self.limit = limit.max(1);
        self
    }

    /// Goes on where the page that returned this cursor ended. The prefix, `start`, `end` and
    /// direction must be the same; the limit may differ.
    #[must_use]
    pub fn cursor(mut self, cursor: impl Into<String>) -> ListOptions {
        self.cursor = Some(cursor.into());
        self
    }

    /// From the last key to the first.
    #[must_use]
    pub fn reverse(mut self) -> ListOptions {
        self.reverse = true;
        self
    }
}

/// Bytes of key and metadata that a new page has room for, for each of at most so many keys.
const ROOM: usize = 80;
const ROOM_MAX: usize = 1000;

/// One page of keys in byte order, all from one instant.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub(crate) bytes: Vec<u8>,
    pub(crate) items: Vec<Item>,
    /// Where the next page begins, `None` on the last one. A page may hold fewer keys than the
    /// limit, even none, and still have a cursor: the work for one page is bounded.
    pub cursor: Option<String>,
}

/// Where one key lies in a page's bytes: the key, then its metadata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(crate) start: usize,
    pub(crate) key_len: u32,
    pub(crate) metadata_len: u32,
    pub(crate) expiration: u64,
    pub(crate) seqno: u64,
}

/// A key as a page lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedKey<'a> {
    /// The key.
    pub name: &'a [u8],
    /// The metadata, empty if there is none.
    pub metadata: &'a [u8],
    /// When the entry expires, in seconds since the Unix epoch.
    pub expiration: Option<u64>,
    /// The newest write that changed what a list shows of the key; it may have been overwritten since.
    pub(crate) seqno: u64,
}

impl Page {
    /// How many keys the page holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether the page holds no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The keys of the page, in its order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = ListedKey<'_>> {
        self.items.iter().map(|item| {
            let rest = self.bytes.get(item.start..).unwrap_or_default();
            debug_assert!(item.key_len as usize + item.metadata_len as usize <= rest.len());
            let (name, rest) = rest.split_at(rest.len().min(item.key_len as usize));
            ListedKey {
                name,
                metadata: rest.get(..item.metadata_len as usize).unwrap_or_default(),
                expiration: (item.expiration != 0).then_some(item.expiration),
                seqno: item.seqno,
            }
        })
    }

    /// A page of so many keys at most, which `each` gives to what it is called with; it returns the cursor.
    pub(crate) fn of<E>(
        limit: usize,
        each: impl FnOnce(&mut dyn FnMut(ListedKey<'_>)) -> Result<Option<String>, E>,
    ) -> Result<Page, E> {
        let keys = limit.min(ROOM_MAX);
        let mut page = Page {
            bytes: Vec::with_capacity(keys.saturating_mul(ROOM)),
            items: Vec::with_capacity(keys),
            cursor: None,
        };
        page.cursor = each(&mut |key| page.push(&key))?;
        debug_assert!(page.len() <= limit.max(1), "no more than was asked for");
        Ok(page)
    }

    fn push(&mut self, key: &ListedKey<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key.name);
        self.bytes.extend_from_slice(key.metadata);
        let len =
            |bytes: &[u8]| u32::try_from(bytes.len()).expect("keys and metadata are below 4 GiB");
        self.items.push(Item {
            start,
            key_len: len(key.name),
            metadata_len: len(key.metadata),
            expiration: key.expiration.unwrap_or(0),
            seqno: key.seqno,
        });
        debug_assert!(self.items.last().is_some_and(|item| {
            item.start + item.key_len as usize + item.metadata_len as usize == self.bytes.len()
        }));
    }
}
