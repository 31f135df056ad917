//! Bytes to types and back. Pure: no file, no clock. `docs/format.md` has the layouts.

pub(crate) mod checkpoint;
pub(crate) mod lists;
pub(crate) mod mark;
pub(crate) mod namespace;
pub(crate) mod record;
pub(crate) mod run;
pub(crate) mod segment;

/// The newest format this program writes and reads.
pub(crate) const VERSION: u16 = 1;

/// Reads a little-endian integer at a fixed place; the caller has checked the length.
macro_rules! field {
    ($bytes:expr, $at:expr, $type:ty) => {{
        let mut raw = [0u8; size_of::<$type>()];
        debug_assert!($at + raw.len() <= $bytes.len(), "the length was checked");
        if let Some(part) = $bytes.get($at..$at + size_of::<$type>()) {
            raw.copy_from_slice(part);
        }
        <$type>::from_le_bytes(raw)
    }};
}

/// Writes a little-endian integer at a fixed place; the caller has made the room.
macro_rules! set {
    ($bytes:expr, $at:expr, $value:expr) => {{
        let raw = $value.to_le_bytes();
        debug_assert!($at + raw.len() <= $bytes.len(), "the room was made");
        if let Some(part) = $bytes.get_mut($at..$at + raw.len()) {
            part.copy_from_slice(&raw);
        }
    }};
}
pub(crate) use {field, set};

/// Sixteen bytes a line, as the tests compare them.
#[cfg(test)]
fn hex(bytes: &[u8]) -> Vec<String> {
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.chunks(16).map(line).collect()
}
