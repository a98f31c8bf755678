//! Triggers that are due and can't be read: a row that was damaged, or written by a newer version. They are
//! left out, so that the others go on.

use crate::{DueTrigger, StoreError};
use innkeeper_domain::Timestamp;
use innkeeper_domain::ids::TriggerId;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often each is reported.
const REPORT: Duration = Duration::from_secs(60);
/// So many are known; the others come and go, and with them those that are due after them wait.
const KNOWN_MAX: usize = 1_000;

/// Those that are known, and when each was last reported.
#[derive(Debug, Default)]
pub(crate) struct Unreadable(Mutex<HashMap<TriggerId, Instant>>);

impl Unreadable {
    /// How many rows more are to be read, so that these aren't in the way of others.
    pub fn count(&self) -> usize {
        self.known().len()
    }

    /// How many of those that are due the longest are to be read, and how many of those that became due last, for so many
    /// that can be read.
    pub fn halves(&self, limit: usize) -> (usize, usize) {
        (self.count().saturating_add(limit.div_ceil(2)), limit / 2)
    }

    /// Those of the due triggers that could be read, as many as `limit`: of more, one half are the first of them and the
    /// other the last.
    pub fn readable(
        &self,
        due: Vec<(TriggerId, Result<DueTrigger, StoreError>)>,
        limit: usize,
    ) -> Vec<DueTrigger> {
        let mut known = self.known();
        let read = due.into_iter().filter_map(|(id, trigger)| match trigger {
            Ok(trigger) => {
                known.remove(&id);
                Some(trigger)
            }
            Err(error) => {
                let last = known.get(&id).copied();
                if last.is_none_or(|last| last.elapsed() > REPORT) {
                    tracing::error!(trigger = %id, %error, "a stored trigger can't be read; it stays due, and starts nothing");
                    if last.is_some() || known.len() < KNOWN_MAX {
                        known.insert(id, Instant::now());
                    }
                }
                None
            }
        });
        let mut read: Vec<_> = read.collect();
        if read.len() > limit {
            read.drain(limit.div_ceil(2)..read.len() - limit / 2);
        }
        read
    }

    /// The first time of a trigger that isn't known as one of these.
    pub fn next(&self, times: Vec<(TriggerId, Timestamp)>) -> Option<Timestamp> {
        let known = self.known();
        times.into_iter().find(|(id, _)| !known.contains_key(id)).map(|(_, at)| at)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<TriggerId, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use innkeeper_domain::calendar::Covered;

    #[test]
    fn one_that_cannot_be_read_is_passed_by_until_it_can() {
        let (unreadable, at) = (Unreadable::default(), Timestamp::UNIX_EPOCH);
        let (bad, good) = (TriggerId::new(at), TriggerId::new(at));
        let damaged = || vec![(bad, Err(StoreError::Corrupt("damaged".into())))];
        assert_eq!(unreadable.next(vec![(bad, at), (good, Timestamp::MAX)]), Some(at));
        assert_eq!((unreadable.readable(damaged(), 1), unreadable.count()), (vec![], 1));
        assert_eq!(unreadable.next(vec![(bad, at), (good, Timestamp::MAX)]), Some(Timestamp::MAX));
        let schedule = innkeeper_domain::calendar::Schedule::Once { at };
        let spec = innkeeper_domain::trigger::TriggerSpec::new(schedule);
        let mended = DueTrigger {
            id: bad,
            spec,
            due: at,
            covered: Covered { at, offset: 0 },
            edition: String::new(),
            paused_through: None,
            holidays: Default::default(),
        };
        assert_eq!(unreadable.readable(vec![(bad, Ok(mended.clone()))], 1), std::slice::from_ref(&mended));
        assert_eq!(unreadable.count(), 0);
        let ids = [0; 5].map(|_| TriggerId::new(at));
        let due = ids.map(|id| (id, Ok(DueTrigger { id, ..mended.clone() })));
        let of_more = unreadable.readable(due.into(), 3);
        assert_eq!(of_more.iter().map(|trigger| trigger.id).collect::<Vec<_>>(), [ids[0], ids[1], ids[4]]);
    }
}
