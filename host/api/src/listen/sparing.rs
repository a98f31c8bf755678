//! Log lines about what strangers do: one in a while, with how many there were.

use std::time::Duration;
use tokio::time::Instant;

/// How long it is silent after a line.
const SILENCE: Duration = Duration::from_secs(10);

/// Lets through one line in ten seconds.
#[derive(Debug, Default)]
pub struct Sparing {
    last: Option<Instant>,
    unsaid: u64,
}

impl Sparing {
    /// Whether to say this one; if so, how many were not said since the last.
    pub fn say(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + SILENCE) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_and_a_number() {
        let (mut sparing, start) = (Sparing::default(), Instant::now());
        assert_eq!(sparing.say(start), Some(0));
        assert_eq!((sparing.say(start), sparing.say(start + SILENCE / 2)), (None, None));
        assert_eq!(sparing.say(start + SILENCE), Some(2));
    }
}
