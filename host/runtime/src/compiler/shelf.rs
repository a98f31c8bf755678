//! What is kept ready: the longest unused makes room.

use innkeeper_domain::component::Digest;
use innkeeper_domain::limits::{COMPONENTS_READY_BYTES_MAX, COMPONENTS_READY_MAX};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Things that are ready, or on their way, by digest.
pub(super) struct Shelf<T> {
    slots: HashMap<Digest, Slot<T>>,
    uses: u64,
    /// Of all slots.
    bytes: u64,
}

struct Slot<T> {
    last_use: u64,
    /// How much memory it takes; nothing until that is known.
    bytes: u64,
    cell: Arc<OnceCell<T>>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { slots: HashMap::new(), uses: 0, bytes: 0 }
    }
}

impl<T> Shelf<T> {
    /// The place of a thing, whether it is there or not.
    pub fn slot(&mut self, digest: Digest) -> Arc<OnceCell<T>> {
        self.uses += 1;
        if let Some(slot) = self.slots.get_mut(&digest) {
            slot.last_use = self.uses;
            return Arc::clone(&slot.cell);
        }
        if self.slots.len() >= COMPONENTS_READY_MAX {
            self.give_up_oldest(None);
        }
        let cell = Arc::new(OnceCell::new());
        self.slots.insert(digest, Slot { last_use: self.uses, bytes: 0, cell: Arc::clone(&cell) });
        cell
    }

    /// Says how much memory a thing takes. Others may have to make room for it.
    pub fn weigh(&mut self, digest: Digest, bytes: u64) {
        let Some(slot) = self.slots.get_mut(&digest) else { return };
        self.bytes = self.bytes - slot.bytes + bytes;
        slot.bytes = bytes;
        while self.bytes > COMPONENTS_READY_BYTES_MAX && self.give_up_oldest(Some(digest)) {}
    }

    /// Whoever runs just then goes on: what is given up is only no longer kept.
    fn give_up_oldest(&mut self, but: Option<Digest>) -> bool {
        let others = self.slots.iter().filter(|(digest, _)| Some(**digest) != but);
        let Some(oldest) = others.min_by_key(|(_, slot)| slot.last_use).map(|(digest, _)| *digest) else {
            return false;
        };
        if let Some(slot) = self.slots.remove(&oldest) {
            self.bytes -= slot.bytes;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: usize) -> Digest {
        let mut digest = Digest([0; 32]);
        digest.0[..8].copy_from_slice(&number.to_le_bytes());
        digest
    }

    #[test]
    fn the_longest_unused_makes_room() {
        let mut shelf = Shelf::<()>::default();
        let first = shelf.slot(digest(0));
        (1..COMPONENTS_READY_MAX).for_each(|number| drop(shelf.slot(digest(number))));
        assert!(Arc::ptr_eq(&first, &shelf.slot(digest(0))), "it has just been used");
        shelf.slot(digest(COMPONENTS_READY_MAX));
        assert!(!shelf.slots.contains_key(&digest(1)) && shelf.slots.contains_key(&digest(0)));
        assert_eq!(shelf.slots.len(), COMPONENTS_READY_MAX);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut shelf = Shelf::<()>::default();
        let third = COMPONENTS_READY_BYTES_MAX / 3;
        for number in 0..4 {
            shelf.slot(digest(number));
            shelf.weigh(digest(number), third);
        }
        assert_eq!((shelf.slots.len(), shelf.bytes), (3, 3 * third));
        assert!(!shelf.slots.contains_key(&digest(0)));
        shelf.weigh(digest(3), 2 * COMPONENTS_READY_BYTES_MAX);
        assert_eq!(shelf.slots.len(), 1, "one alone may be as large as it is");
        shelf.weigh(digest(0), 1);
        assert_eq!(shelf.bytes, 2 * COMPONENTS_READY_BYTES_MAX, "what isn't kept doesn't count");
    }
}
