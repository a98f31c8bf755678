//! The total-memory limiter: all linear memories and tables of a guest together, and its scratch.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wasmtime::{ResourceLimiter, Result};

/// What a table element takes in the host.
const ELEMENT_BYTES: usize = size_of::<usize>();

/// Counts a guest's memory against its limit. Clones share the count.
#[derive(Debug, Clone)]
pub(crate) struct MemoryLimiter(Arc<Mutex<Count>>);

#[derive(Debug)]
struct Count {
    limit: usize,
    used: usize,
    /// What of it the scratch uses.
    scratch: usize,
    peak: usize,
    refused: Option<Refused>,
}

/// What there would have been, when growth was first refused.
#[derive(Debug, Clone, Copy)]
struct Refused {
    asked: usize,
    scratch: usize,
}

impl MemoryLimiter {
    pub fn new(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self(Arc::new(Mutex::new(Count { limit, used: 0, scratch: 0, peak: 0, refused: None })))
    }

    /// The most that it had at one time, in bytes.
    pub fn peak(&self) -> u64 {
        self.count().peak as u64
    }

    /// Why a guest that failed may have failed: words on memory that it asked for and was refused.
    pub fn refusal(&self) -> Option<String> {
        let count = self.count();
        let Refused { asked, scratch } = count.refused?;
        let scratch = match scratch {
            0 => String::new(),
            bytes => format!(", {bytes} of them for its scratch"),
        };
        Some(format!("it asked for {asked} bytes of memory in all{scratch}; its limit is {}", count.limit))
    }

    /// Counts bytes of the scratch that are about to be used. False: there is no room for them.
    pub fn grow_scratch(&self, by: usize) -> bool {
        self.count().grow(by, by)
    }

    /// Counts them no more.
    pub fn shrink_scratch(&self, by: usize) {
        let mut count = self.count();
        count.scratch = count.scratch.saturating_sub(by);
        count.used = count.used.saturating_sub(by);
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    fn grow(&mut self, by: usize, scratch: usize) -> bool {
        let asked = self.used.saturating_add(by);
        let scratch = self.scratch.saturating_add(scratch);
        if asked > self.limit {
            self.refused.get_or_insert(Refused { asked, scratch });
            return false;
        }
        self.used = asked;
        self.scratch = scratch;
        self.peak = self.peak.max(asked);
        true
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        Ok(self.count().grow(desired.saturating_sub(current), 0))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        Ok(self.count().grow(desired.saturating_sub(current).saturating_mul(ELEMENT_BYTES), 0))
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
        let refusal = limiter.refusal().unwrap();
        assert!(refusal.contains("139072") && !refusal.contains("scratch"), "{refusal}");
        assert_eq!(limiter.peak(), 73_536);
    }

    #[test]
    fn the_scratch_counts_with_them_while_it_is_used() {
        let mut limiter = MemoryLimiter::new(100_000);
        assert!(limiter.memory_growing(0, 65_536, None).unwrap());
        let scratch = limiter.clone();
        assert!(scratch.grow_scratch(30_000));
        assert!(!scratch.grow_scratch(5_000));
        assert!(limiter.refusal().unwrap().contains("100536 bytes of memory in all, 35000 of them"));
        scratch.shrink_scratch(30_000);
        assert!(limiter.table_growing(0, 4_000, None).unwrap(), "its room is the guest's again");
        assert_eq!(limiter.peak(), 97_536);
    }
}
