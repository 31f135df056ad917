//! Checksums put right, so that fuzzing reaches what lies behind them.

use super::block::BLOCK_RECORDS;
use super::{
    CRC_LEN, FOOTER_LEN, FOOTER_MAGIC, HEADER_LEN, MAGIC, VERSION, block_crc, field_place,
    field_u16, field_u32, field_u64, footer_crc,
};

/// Puts the checksums of a run's fixed parts and of its blocks right, so that what lies behind them is
/// looked at.
#[allow(
    clippy::indexing_slicing,
    reason = "the lengths of header and footer are known"
)]
pub(crate) fn reseal(file: &mut [u8]) {
    let Some(footer_at) = file.len().checked_sub(FOOTER_LEN) else {
        return;
    };
    let (body, footer) = file.split_at_mut(footer_at);
    let Some((header, _)) = body.split_first_chunk_mut::<HEADER_LEN>() else {
        return;
    };
    header[..8].copy_from_slice(&MAGIC);
    let version = Some(field_u16(header, 8)).filter(|version| *version == 1);
    let version = version.unwrap_or(VERSION);
    header[8..10].copy_from_slice(&version.to_le_bytes());
    header[10..12].copy_from_slice(&u16::from(BLOCK_RECORDS).to_le_bytes());
    let crc = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    let (header, run_id) = (*header, field_u64(header, 32));
    if version == 1 {
        reseal_flat(run_id, body, footer);
    } else {
        reseal_blocks(run_id, body);
    }
    footer[56..60].copy_from_slice(&FOOTER_MAGIC);
    let crc = footer_crc(&header, &footer[..60]);
    footer[60..].copy_from_slice(&crc.to_le_bytes());
}

/// Block by block, as far as their lengths lead.
fn reseal_blocks(run_id: u64, body: &mut [u8]) {
    let mut start = HEADER_LEN;
    while let Some(end) = start.checked_add(field_u32(body, start) as usize) {
        let Some(block) = body.get_mut(start..end) else {
            return;
        };
        let Some((content, crc)) = block.split_last_chunk_mut::<CRC_LEN>() else {
            return;
        };
        *crc = block_crc(run_id, start as u64, content).to_le_bytes();
        start = end;
    }
}

/// The blocks that a flat index names, and the index.
#[allow(clippy::indexing_slicing, reason = "the length of a footer is known")]
fn reseal_flat(run_id: u64, body: &mut [u8], footer: &mut [u8]) {
    const ENTRY_LEN: usize = 16;
    let index_offset = field_place(footer, 0);
    let Some((blocks, index)) = body.split_at_mut_checked(index_offset) else {
        return;
    };
    footer[8..16].copy_from_slice(&((index.len() / ENTRY_LEN) as u64).to_le_bytes());
    footer[48..52].copy_from_slice(&crc32fast::hash(index).to_le_bytes());
    let starts = index.chunks(ENTRY_LEN).map(|entry| field_place(entry, 8));
    let starts: Vec<_> = starts.collect();
    let ends = starts.iter().skip(1).copied().chain([index_offset]);
    for (start, end) in starts.iter().copied().zip(ends) {
        if let Some((content, crc)) = blocks
            .get_mut(start..end)
            .and_then(|block| block.split_last_chunk_mut::<CRC_LEN>())
        {
            *crc = block_crc(run_id, start as u64, content).to_le_bytes();
        }
    }
}
