//! A file's bytes: a size, and those blocks of it that were written. What was never written is zero, and takes no
//! memory, though it counts.

use innkeeper_domain::limits::SCRATCH_BLOCK_BYTES;
use std::collections::BTreeMap;

/// As `u64`, which offsets are.
const BLOCK: u64 = SCRATCH_BLOCK_BYTES as u64;

#[derive(Default)]
pub(super) struct Content {
    size: u64,
    blocks: BTreeMap<u64, Box<[u8; SCRATCH_BLOCK_BYTES]>>,
}

/// What so many bytes count, to within 2 % of what they may take. At most 2^63 bytes.
pub(super) fn counted(size: u64) -> u64 {
    size.div_ceil(BLOCK) * BLOCK
}

impl Content {
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes from an offset on: `length`, or as many as there are.
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let end = self.size.min(offset.saturating_add(length as u64));
        let length = usize::try_from(end.saturating_sub(offset)).unwrap_or(0);
        let mut bytes = vec![0; length];
        if length == 0 {
            return bytes;
        }
        for (index, block) in self.blocks.range(offset / BLOCK..=(end - 1) / BLOCK) {
            let begins = index * BLOCK;
            let (from, to) = (offset.max(begins), end.min(begins + BLOCK));
            // All of them differences within a block or within `length`.
            let into = (from - offset) as usize..(to - offset) as usize;
            bytes[into].copy_from_slice(&block[(from - begins) as usize..(to - begins) as usize]);
        }
        bytes
    }

    /// Puts bytes at an offset; the file grows if it ends before their end, with zeros before them.
    pub fn write(&mut self, offset: u64, mut bytes: &[u8]) {
        let mut at = offset;
        while !bytes.is_empty() {
            let within = (at % BLOCK) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(SCRATCH_BLOCK_BYTES - within));
            let block = self.blocks.entry(at / BLOCK).or_insert_with(|| Box::new([0; SCRATCH_BLOCK_BYTES]));
            block[within..within + now.len()].copy_from_slice(now);
            at += now.len() as u64;
            bytes = later;
        }
        self.size = self.size.max(at);
    }

    /// Cuts off what is beyond a size, or adds zeros up to it.
    pub fn resize(&mut self, size: u64) {
        if size < self.size {
            self.blocks.split_off(&size.div_ceil(BLOCK));
            if let Some(last) = self.blocks.get_mut(&(size / BLOCK)) {
                last[(size % BLOCK) as usize..].fill(0);
            }
        }
        self.size = size;
    }

    /// How many blocks take memory.
    #[cfg(test)]
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }
}
