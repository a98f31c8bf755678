//! The total-memory limiter: all linear memories and tables of a guest together.

use wasmtime::{ResourceLimiter, Result};

/// What a table element takes in the host.
const ELEMENT_BYTES: usize = size_of::<usize>();

/// Counts a guest's memory against its limit.
#[derive(Debug)]
pub(crate) struct MemoryLimiter {
    limit: usize,
    used: usize,
    /// The size that the guest would have had, when growth was first refused.
    refused: Option<usize>,
}

impl MemoryLimiter {
    pub fn new(limit: u64) -> Self {
        Self { limit: usize::try_from(limit).unwrap_or(usize::MAX), used: 0, refused: None }
    }

    /// What it has, and since memory never shrinks, the most it had. In bytes.
    pub fn peak(&self) -> u64 {
        self.used as u64
    }

    /// Why a guest that failed may have failed: words on memory that it asked for and was refused.
    pub fn refusal(&self) -> Option<String> {
        let asked = self.refused?;
        Some(format!("it asked for {asked} bytes of memory in all; its limit is {}", self.limit))
    }

    fn grow(&mut self, by: usize) -> bool {
        let asked = self.used.saturating_add(by);
        if asked > self.limit {
            self.refused.get_or_insert(asked);
            return false;
        }
        self.used = asked;
        true
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        Ok(self.grow(desired.saturating_sub(current).saturating_mul(ELEMENT_BYTES)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_count_together() {
        let mut limiter = MemoryLimiter::new(100_000);
        assert!(limiter.memory_growing(0, 65_536, None).unwrap());
        assert!(limiter.table_growing(0, 1_000, None).unwrap());
        assert_eq!((limiter.peak(), limiter.refusal()), (73_536, None));
        assert!(!limiter.memory_growing(0, 65_536, None).unwrap());
        assert!(limiter.refusal().unwrap().contains("139072"));
        assert_eq!(limiter.peak(), 73_536);
    }
}
