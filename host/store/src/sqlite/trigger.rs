//! Triggers in SQLite: made, changed, read.

use super::cancel::{OF_TRIGGER, cancel_unbegun};
use super::quota::check_count;
use super::row::{At, Id, Json, Word, after_name, bad_token, limit, micros, paged, signed, unsigned};
use super::trigger_advance::{Advanced, Due, advance};
use super::writer::ROW;
use super::{
    SqliteStore, audit, backfill, event_deliver, holiday, secret, task, trigger_advance, trigger_fire,
    trigger_retime,
};
use crate::holidays::{wanted, with_holidays};
use crate::record;
use crate::words::{has_finished, hidden, numbered_names, too_many_unnamed};
use crate::{
    Advance, DueTrigger, Fired, NewFiring, NewTrigger, Outdated, Page, Paged, QueuedRuns, Retiming,
    StoreError, TriggerStore,
};
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::forecast::Plan;
use innkeeper_domain::ids::{RunId, TaskId, TenantId, TriggerId};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::quota::Quota;
use innkeeper_domain::rule::Rule;
use innkeeper_domain::trigger::{SkipRange, SkipReason, Trigger, TriggerSpec, TriggerState};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[async_trait]
impl TriggerStore for SqliteStore {
    async fn trigger_create(
        &self,
        tenant: TenantId,
        trigger: NewTrigger,
        change: Change,
    ) -> Result<Trigger, StoreError> {
        let now = change.now;
        let hints = Arc::clone(&self.hints);
        let create = move |c: &Connection| {
            let task = task::get(c, tenant, &trigger.task)?;
            let name = match &trigger.name {
                None => free_name(c, tenant, &task.name)?,
                Some(name) if find(c, tenant, name)?.is_some() => {
                    return Err(StoreError::Exists(format!("trigger `{name}`")));
                }
                Some(name) => name.clone(),
            };
            let quotas = super::tenant::by_id(c, tenant)?.quotas;
            check_count(c, tenant, &quotas, Quota::Triggers, "trigger WHERE deleted_at IS NULL")?;
            holiday::check(c, tenant, &trigger.spec)?;
            if let Rule::Webhook(rule) = &trigger.spec.rule {
                secret::check(c, tenant, [&rule.secret])?;
            }
            let first = trigger.first.as_ref();
            c.execute(
                "INSERT INTO trigger (id, tenant_id, task_id, name, spec, input_type, input, state, next_at, due_at,
                     delay, not_after, covered_at, covered_offset, zone_edition, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'active', ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
                params![
                    Id(trigger.id.0),
                    Id(tenant.0),
                    Id(task.id.0),
                    name.as_str(),
                    Json(&trigger.spec),
                    trigger.input.content_type,
                    trigger.input.bytes,
                    first.map(|first| At(first.next.nominal)),
                    first.map(|first| At(first.next.due)),
                    trigger.spec.delay().map(micros),
                    trigger.spec.not_after.map(At),
                    At(first.map_or(now, |first| first.covered.at)),
                    first.map_or(0, |first| first.covered.offset),
                    first.map_or("", |first| &first.edition),
                    At(now),
                ],
            )?;
            event_deliver::follow(c, tenant, &trigger)?;
            let created = get(c, tenant, &name)?;
            put_on_record(c, &change, tenant, None, Some(&created))?;
            Ok(created)
        };
        self.writer.write(create, move |_| hints.triggers_changed.notify_one()).await
    }

    async fn trigger_get(&self, tenant: TenantId, name: &Name) -> Result<Trigger, StoreError> {
        let name = name.clone();
        self.read(move |c| get(c, tenant, &name)).await
    }

    async fn trigger_list(
        &self,
        tenant: TenantId,
        task: Option<&Name>,
        only: Option<BTreeSet<Name>>,
        page: Page,
    ) -> Result<Paged<Trigger>, StoreError> {
        let task = task.cloned();
        self.read(move |c| {
            let task = of_task(c, tenant, task, &only)?;
            let mut list = c.prepare_cached(&format!("{SELECT} {LISTED} {PAGE}"))?;
            let after = after_name(&page)?;
            let only = only.as_ref().map(Json);
            let rows =
                list.query_map(params![Id(tenant.0), after, task, limit(&page), only], read_trigger)?;
            Ok(paged(rows.collect::<Result<_, _>>()?, &page, |last: &Trigger| last.name.to_string()))
        })
        .await
    }

    async fn trigger_plans(
        &self,
        tenant: TenantId,
        task: Option<&Name>,
        only: Option<BTreeSet<Name>>,
        page: Page,
    ) -> Result<Paged<Plan>, StoreError> {
        let task = task.cloned();
        self.read(move |c| {
            let task = of_task(c, tenant, task, &only)?;
            let mut list = c.prepare_cached(&format!("{PLANS} {LISTED} AND g.state <> 'finished' {PAGE}"))?;
            let (after, only) = (after_name(&page)?, only.as_ref().map(Json));
            let rows = list.query_map(params![Id(tenant.0), after, task, limit(&page), only], read_plan)?;
            Ok(paged(rows.collect::<Result<_, _>>()?, &page, |last: &Plan| last.name.to_string()))
        })
        .await
    }

    async fn trigger_pause(
        &self,
        tenant: TenantId,
        name: &Name,
        note: String,
        queued: QueuedRuns,
        change: Change,
    ) -> Result<Trigger, StoreError> {
        let now = change.now;
        let name = name.clone();
        let hints = Arc::clone(&self.hints);
        let pause = move |c: &Connection| {
            let trigger = unfinished(c, tenant, &name)?;
            c.execute(
                "UPDATE trigger SET state = 'paused', pause_note = ?2, paused_at = coalesce(paused_at, ?3) WHERE id = ?1",
                params![Id(trigger.id.0), note, At(now)],
            )?;
            let paused = get(c, tenant, &name)?;
            put_on_record(c, &change, tenant, Some(&trigger), Some(&paused))?;
            let cancelled = match queued {
                QueuedRuns::Keep => Vec::new(),
                QueuedRuns::Cancel => cancel_unbegun(c, OF_TRIGGER, trigger.id.0, now)?,
            };
            Ok((paused, cancelled))
        };
        let wake = move |(_, cancelled): &(Trigger, Vec<RunId>)| {
            cancelled.iter().for_each(|run| hints.run_changed(*run));
        };
        Ok(self.writer.write(pause, wake).await?.0)
    }

    async fn trigger_resume(
        &self,
        tenant: TenantId,
        name: &Name,
        change: Change,
    ) -> Result<Trigger, StoreError> {
        let now = change.now;
        let name = name.clone();
        let hints = Arc::clone(&self.hints);
        let resume = move |c: &Connection| {
            let trigger = unfinished(c, tenant, &name)?;
            c.execute(
                "UPDATE trigger SET state = 'active', pause_note = '', paused_at = NULL, paused_through = ?2
                 WHERE id = ?1 AND state = 'paused'",
                params![Id(trigger.id.0), At(now)],
            )?;
            let resumed = get(c, tenant, &name)?;
            put_on_record(c, &change, tenant, Some(&trigger), Some(&resumed))?;
            Ok(resumed)
        };
        let wake = move |_: &Trigger| {
            hints.triggers_changed.notify_one();
            hints.events_changed();
        };
        self.writer.write(resume, wake).await
    }

    async fn trigger_delete(&self, tenant: TenantId, name: &Name, change: Change) -> Result<u64, StoreError> {
        let now = change.now;
        let name = name.clone();
        let hints = Arc::clone(&self.hints);
        let delete = move |c: &Connection| {
            let before = get(c, tenant, &name)?;
            put_on_record(c, &change, tenant, Some(&before), None)?;
            let trigger = before.id;
            c.execute(
                "UPDATE trigger SET deleted_at = ?2, state = 'finished', next_at = NULL, due_at = NULL WHERE id = ?1",
                params![Id(trigger.0), At(now)],
            )?;
            backfill::end(c, backfill::OF_TRIGGER, trigger.0, now)?;
            cancel_unbegun(c, OF_TRIGGER, trigger.0, now)
        };
        let wake = move |cancelled: &Vec<_>| cancelled.iter().for_each(|run| hints.run_changed(*run));
        Ok(self.writer.write(delete, wake).await?.len() as u64)
    }

    async fn trigger_skips(
        &self,
        tenant: TenantId,
        name: &Name,
        page: Page,
    ) -> Result<Paged<SkipRange>, StoreError> {
        let name = name.clone();
        self.read(move |c| {
            let trigger = get(c, tenant, &name)?.id;
            let before: i64 = match &page.after {
                None => i64::MAX,
                Some(token) => token.parse().map_err(|_| bad_token())?,
            };
            let mut list = c.prepare_cached(
                "SELECT id, first_at, last_at, count, reason FROM skip WHERE trigger_id = ?1 AND id < ?2
                 ORDER BY id DESC LIMIT ?3",
            )?;
            let rows = list.query_map(params![Id(trigger.0), before, limit(&page)], |row| {
                let range = SkipRange {
                    from: row.get::<_, At>(1)?.0,
                    to: row.get::<_, At>(2)?.0,
                    count: unsigned(row.get(3)?),
                    reason: row.get::<_, Word<_>>(4)?.0,
                };
                Ok((row.get::<_, i64>(0)?, range))
            })?;
            let rows = paged(rows.collect::<Result<_, _>>()?, &page, |last: &(i64, _)| last.0.to_string());
            Ok(Paged { items: rows.items.into_iter().map(|(_, range)| range).collect(), next: rows.next })
        })
        .await
    }

    async fn trigger_skip_counts(
        &self,
        tenant: TenantId,
        name: &Name,
    ) -> Result<BTreeMap<SkipReason, u64>, StoreError> {
        let name = name.clone();
        self.read(move |c| {
            let trigger = get(c, tenant, &name)?.id;
            let mut sums = c.prepare_cached(
                "SELECT reason, sum(count) FROM skip WHERE trigger_id = ?1 GROUP BY reason",
            )?;
            let sums = sums
                .query_map([Id(trigger.0)], |row| Ok((row.get::<_, Word<_>>(0)?.0, unsigned(row.get(1)?))))?;
            Ok(sums.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn triggers_due(&self, now: Timestamp, limit: usize) -> Result<Vec<DueTrigger>, StoreError> {
        let (longest, latest) = self.unreadable.halves(limit);
        let find = move |c: &Connection| {
            let found = trigger_advance::due(c, now, longest, latest)?;
            let mut calendars = wanted(&found);
            holiday::look(c, &mut calendars)?;
            Ok(with_holidays(found, &calendars))
        };
        Ok(self.unreadable.readable(self.read(find).await?, limit))
    }

    async fn triggers_next(&self) -> Result<Option<Timestamp>, StoreError> {
        let most = signed(self.unreadable.count() as u64 + 1);
        let find = move |c: &Connection| {
            let mut next = c.prepare_cached(trigger_advance::NEXT_DUE)?;
            let rows = next
                .query_map([most], |row| Ok((TriggerId(row.get::<_, Id>(0)?.0), row.get::<_, At>(1)?.0)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        Ok(self.unreadable.next(self.read(find).await?))
    }

    async fn triggers_advance(&self, advances: Vec<Advance>, now: Timestamp) -> Result<u32, StoreError> {
        let bytes = advances.iter().map(|advance| ROW * advance.run_ids.len()).sum();
        let apply = move |c: &Connection| {
            let mut all = Advanced::default();
            for decision in &advances {
                if let Some(due) = Due::lock(c, decision)? {
                    let one = advance(c, &due, decision, now)?;
                    all.created += one.created;
                    all.cancelled.extend(one.cancelled);
                }
            }
            Ok(all)
        };
        self.write_advance(bytes, apply).await
    }

    async fn trigger_by_id(&self, id: TriggerId) -> Result<(TenantId, Trigger), StoreError> {
        self.read(move |c| {
            let mut get = c.prepare_cached(&format!("{SELECT} {BY_ID}"))?;
            let found = get.query_row([Id(id.0)], |row| {
                Ok((TenantId(row.get::<_, Id>("tenant_id")?.0), read_trigger(row)?))
            });
            found.optional()?.ok_or_else(|| StoreError::NotFound(format!("trigger {id}")))
        })
        .await
    }

    async fn trigger_fire(
        &self,
        tenant: TenantId,
        trigger: TriggerId,
        firing: NewFiring,
        now: Timestamp,
    ) -> Result<Fired, StoreError> {
        let bytes = firing.input.bytes.len();
        let fire = move |c: &Connection| trigger_fire::fire(c, tenant, trigger, &firing, now);
        let (fired, _) = self
            .write_starts(bytes, fire, |(fired, cancelled)| (matches!(fired, Fired::Run(_)), cancelled))
            .await?;
        Ok(fired)
    }

    async fn triggers_outdated(&self, edition: &str, limit: usize) -> Result<Vec<Outdated>, StoreError> {
        let edition = edition.to_string();
        self.read(move |c| trigger_retime::outdated(c, &edition, limit)).await
    }

    async fn triggers_retime(&self, retimings: Vec<Retiming>) -> Result<(), StoreError> {
        let hints = Arc::clone(&self.hints);
        let apply = move |c: &Connection| retimings.iter().try_for_each(|one| trigger_retime::apply(c, one));
        self.writer.write(apply, move |()| hints.triggers_changed.notify_one()).await
    }
}

/// Those of a list that begins after a name: of a tenant, and of one task, or of some, or of all.
const LISTED: &str = "WHERE g.tenant_id = ?1 AND g.deleted_at IS NULL AND g.name > ?2
    AND (?3 IS NULL OR g.task_id = ?3) AND (?5 IS NULL OR t.name IN (SELECT value FROM json_each(?5)))";
const PAGE: &str = "ORDER BY g.name LIMIT ?4";

/// The id of the task that a list is of.
fn of_task(
    c: &Connection,
    tenant: TenantId,
    task: Option<Name>,
    only: &Option<BTreeSet<Name>>,
) -> Result<Option<Id>, StoreError> {
    if let Some(name) = task.as_ref().filter(|name| hidden(only, name)) {
        return Err(StoreError::NotFound(format!("task `{name}`")));
    }
    Ok(task.map(|name| task::get(c, tenant, &name)).transpose()?.map(|task| Id(task.id.0)))
}

const PLANS: &str =
    "SELECT g.id, g.name, t.name, g.spec, g.state, g.next_at, g.started, octet_length(g.input)
    FROM trigger g JOIN task t ON t.id = g.task_id";

fn read_plan(row: &Row) -> rusqlite::Result<Plan> {
    Ok(Plan {
        id: TriggerId(row.get::<_, Id>(0)?.0),
        name: row.get::<_, Word<_>>(1)?.0,
        task: row.get::<_, Word<_>>(2)?.0,
        spec: row.get::<_, Json<_>>(3)?.0,
        paused: row.get_ref(4)?.as_str()? == "paused",
        next_at: row.get::<_, Option<At>>(5)?.map(|at| at.0),
        started: unsigned(row.get(6)?),
        input_bytes: unsigned(row.get(7)?),
    })
}

const BY_ID: &str = "WHERE g.id = ?1 AND g.deleted_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM tenant WHERE id = g.tenant_id AND deleted_at IS NOT NULL)";

const SELECT: &str =
    "SELECT g.id, g.task_id, t.name, g.name, g.spec, g.input_type, g.input, g.state, g.pause_note,
    g.paused_at, g.next_at, g.last_nominal, g.started, g.skipped, g.created_at, g.tenant_id,
    coalesce((SELECT h.sequence FROM event_head h WHERE h.tenant_id = g.tenant_id), 0) - g.event_cursor
    FROM trigger g JOIN task t ON t.id = g.task_id";

fn read_trigger(row: &Row) -> rusqlite::Result<Trigger> {
    let state = match row.get_ref(7)?.as_str()? {
        "active" => TriggerState::Active,
        "paused" => TriggerState::Paused { note: row.get(8)?, at: row.get::<_, At>(9)?.0 },
        _ => TriggerState::Finished,
    };
    Ok(Trigger {
        id: TriggerId(row.get::<_, Id>(0)?.0),
        task_id: TaskId(row.get::<_, Id>(1)?.0),
        task: row.get::<_, Word<_>>(2)?.0,
        name: row.get::<_, Word<_>>(3)?.0,
        spec: row.get::<_, Json<_>>(4)?.0,
        input: Payload { content_type: row.get(5)?, bytes: row.get(6)? },
        state,
        next_at: row.get::<_, Option<At>>(10)?.map(|at| at.0),
        last_nominal: row.get::<_, Option<At>>(11)?.map(|at| at.0),
        started: unsigned(row.get(12)?),
        skipped: unsigned(row.get(13)?),
        created_at: row.get::<_, At>(14)?.0,
        behind: row.get::<_, Option<i64>>(16)?.map(unsigned),
    })
}

fn find(c: &Connection, tenant: TenantId, name: &Name) -> Result<Option<Trigger>, StoreError> {
    let mut get = c.prepare_cached(&format!(
        "{SELECT} WHERE g.tenant_id = ?1 AND g.name = ?2 AND g.deleted_at IS NULL"
    ))?;
    Ok(get.query_row(params![Id(tenant.0), name.as_str()], read_trigger).optional()?)
}

/// The tenant's trigger of that name.
pub(super) fn get(c: &Connection, tenant: TenantId, name: &Name) -> Result<Trigger, StoreError> {
    find(c, tenant, name)?.ok_or_else(|| StoreError::NotFound(format!("trigger `{name}`")))
}

fn unfinished(c: &Connection, tenant: TenantId, name: &Name) -> Result<Trigger, StoreError> {
    let trigger = get(c, tenant, name)?;
    if trigger.state == TriggerState::Finished {
        return Err(has_finished(name));
    }
    Ok(trigger)
}

fn put_on_record(
    c: &Connection,
    change: &Change,
    tenant: TenantId,
    before: Option<&Trigger>,
    after: Option<&Trigger>,
) -> Result<(), StoreError> {
    let object = || before.or(after).map(|trigger| format!("trigger `{}`", trigger.name)).unwrap_or_default();
    let show = |trigger: Option<&Trigger>| trigger.map_or(Value::Null, record::trigger);
    audit::record(c, change, Some(tenant), object, || (show(before), show(after)))
}

/// The task's name and the first number that makes it a free one.
fn free_name(c: &Connection, tenant: TenantId, task: &Name) -> Result<Name, StoreError> {
    for name in numbered_names(task) {
        if find(c, tenant, &name)?.is_none() {
            return Ok(name);
        }
    }
    Err(too_many_unnamed(task))
}

/// The first trigger that has this in its JSON and of which this is true.
pub(super) fn naming(
    c: &Connection,
    tenant: TenantId,
    having: &str,
    names: impl Fn(&TriggerSpec) -> bool,
) -> Result<Option<Name>, StoreError> {
    let mut list = c.prepare_cached(
        "SELECT name, spec FROM trigger WHERE tenant_id = ?1 AND deleted_at IS NULL AND instr(spec, ?2) > 0
         ORDER BY name",
    )?;
    let rows = list.query_map(params![Id(tenant.0), having], |row| {
        Ok((row.get::<_, Word<Name>>(0)?.0, row.get::<_, Json<TriggerSpec>>(1)?.0))
    })?;
    for row in rows {
        let (trigger, spec) = row?;
        if names(&spec) {
            return Ok(Some(trigger));
        }
    }
    Ok(None)
}
