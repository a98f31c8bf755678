//! Refusals, on their way to the audit log. They wait in memory, bounded and folded, so that somebody who is refused
//! again and again can neither fill the log nor slow calls down; a host that crashes loses the last two seconds' of them.

use innkeeper_domain::audit::{Actor, AuditEntry, AuditOutcome};
use innkeeper_domain::ids::{AuditId, TenantId};
use innkeeper_domain::limits::{DENIALS_FOLDED, DENIALS_WAITING_MAX};
use innkeeper_domain::name::Name;
use innkeeper_domain::time::Now;
use innkeeper_domain::{Timestamp, time};
use innkeeper_store::AuditStore;
use serde_json::Value;
use std::collections::HashMap;
use std::mem::take;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often they are written.
const FLUSH: Duration = Duration::from_millis(500);

/// Refusals that are not in the audit log yet.
#[derive(Debug, Default)]
pub(crate) struct Denials(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    lines: HashMap<Key, Line>,
    /// Refusals that there was no room for.
    lost: u64,
}

/// Refusals that have this in common are of the same kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    actor: String,
    address: String,
    action: String,
}

#[derive(Debug, Clone)]
struct Line {
    at: Timestamp,
    actor: Arc<Actor>,
    tenant: Option<(TenantId, Name)>,
    count: u64,
}

impl Waiting {
    fn add(&mut self, actor: &Arc<Actor>, tenant: Option<(TenantId, Name)>, now: Timestamp) {
        let key =
            Key { actor: actor.name.clone(), address: actor.address.clone(), action: actor.action.clone() };
        if let Some(line) = self.lines.get_mut(&key) {
            line.count += 1;
        } else if self.lines.len() < DENIALS_WAITING_MAX {
            self.lines.insert(key, Line { at: now, actor: Arc::clone(actor), tenant, count: 1 });
        } else {
            self.lost += 1;
        }
    }

    /// Takes the lines that nothing is folded into any more, the oldest first.
    fn take_until(&mut self, now: Timestamp) -> Vec<Line> {
        let over = |line: &Line| time::after(line.at, DENIALS_FOLDED) <= now;
        let mut lines: Vec<Line> =
            self.lines.extract_if(|_, line| over(line)).map(|(_, line)| line).collect();
        lines.sort_by_key(|line| line.at);
        lines
    }
}

impl Line {
    fn entry(&self) -> AuditEntry {
        AuditEntry {
            id: AuditId::new(self.at),
            at: self.at,
            tenant: self.tenant.clone(),
            actor: Actor::clone(&self.actor),
            object: String::new(),
            outcome: AuditOutcome::Denied,
            before: Value::Null,
            after: Value::Null,
            count: self.count,
        }
    }
}

impl Denials {
    /// Somebody was refused.
    pub fn add(&self, actor: &Arc<Actor>, tenant: Option<(TenantId, Name)>, now: Timestamp) {
        self.lock().add(actor, tenant, now);
    }

    /// Writes what comes to the audit log until `end`, and the rest then. What can't be written is tried again, as far
    /// as there is room; it may then be there twice.
    pub async fn write(&self, store: &dyn AuditStore, now: &Now, end: CancellationToken) {
        let mut lines = Vec::new();
        loop {
            let ended = tokio::time::timeout(FLUSH, end.cancelled()).await.is_ok();
            let until = if ended { Timestamp::MAX } else { now() };
            let (new, lost) = {
                let mut waiting = self.lock();
                (waiting.take_until(until), take(&mut waiting.lost))
            };
            let room = DENIALS_WAITING_MAX.saturating_sub(lines.len());
            let over = new.len().saturating_sub(room);
            lines.extend(new.into_iter().take(room));
            if lost > 0 || over > 0 {
                tracing::warn!(refusals = lost, lines = over, "refusals that the audit log has no room for");
            }
            if !lines.is_empty() {
                match store.audit_append(lines.iter().map(Line::entry).collect()).await {
                    Ok(()) => lines.clear(),
                    Err(error) => {
                        tracing::warn!(%error, lines = lines.len(), "refusals can't be written to the audit log");
                    }
                }
            }
            if ended {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(name: &str) -> Arc<Actor> {
        Arc::new(Actor {
            name: name.into(),
            role: None,
            address: "192.0.2.1".into(),
            action: "RunService/StartRun".into(),
        })
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn the_same_within_a_second_is_one_line() {
        let mut waiting = Waiting::default();
        for millis in [0, 400, 900] {
            waiting.add(&actor("a"), None, at(millis));
        }
        waiting.add(&actor("b"), None, at(500));
        assert!(waiting.take_until(at(999)).is_empty(), "more of the same may come");
        let lines = waiting.take_until(at(1_000));
        assert_eq!(lines.iter().map(|line| line.count).collect::<Vec<_>>(), [3]);
        waiting.add(&actor("a"), None, at(1_100));
        let counts: Vec<_> = waiting.take_until(Timestamp::MAX).iter().map(|line| line.count).collect();
        assert_eq!(counts, [1, 1]);
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let mut waiting = Waiting::default();
        for number in 0..DENIALS_WAITING_MAX + 3 {
            waiting.add(&actor(&number.to_string()), None, at(0));
        }
        waiting.add(&actor("0"), None, at(1));
        assert_eq!((waiting.lines.len(), waiting.lost), (DENIALS_WAITING_MAX, 3));
        assert_eq!(waiting.take_until(at(5_000))[..].iter().map(|line| line.count).max(), Some(2));
    }
}
