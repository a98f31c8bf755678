//! Refusals, on their way to the audit log. They wait in memory, bounded and folded, so that somebody who is refused
//! again and again can neither fill the log nor slow calls down; a host that crashes loses the last two seconds' of them,
//! of strangers the last minute's. Strangers have room of their own, and can't push out what others did.

use crate::login_limit::network;
use innkeeper_domain::audit::{Actor, AuditEntry, AuditOutcome};
use innkeeper_domain::ids::{AuditId, TenantId};
use innkeeper_domain::limits::{
    DENIALS_FOLDED, DENIALS_UNKNOWN_FOLDED, DENIALS_UNKNOWN_WAITING_MAX, DENIALS_WAITING_MAX,
};
use innkeeper_domain::name::Name;
use innkeeper_domain::time::Now;
use innkeeper_domain::{Timestamp, time};
use innkeeper_store::AuditStore;
use serde_json::Value;
use std::collections::HashMap;
use std::mem::take;
use std::net::IpAddr;
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
    /// Of those whom nobody knows, by network and whose webhook they tried.
    strangers: HashMap<(String, Option<TenantId>), Line>,
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
    what: What,
    count: u64,
}

/// What was refused.
#[derive(Debug, Clone, Default)]
pub(crate) struct What {
    pub tenant: Option<(TenantId, Name)>,
    /// As in [`AuditEntry`].
    pub object: String,
}

impl Waiting {
    fn add(&mut self, actor: &Arc<Actor>, what: What, now: Timestamp) {
        if actor.role.is_none() {
            return self.add_stranger(actor, what, now);
        }
        let key =
            Key { actor: actor.name.clone(), address: actor.address.clone(), action: actor.action.clone() };
        if let Some(line) = self.lines.get_mut(&key) {
            line.count += 1;
        } else if self.lines.len() < DENIALS_WAITING_MAX {
            self.lines.insert(key, Line { at: now, actor: Arc::clone(actor), what, count: 1 });
        } else {
            self.lost += 1;
        }
    }

    /// What they show and call costs them nothing to change, so it makes no line of its own.
    fn add_stranger(&mut self, actor: &Actor, what: What, now: Timestamp) {
        let address = network_text(&actor.address);
        let key = (address, what.tenant.as_ref().map(|(tenant, _)| *tenant));
        if let Some(line) = self.strangers.get_mut(&key) {
            line.count = line.count.saturating_add(1);
            if line.actor.name != actor.name {
                Arc::make_mut(&mut line.actor).name = "unknown".into();
            }
            if line.actor.action != actor.action {
                Arc::make_mut(&mut line.actor).action = "various".into();
            }
            if line.what.object != what.object {
                line.what.object.clear();
            }
        } else if self.strangers.len() < DENIALS_UNKNOWN_WAITING_MAX {
            let actor = Arc::new(Actor { address: key.0.clone(), ..actor.clone() });
            self.strangers.insert(key, Line { at: now, actor, what, count: 1 });
        } else {
            self.lost += 1;
        }
    }

    /// Takes the lines that nothing is folded into any more, the oldest first.
    fn take_until(&mut self, now: Timestamp) -> Vec<Line> {
        let over = |line: &Line, folded| time::after(line.at, folded) <= now;
        let known = self.lines.extract_if(|_, line| over(line, DENIALS_FOLDED)).map(|(_, line)| line);
        let strangers = self.strangers.extract_if(|_, line| over(line, DENIALS_UNKNOWN_FOLDED));
        let mut lines: Vec<Line> = known.chain(strangers.map(|(_, line)| line)).collect();
        lines.sort_by_key(|line| line.at);
        lines
    }
}

impl Line {
    fn entry(&self) -> AuditEntry {
        AuditEntry {
            id: AuditId::new(self.at),
            at: self.at,
            tenant: self.what.tenant.clone(),
            actor: Actor::clone(&self.actor),
            object: self.what.object.clone(),
            outcome: AuditOutcome::Denied,
            before: Value::Null,
            after: Value::Null,
            count: self.count,
        }
    }
}

impl Denials {
    /// Somebody was refused.
    pub fn add(&self, actor: &Arc<Actor>, what: What, now: Timestamp) {
        self.lock().add(actor, what, now);
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
            let over = keep(&mut lines, new);
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

/// Adds the new lines that there is room for, strangers' apart, and says how many others there are.
fn keep(lines: &mut Vec<Line>, new: Vec<Line>) -> usize {
    let is_known = |line: &Line| line.actor.role.is_some();
    let known = lines.iter().filter(|line| is_known(line)).count();
    let mut room = DENIALS_WAITING_MAX.saturating_sub(known);
    let mut room_for_strangers = DENIALS_UNKNOWN_WAITING_MAX.saturating_sub(lines.len() - known);
    let mut over = 0;
    for line in new {
        let room = if is_known(&line) { &mut room } else { &mut room_for_strangers };
        if *room == 0 {
            over += 1;
        } else {
            *room -= 1;
            lines.push(line);
        }
    }
    over
}

/// Whom an address stands for, in words.
fn network_text(address: &str) -> String {
    match address.parse().map(network) {
        Ok(IpAddr::V6(network)) => format!("{network}/64"),
        Ok(network) => network.to_string(),
        Err(_) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use innkeeper_domain::access::Role;

    fn actor(name: &str) -> Arc<Actor> {
        let actor = Actor::clone(&stranger(name, "192.0.2.1", "RunService/StartRun"));
        Arc::new(Actor { role: Some(Role::Viewer), ..actor })
    }

    fn stranger(name: &str, address: &str, action: &str) -> Arc<Actor> {
        Arc::new(Actor { name: name.into(), role: None, address: address.into(), action: action.into() })
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn the_same_within_a_second_is_one_line() {
        let mut waiting = Waiting::default();
        for millis in [0, 400, 900] {
            waiting.add(&actor("a"), What::default(), at(millis));
        }
        waiting.add(&actor("b"), What::default(), at(500));
        assert!(waiting.take_until(at(999)).is_empty(), "more of the same may come");
        let lines = waiting.take_until(at(1_000));
        assert_eq!(lines.iter().map(|line| line.count).collect::<Vec<_>>(), [3]);
        waiting.add(&actor("a"), What::default(), at(1_100));
        let counts: Vec<_> = waiting.take_until(Timestamp::MAX).iter().map(|line| line.count).collect();
        assert_eq!(counts, [1, 1]);
    }

    #[test]
    fn strangers_are_one_line_a_minute_whatever_they_try() {
        let mut waiting = Waiting::default();
        waiting.add(&stranger("unknown", "2001:db8::1", "A"), What::default(), at(0));
        waiting.add(&stranger("unknown", "2001:db8::2", "A"), What::default(), at(100));
        waiting.add(&stranger("certificate CN:x", "192.0.2.1", "A"), What::default(), at(0));
        assert!(waiting.take_until(at(59_999)).is_empty(), "more may come");
        waiting.add(&stranger("unknown", "192.0.2.1", "B"), What::default(), at(59_999));
        let mut lines = waiting.take_until(at(60_000));
        lines.sort_by_key(|line| line.actor.address.clone());
        let said: Vec<_> = lines
            .iter()
            .map(|line| (&*line.actor.address, &*line.actor.name, &*line.actor.action, line.count))
            .collect();
        assert_eq!(said, [("192.0.2.1", "unknown", "various", 2), ("2001:db8::/64", "unknown", "A", 2)]);
    }

    #[test]
    fn strangers_at_a_webhook_are_told_to_its_tenant() {
        let mut waiting = Waiting::default();
        let tenant = (TenantId::new(at(0)), "acme".parse::<Name>().unwrap());
        let hook = |name: &str| What { tenant: Some(tenant.clone()), object: format!("trigger `{name}`") };
        waiting.add(&stranger("sender", "192.0.2.1", "webhook"), hook("a"), at(0));
        waiting.add(&stranger("unknown", "192.0.2.1", "A"), What::default(), at(1));
        waiting.add(&stranger("sender", "192.0.2.2", "webhook"), hook("a"), at(2));
        waiting.add(&stranger("sender", "192.0.2.2", "webhook"), hook("b"), at(3));
        let entries: Vec<_> = waiting.take_until(Timestamp::MAX).iter().map(Line::entry).collect();
        let said: Vec<_> = entries.iter().map(|e| (e.tenant.is_some(), &*e.object, e.count)).collect();
        assert_eq!(said, [(true, "trigger `a`", 1), (false, "", 1), (true, "", 2)]);
    }

    #[test]
    fn strangers_push_nobody_out() {
        let mut waiting = Waiting::default();
        for number in 0..u32::try_from(DENIALS_UNKNOWN_WAITING_MAX).unwrap() + 3 {
            let address = std::net::Ipv4Addr::from_bits(number).to_string();
            waiting.add(&stranger("unknown", &address, "A"), What::default(), at(0));
        }
        waiting.add(&actor("a"), What::default(), at(0));
        assert_eq!(
            (waiting.strangers.len(), waiting.lines.len(), waiting.lost),
            (DENIALS_UNKNOWN_WAITING_MAX, 1, 3)
        );
        let mut lines = waiting.take_until(Timestamp::MAX);
        assert_eq!(lines.len(), DENIALS_UNKNOWN_WAITING_MAX + 1);
        let line = |actor| Line { at: at(1), actor, what: What::default(), count: 1 };
        let more = vec![line(stranger("unknown", "192.0.2.1", "A")), line(actor("b"))];
        assert_eq!(keep(&mut lines, more), 1, "the stranger's");
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let mut waiting = Waiting::default();
        for number in 0..DENIALS_WAITING_MAX + 3 {
            waiting.add(&actor(&number.to_string()), What::default(), at(0));
        }
        waiting.add(&actor("0"), What::default(), at(1));
        assert_eq!((waiting.lines.len(), waiting.lost), (DENIALS_WAITING_MAX, 3));
        assert_eq!(waiting.take_until(at(5_000))[..].iter().map(|line| line.count).max(), Some(2));
    }
}
