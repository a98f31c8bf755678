//! Refusals, on their way to the audit log. They wait in memory, bounded and folded, so that somebody who is refused
//! again and again can neither fill the log nor slow calls down. A minute has so many lines for each tenant, and so
//! many for all strangers together; what is beyond is one line more, with a count. A host that crashes loses the last
//! two seconds' of them, of strangers and of what is beyond the last minute's. Strangers have room of their own, and
//! can't push out what others did.

use crate::login_limit::network;
use innkeeper_domain::audit::{Actor, AuditEntry, AuditOutcome};
use innkeeper_domain::ids::{AuditId, TenantId};
use innkeeper_domain::limits::{
    DENIALS_FOLDED, DENIALS_LINES_MAX, DENIALS_MINUTE, DENIALS_UNKNOWN_FOLDED, DENIALS_UNKNOWN_LINES_MAX,
    DENIALS_UNKNOWN_WAITING_MAX, DENIALS_WAITING_MAX, TENANTS_MAX,
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

/// Minutes that are kept: one of each tenant, of calls that concern none, and of strangers.
const MINUTES_MAX: usize = TENANTS_MAX as usize + 2;

/// Refusals that are not in the audit log yet.
#[derive(Debug, Default)]
pub(crate) struct Denials(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    lines: HashMap<Key, Line>,
    /// Of those whom nobody knows.
    strangers: HashMap<Key, Line>,
    minutes: HashMap<Whose, Minute>,
    /// Refusals that there was no room for.
    lost: u64,
}

/// Refusals that have this in common are one line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    /// Of somebody who is known.
    Same { actor: String, address: String, action: String, tenant: Option<TenantId> },
    /// Of those whom nobody knows, by network and whose webhook they tried.
    Network(String, Option<TenantId>),
    /// What is beyond a minute's lines, by the tenant that it concerns.
    Rest(Option<TenantId>),
}

/// Whose lines are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Whose {
    Tenant(Option<TenantId>),
    Strangers,
}

/// A minute that began with a line, and how many began in it. It is over when the lines are next taken after it.
#[derive(Debug)]
struct Minute {
    from: Timestamp,
    lines: usize,
}

#[derive(Debug, Clone)]
struct Line {
    at: Timestamp,
    actor: Arc<Actor>,
    what: What,
    count: u64,
    /// Whether it is of those who are known, be it of several roles.
    known: bool,
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
        let tenant = what.tenant.as_ref().map(|(tenant, _)| *tenant);
        if actor.role.is_some() {
            let Actor { name, address, action, .. } = Actor::clone(actor);
            let key = Key::Same { actor: name, address, action, tenant };
            let line = Line { at: now, actor: Arc::clone(actor), what, count: 1, known: true };
            self.put(Whose::Tenant(tenant), key, line);
        } else {
            // What they show and call costs them nothing to change, so it makes no line of its own.
            let address = network_text(&actor.address);
            let key = Key::Network(address.clone(), tenant);
            let actor = Arc::new(Actor { address, ..Actor::clone(actor) });
            self.put(Whose::Strangers, key, Line { at: now, actor, what, count: 1, known: false });
        }
    }

    /// Folds a line into the one that has the key; else it is one itself, or folded into what is beyond the minute's.
    fn put(&mut self, whose: Whose, mut key: Key, line: Line) {
        let (lines, waiting_max, lines_max) = match whose {
            Whose::Tenant(_) => (&mut self.lines, DENIALS_WAITING_MAX, DENIALS_LINES_MAX),
            Whose::Strangers => (&mut self.strangers, DENIALS_UNKNOWN_WAITING_MAX, DENIALS_UNKNOWN_LINES_MAX),
        };
        if let Some(same) = lines.get_mut(&key) {
            same.fold(&line);
            return;
        }
        let begun = self.minutes.get(&whose).map_or(0, |minute| minute.lines);
        if begun >= lines_max {
            key = Key::Rest(line.what.tenant.as_ref().map(|(tenant, _)| *tenant));
            if let Some(rest) = lines.get_mut(&key) {
                rest.fold(&line);
                return;
            }
        }
        if lines.len() >= waiting_max || (begun == 0 && self.minutes.len() >= MINUTES_MAX) {
            self.lost = self.lost.saturating_add(line.count);
            return;
        }
        if begun < lines_max {
            self.minutes.entry(whose).or_insert(Minute { from: line.at, lines: 0 }).lines += 1;
        }
        lines.insert(key, line);
    }

    /// Takes the lines that nothing is folded into any more, the oldest first, and forgets the minutes that are over.
    fn take_until(&mut self, now: Timestamp) -> Vec<Line> {
        let over = |from: Timestamp, long: Duration| time::after(from, long) <= now;
        let done = |key: &Key, line: &Line| match key {
            Key::Same { .. } => over(line.at, DENIALS_FOLDED),
            Key::Network(..) => over(line.at, DENIALS_UNKNOWN_FOLDED),
            Key::Rest(_) => over(line.at, DENIALS_MINUTE),
        };
        self.minutes.retain(|_, minute| !over(minute.from, DENIALS_MINUTE));
        let known = self.lines.extract_if(|key, line| done(key, line));
        let strangers = self.strangers.extract_if(|key, line| done(key, line));
        let mut lines: Vec<Line> = known.chain(strangers).map(|(_, line)| line).collect();
        lines.sort_by_key(|line| line.at);
        lines
    }
}

impl Line {
    /// Stands for another's refusals as well, and says only what they have in common.
    fn fold(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        if self.what.object != other.what.object {
            self.what.object.clear();
        }
        if self.actor == other.actor {
            return;
        }
        let (said, actor) = (Arc::make_mut(&mut self.actor), &other.actor);
        if said.name != actor.name {
            said.name = if self.known { "various" } else { "unknown" }.into();
        }
        if said.role != actor.role {
            said.role = None;
        }
        if said.address != actor.address {
            said.address = "various".into();
        }
        if said.action != actor.action {
            said.action = "various".into();
        }
    }

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
                let refusals = lost.saturating_add(over);
                tracing::warn!(refusals, "refusals that the audit log has no room for");
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

/// Adds the new lines that there is room for, strangers' apart, and says how many refusals the others stand for.
fn keep(lines: &mut Vec<Line>, new: Vec<Line>) -> u64 {
    let known = lines.iter().filter(|line| line.known).count();
    let mut room = DENIALS_WAITING_MAX.saturating_sub(known);
    let mut room_for_strangers = DENIALS_UNKNOWN_WAITING_MAX.saturating_sub(lines.len() - known);
    let mut over = 0_u64;
    for line in new {
        let room = if line.known { &mut room } else { &mut room_for_strangers };
        if *room == 0 {
            over = over.saturating_add(line.count);
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

    fn of_some_tenant() -> What {
        let tenant = (TenantId::new(at(0)), "acme".parse::<Name>().unwrap());
        What { tenant: Some(tenant), ..What::default() }
    }

    fn tenant(what: &What) -> Option<TenantId> {
        what.tenant.as_ref().map(|(tenant, _)| *tenant)
    }

    fn counted(lines: &[Line]) -> u64 {
        lines.iter().map(|line| line.count).sum()
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
    fn a_tenant_has_so_many_lines_a_minute_and_one_for_the_rest() {
        let (mut waiting, what, other) = (Waiting::default(), of_some_tenant(), of_some_tenant());
        let mut lines = Vec::new();
        // Twenty a second.
        for number in 0..1_000 {
            let now = at(number * 50);
            waiting.add(&actor(&number.to_string()), what.clone(), now);
            lines.extend(waiting.take_until(now));
        }
        for name in ["a", "b"] {
            waiting.add(&actor(name), other.clone(), at(55_000));
        }
        lines.extend(waiting.take_until(at(59_999)));
        lines.extend(waiting.take_until(at(65_000)));
        let (of_other, of_it): (Vec<_>, Vec<_>) =
            lines.into_iter().partition(|line| tenant(&line.what) == tenant(&other));
        let said: Vec<_> = of_other.iter().map(|line| (&*line.actor.name, line.count)).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said.contains(&("a", 1)) && said.contains(&("b", 1)), "each its own: {said:?}");
        assert!(of_it.iter().all(|line| tenant(&line.what) == tenant(&what)));
        assert_eq!((of_it.len(), counted(&of_it)), (DENIALS_LINES_MAX + 1, 1_000));
        let rest = of_it.iter().find(|line| line.count > 1).unwrap();
        assert_eq!(
            (&*rest.actor.name, rest.actor.role, &*rest.actor.address, &*rest.actor.action, rest.count),
            ("various", Some(Role::Viewer), "192.0.2.1", "RunService/StartRun", 940),
            "what they have in common"
        );
        waiting.add(&actor("a"), what.clone(), at(65_000));
        waiting.add(&actor("b"), what, at(65_000));
        let counts: Vec<_> = waiting.take_until(at(66_000)).iter().map(|line| line.count).collect();
        assert_eq!(counts, [1, 1], "the next minute begins anew");
        assert!(waiting.take_until(at(125_000)).is_empty());
        assert_eq!((waiting.lost, waiting.minutes.len()), (0, 0), "nothing is lost or remembered");
    }

    #[test]
    fn the_rest_of_several_roles_is_of_those_who_are_known() {
        let (mut waiting, what) = (Waiting::default(), of_some_tenant());
        for number in 0..DENIALS_LINES_MAX {
            waiting.add(&actor(&number.to_string()), what.clone(), at(0));
        }
        waiting.add(&actor("a"), what.clone(), at(1));
        let owner = Actor {
            role: Some(Role::Owner),
            address: "192.0.2.2".into(),
            action: "TokenService/CreateToken".into(),
            ..Actor::clone(&actor("b"))
        };
        waiting.add(&Arc::new(owner), what, at(2));
        let lines = waiting.take_until(Timestamp::MAX);
        let rest = lines.last().unwrap();
        let Actor { name, role, address, action } = &*rest.actor;
        assert_eq!(
            (&**name, *role, &**address, &**action, rest.count, rest.known),
            ("various", None, "various", "various", 2, true)
        );
    }

    #[test]
    fn all_strangers_have_so_many_lines_a_minute_and_one_for_the_rest() {
        let (mut waiting, hook) = (Waiting::default(), of_some_tenant());
        let mut lines = Vec::new();
        for number in 0..1_000_u32 {
            let address = std::net::Ipv4Addr::from_bits(number).to_string();
            waiting.add(&stranger("unknown", &address, "A"), What::default(), at(number.into()));
            lines.extend(waiting.take_until(at(number.into())));
        }
        for millis in [1_000, 1_001] {
            waiting.add(&stranger("sender", "192.0.2.1", "webhook"), hook.clone(), at(millis));
        }
        lines.extend(waiting.take_until(at(61_001)));
        let (at_hook, at_none): (Vec<_>, Vec<_>) =
            lines.into_iter().partition(|line| line.what.tenant.is_some());
        assert_eq!((at_none.len(), counted(&at_none)), (DENIALS_UNKNOWN_LINES_MAX + 1, 1_000));
        let rest = at_none.iter().find(|line| line.count > 1).unwrap();
        assert_eq!((&*rest.actor.address, &*rest.actor.action, rest.count), ("various", "A", 940));
        let said: Vec<_> = at_hook.iter().map(|line| (&*line.actor.address, line.count)).collect();
        assert_eq!(said, [("192.0.2.1", 2)], "its tenant is told all the same, and by whom");
        waiting.add(&stranger("unknown", "192.0.2.1", "A"), What::default(), at(61_001));
        let lines = waiting.take_until(Timestamp::MAX);
        let said: Vec<_> = lines.iter().map(|line| (&*line.actor.address, line.count)).collect();
        assert_eq!(said, [("192.0.2.1", 1)], "the next minute begins anew");
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
        for _ in 0..DENIALS_UNKNOWN_WAITING_MAX + 3 {
            waiting.add(&stranger("sender", "192.0.2.1", "webhook"), of_some_tenant(), at(0));
        }
        waiting.add(&actor("a"), What::default(), at(0));
        assert_eq!(
            (waiting.strangers.len(), waiting.lines.len(), waiting.lost),
            (DENIALS_UNKNOWN_WAITING_MAX, 1, 3)
        );
        let mut lines = waiting.take_until(Timestamp::MAX);
        assert_eq!(lines.len(), DENIALS_UNKNOWN_WAITING_MAX + 1);
        let line = |actor: Arc<Actor>| {
            let known = actor.role.is_some();
            Line { at: at(1), actor, what: What::default(), count: 2, known }
        };
        let more = vec![line(stranger("unknown", "192.0.2.1", "A")), line(actor("b"))];
        assert_eq!(keep(&mut lines, more), 2, "the stranger's");
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let mut waiting = Waiting::default();
        waiting.add(&actor("a"), What::default(), at(0));
        for _ in 0..DENIALS_WAITING_MAX + 2 {
            waiting.add(&actor("a"), of_some_tenant(), at(0));
        }
        waiting.add(&actor("a"), What::default(), at(1));
        assert_eq!((waiting.lines.len(), waiting.lost), (DENIALS_WAITING_MAX, 3));
        assert_eq!(waiting.take_until(at(5_000))[..].iter().map(|line| line.count).max(), Some(2));
    }
}
