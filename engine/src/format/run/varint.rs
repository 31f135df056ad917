//! Numbers in as few bytes as they need: seven bits a byte, low bits first.

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
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
}
