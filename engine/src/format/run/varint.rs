//! Numbers in as few bytes as they need: seven bits a byte, low bits first.

/// Of eight bytes, the bits that say that another follows.
const MORE: u64 = 0x8080_8080_8080_8080;

pub(super) fn put_varint(out: &mut Vec<u8>, value: u64) {
    let (begin, mut rest) = (out.len(), value);
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            out.push(low & 0x7f);
            break;
        }
        out.push(low | 0x80);
    }
    let written = || out.get(begin..).unwrap_or_default();
    debug_assert_eq!(varint(&mut written()), Some(value), "as it is read");
}

#[inline]
pub(super) fn varint(input: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = input.split_first()?;
    *input = rest;
    if first < 0x80 {
        return Some(u64::from(first));
    }
    let mut value = u64::from(first & 0x7f);
    for shift in (7..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[inline]
pub(super) fn varint_len(input: &mut &[u8]) -> Option<usize> {
    usize::try_from(varint(input)?).ok()
}

/// A number of at most 56 bits at the beginning of eight bytes, and how many of them it takes; `None` if it is
/// longer. There is no branch for each byte that could be guessed wrong.
#[inline]
pub(super) fn short_varint(input: &[u8; 8]) -> Option<(u64, usize)> {
    let bytes = u64::from_le_bytes(*input);
    let ends = !bytes & MORE;
    if ends == 0 {
        return None;
    }
    // The bits up to the first byte that says that no other follows.
    debug_assert!(
        ends.trailing_zeros() % 8 == 7,
        "the top bit of the last byte"
    );
    let own = bytes & (ends ^ ends.wrapping_sub(1)) & !MORE;
    // Seven bits of eight are moved together, in twos, fours and eights.
    let twos = (own & 0x007f_007f_007f_007f) | (own & 0x7f00_7f00_7f00_7f00) >> 1;
    let fours = (twos & 0x0000_3fff_0000_3fff) | (twos & 0x3fff_0000_3fff_0000) >> 2;
    let eights = (fours & 0x0fff_ffff) | (fours & 0x0fff_ffff_0000_0000) >> 4;
    debug_assert_eq!(varint(&mut input.as_slice()), Some(eights));
    Some((eights, ends.trailing_zeros() as usize / 8 + 1))
}

/// How many bytes such a number takes.
#[inline]
pub(super) fn short_varint_len(input: &[u8; 8]) -> Option<usize> {
    let ends = !u64::from_le_bytes(*input) & MORE;
    let len = (ends != 0).then(|| ends.trailing_zeros() as usize / 8 + 1);
    debug_assert_eq!(len, short_varint(input).map(|(_, len)| len));
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_what_was_written_and_takes_the_bytes_that_it_needs() {
        for bits in 0..64 {
            for value in [1 << bits, (1 << bits) - 1, u64::MAX >> bits] {
                let mut bytes = Vec::new();
                put_varint(&mut bytes, value);
                let digits = u64::BITS - value.leading_zeros();
                assert_eq!(bytes.len(), digits.div_ceil(7).max(1) as usize);
                bytes.push(7);
                let mut rest = bytes.as_slice();
                assert_eq!(varint(&mut rest), Some(value));
                assert_eq!(rest, [7], "what follows is left");
                for cut in 0..bytes.len() - 1 {
                    let mut rest = bytes.get(..cut).unwrap_or_default();
                    assert_eq!(varint(&mut rest), None, "{value} cut to {cut}");
                }
            }
        }
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_none() {
        let number = |last: &[u8]| [&[0xff; 9], last].concat();
        assert_eq!(varint(&mut number(&[1]).as_slice()), Some(u64::MAX));
        for last in [&[2][..], &[0x7f], &[0x80, 0], &[0x81, 0]] {
            assert_eq!(varint(&mut number(last).as_slice()), None, "{last:?}");
        }
    }

    #[test]
    fn short_numbers_are_read_alike_at_once_and_byte_by_byte() {
        for shift in 0..64 {
            for number in [
                1u64 << shift,
                (1 << shift) - 1,
                0x5a5a_5a5a_5a5a_5a5a >> shift,
            ] {
                let mut bytes = Vec::new();
                put_varint(&mut bytes, number);
                let len = bytes.len();
                bytes.extend_from_slice(&[0xff; 8]);
                let at_once = bytes.first_chunk().and_then(short_varint);
                let expected = (len <= 8).then_some((number, len));
                assert_eq!(at_once, expected, "{number}");
                let alone = bytes.first_chunk().and_then(short_varint_len);
                assert_eq!(alone, expected.map(|(_, len)| len), "{number}");
                assert_eq!(varint(&mut &bytes[..]), Some(number));
            }
        }
    }
}
