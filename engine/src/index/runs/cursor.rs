//! The text that stands for a place in a listing.
//!
//! ```text
//! base64url( tag (16) | key after which the next page begins )
//! ```
//!
//! The tag is SipHash-2-4-128, keyed with a secret of the store, of the namespace, the query and the
//! key. So a cursor is good for the listing it was issued for and no other, for ever, and costs the
//! store nothing to keep. The key in it can be read by whoever holds it: they were shown it anyway.

use siphasher::sip128::SipHasher24;

use crate::format::record::KEY_MAX;
use crate::format::run::KEY_LEN_MAX;

const TAG_LEN: usize = 16;
/// Longer text was never issued: a key is below 64 KiB.
const TEXT_LEN_MAX: usize = (TAG_LEN + KEY_LEN_MAX).div_ceil(3) * 4;

const _: () = {
    assert!(TAG_LEN == size_of::<u128>(), "the hash has 128 bits");
    assert!(KEY_MAX <= KEY_LEN_MAX, "every key has a cursor");
};

/// What a listing asks for, apart from the size of its pages, which may change on the way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fingerprint<'a> {
    pub(crate) namespace: u32,
    pub(crate) prefix: &'a [u8],
    pub(crate) start: Option<&'a [u8]>,
    pub(crate) end: Option<&'a [u8]>,
    pub(crate) reverse: bool,
}

/// Returns the cursor for the page after `after_key`.
pub(crate) fn encode(secret: &[u8; 16], query: &Fingerprint<'_>, after_key: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(TAG_LEN + after_key.len());
    bytes.extend_from_slice(&tag(secret, query, after_key));
    bytes.extend_from_slice(after_key);
    let text = to_base64url(&bytes);
    debug_assert!(
        text.len() <= TEXT_LEN_MAX,
        "it is believed when it comes back"
    );
    debug_assert!(
        decode(secret, query, &text).is_some_and(|key| key == after_key),
        "it leads on from this key"
    );
    text
}

/// Returns the key a cursor stands for, or `None` if it was not issued for exactly this query.
pub(crate) fn decode(secret: &[u8; 16], query: &Fingerprint<'_>, cursor: &str) -> Option<Vec<u8>> {
    if cursor.len() > TEXT_LEN_MAX {
        return None;
    }
    let bytes = from_base64url(cursor)?;
    let (claimed, key) = bytes.split_first_chunk::<TAG_LEN>()?;
    // All bytes are compared, so the time taken does not tell how many were right.
    let difference = tag(secret, query, key)
        .iter()
        .zip(claimed)
        .fold(0, |d, (a, b)| d | (a ^ b));
    (difference == 0).then(|| key.to_vec())
}

fn tag(secret: &[u8; 16], query: &Fingerprint<'_>, key: &[u8]) -> [u8; TAG_LEN] {
    // At once: the hasher is slow with many short pieces.
    let mut text = Vec::with_capacity(128 + key.len());
    text.extend_from_slice(b"rimstone list cursor 1");
    text.extend_from_slice(&query.namespace.to_le_bytes());
    text.push(u8::from(query.reverse));
    // Lengths first, so that no two queries give the same bytes.
    for part in [Some(query.prefix), query.start, query.end, Some(key)] {
        text.push(u8::from(part.is_some()));
        let part = part.unwrap_or_default();
        text.extend_from_slice(&(part.len() as u64).to_le_bytes());
        text.extend_from_slice(part);
    }
    let hash = SipHasher24::new_with_key(secret).hash(&text);
    let mut tag = [0; TAG_LEN];
    let (low, high) = tag.split_at_mut(8);
    low.copy_from_slice(&hash.h1.to_le_bytes());
    high.copy_from_slice(&hash.h2.to_le_bytes());
    tag
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn to_base64url(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    let digits = |a: u8, b: u8, c: u8| {
        let bits = u32::from_le_bytes([c, b, a, 0]);
        let digit = |at: u32| ALPHABET.get((bits >> at & 63) as usize);
        [18, 12, 6, 0].map(|at| digit(at).copied().unwrap_or_default())
    };
    let (groups, rest) = bytes.as_chunks();
    text.resize(4 * groups.len(), 0);
    let whole = text.as_chunks_mut().0.iter_mut().zip(groups);
    whole.for_each(|(to, &[a, b, c])| *to = digits(a, b, c));
    match *rest {
        [a] => text.extend_from_slice(digits(a, 0, 0).get(..2).unwrap_or_default()),
        [a, b] => text.extend_from_slice(digits(a, b, 0).get(..3).unwrap_or_default()),
        _ => {}
    }
    debug_assert_eq!(text.len(), (bytes.len() * 4).div_ceil(3), "six bits each");
    String::from_utf8(text).unwrap_or_default()
}

/// Refuses padding, other alphabets, and bits set beyond the last byte: one text per value.
fn from_base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for (&digit, at) in group.iter().zip([18, 12, 6, 0]) {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            bits |= u32::from(value) << at;
        }
        debug_assert!(bits < 1 << 24, "four digits are three bytes");
        let [c, b, a, _] = bits.to_le_bytes();
        let (own, spare) = match group.len() {
            4 => (&[a, b, c][..], 0),
            3 => (&[a, b][..], c),
            2 => (&[a][..], b | c),
            _ => return None,
        };
        if spare != 0 {
            return None;
        }
        bytes.extend_from_slice(own);
    }
    Some(bytes)
}
