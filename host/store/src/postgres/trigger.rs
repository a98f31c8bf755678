//! Triggers in PostgreSQL: made, changed, read.

use super::cancel::{OF_TRIGGER, cancel_unbegun};
use super::connection::{in_transaction, reading};
use super::quota::{Counted, check_count, exclude};
use super::row::{
    At, Json, Word, after_name, bad_token, execute, limit, micros, paged, row, rows, signed, text, unsigned,
};
use super::{
    PostgresStore, audit, backfill, event_deliver, holiday, secret, task, tenant, trigger_advance,
    trigger_fire, trigger_retime,
};
use crate::holidays::{wanted, with_holidays};
use crate::record;
use crate::words::{has_finished, hidden, numbered_names, too_many_unnamed};
use crate::{
    Advance, DueTrigger, Fired, NewFiring, NewTrigger, Outdated, Page, Paged, QueuedRuns, Retiming,
    StoreError, TriggerStore,
};
use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::forecast::Plan;
use innkeeper_domain::ids::{TaskId, TenantId, TriggerId};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::quota::Quota;
use innkeeper_domain::rule::Rule;
use innkeeper_domain::trigger::{SkipRange, SkipReason, Trigger, TriggerSpec, TriggerState};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Row;

#[async_trait]
impl TriggerStore for PostgresStore {
    async fn trigger_create(
        &self,
        tenant: TenantId,
        trigger: NewTrigger,
        change: Change,
    ) -> Result<Trigger, StoreError> {
        let now = change.now;
        let created = in_transaction!(&self.shared.pool, |c| {
            let quotas = tenant::by_id(c, tenant).await?.quotas;
            if quotas.get(Quota::Triggers).is_some() {
                exclude(c, tenant, Counted::Triggers).await?;
            }
            event_deliver::prepare(c, tenant, &trigger).await?;
            // Not to be deleted before there is the trigger.
            let (task, _) = task::lock(c, tenant, &trigger.task, "SHARE").await?;
            check_count(c, tenant, &quotas, Quota::Triggers, "trigger WHERE deleted_at IS NULL").await?;
            let name = match &trigger.name {
                Some(name) => {
                    if !insert(c, tenant, task, name, &trigger, now).await? {
                        return Err(StoreError::Exists(format!("trigger `{name}`")));
                    }
                    name.clone()
                }
                None => {
                    let mut names = numbered_names(&trigger.task);
                    loop {
                        let name = names.next().ok_or_else(|| too_many_unnamed(&trigger.task))?;
                        let free = find(c, tenant, &name).await?.is_none();
                        if free && insert(c, tenant, task, &name, &trigger, now).await? {
                            break name;
                        }
                    }
                }
            };
            // A name that is taken is told first; what is inserted goes with this error.
            holiday::check(c, tenant, &trigger.spec).await?;
            if let Rule::Webhook(rule) = &trigger.spec.rule {
                secret::check(c, tenant, [&rule.secret]).await?;
            }
            event_deliver::follow(c, tenant, &trigger).await?;
            let created = get(c, tenant, &name).await?;
            put_on_record(c, &change, tenant, None, Some(&created)).await?;
            created
        })?;
        self.shared.wakes.triggers_changed();
        Ok(created)
    }

    async fn trigger_get(&self, tenant: TenantId, name: &Name) -> Result<Trigger, StoreError> {
        reading!(&self.shared.pool, |c| get(c, tenant, name).await?)
    }

    async fn trigger_list(
        &self,
        tenant: TenantId,
        task: Option<&Name>,
        only: Option<BTreeSet<Name>>,
        page: Page,
    ) -> Result<Paged<Trigger>, StoreError> {
        reading!(&self.shared.pool, |c| {
            let rows = listed(c, &format!("{SELECT} {LISTED} {PAGE}"), tenant, task, &only, &page).await?;
            let rows = rows.iter().map(read_trigger).collect::<Result<_, _>>()?;
            paged(rows, &page, |last: &Trigger| last.name.to_string())
        })
    }

    async fn trigger_plans(
        &self,
        tenant: TenantId,
        task: Option<&Name>,
        only: Option<BTreeSet<Name>>,
        page: Page,
    ) -> Result<Paged<Plan>, StoreError> {
        reading!(&self.shared.pool, |c| {
            let list = format!("{PLANS} {LISTED} AND g.state <> 'finished' {PAGE}");
            let rows = listed(c, &list, tenant, task, &only, &page).await?;
            let rows = rows.iter().map(read_plan).collect::<Result<_, _>>()?;
            paged(rows, &page, |last: &Plan| last.name.to_string())
        })
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
        let (paused, cancelled) = in_transaction!(&self.shared.pool, |c| {
            // What inserts its runs holds the same lock.
            let id = lock_unfinished(c, tenant, name).await?;
            let before = get(c, tenant, name).await?;
            execute(
                c,
                "UPDATE trigger SET state = 'paused', pause_note = $2, paused_at = coalesce(paused_at, $3) WHERE id = $1",
                &[&id.0, &text(&note), &At(now)],
            )
            .await?;
            let paused = get(c, tenant, name).await?;
            put_on_record(c, &change, tenant, Some(&before), Some(&paused)).await?;
            let cancelled = match queued {
                QueuedRuns::Keep => Vec::new(),
                QueuedRuns::Cancel => cancel_unbegun(&self.shared, c, OF_TRIGGER, id.0, now).await?,
            };
            (paused, cancelled)
        })?;
        self.shared.wakes.runs_changed(cancelled);
        Ok(paused)
    }

    async fn trigger_resume(
        &self,
        tenant: TenantId,
        name: &Name,
        change: Change,
    ) -> Result<Trigger, StoreError> {
        let now = change.now;
        let resumed = in_transaction!(&self.shared.pool, |c| {
            let id = lock_unfinished(c, tenant, name).await?;
            let before = get(c, tenant, name).await?;
            execute(
                c,
                "UPDATE trigger SET state = 'active', pause_note = '', paused_at = NULL, paused_through = $2
                 WHERE id = $1 AND state = 'paused'",
                &[&id.0, &At(now)],
            )
            .await?;
            let resumed = get(c, tenant, name).await?;
            put_on_record(c, &change, tenant, Some(&before), Some(&resumed)).await?;
            resumed
        })?;
        self.shared.wakes.triggers_changed();
        self.shared.wakes.events_changed();
        Ok(resumed)
    }

    async fn trigger_delete(&self, tenant: TenantId, name: &Name, change: Change) -> Result<u64, StoreError> {
        let now = change.now;
        let cancelled = in_transaction!(&self.shared.pool, |c| {
            let (id, _) = lock(c, tenant, name).await?;
            let before = get(c, tenant, name).await?;
            put_on_record(c, &change, tenant, Some(&before), None).await?;
            execute(
                c,
                "UPDATE trigger SET deleted_at = $2, state = 'finished', next_at = NULL, due_at = NULL WHERE id = $1",
                &[&id.0, &At(now)],
            )
            .await?;
            backfill::end(c, backfill::OF_TRIGGER, id.0, now).await?;
            cancel_unbegun(&self.shared, c, OF_TRIGGER, id.0, now).await?
        })?;
        let count = cancelled.len() as u64;
        self.shared.wakes.runs_changed(cancelled);
        Ok(count)
    }

    async fn trigger_skips(
        &self,
        tenant: TenantId,
        name: &Name,
        page: Page,
    ) -> Result<Paged<SkipRange>, StoreError> {
        let before: i64 = match &page.after {
            None => i64::MAX,
            Some(token) => token.parse().map_err(|_| bad_token())?,
        };
        reading!(&self.shared.pool, |c| {
            let trigger = get(c, tenant, name).await?.id;
            let found = rows(
                c,
                "SELECT id, first_at, last_at, count, reason FROM skip WHERE trigger_id = $1 AND id < $2
                 ORDER BY id DESC LIMIT $3",
                &[&trigger.0, &before, &limit(&page)],
            )
            .await?;
            let read = |row: &Row| {
                let range = SkipRange {
                    from: row.try_get::<_, At>(1)?.0,
                    to: row.try_get::<_, At>(2)?.0,
                    count: unsigned(row.try_get(3)?),
                    reason: row.try_get::<_, Word<_>>(4)?.0,
                };
                Ok::<_, StoreError>((row.try_get::<_, i64>(0)?, range))
            };
            let found = found.iter().map(read).collect::<Result<_, _>>()?;
            let found = paged(found, &page, |last: &(i64, _)| last.0.to_string());
            Paged { items: found.items.into_iter().map(|(_, range)| range).collect(), next: found.next }
        })
    }

    async fn trigger_skip_counts(
        &self,
        tenant: TenantId,
        name: &Name,
    ) -> Result<BTreeMap<SkipReason, u64>, StoreError> {
        reading!(&self.shared.pool, |c| {
            let trigger = get(c, tenant, name).await?.id;
            let sums = "SELECT reason, sum(count)::bigint FROM skip WHERE trigger_id = $1 GROUP BY reason";
            let sums = rows(c, sums, &[&trigger.0]).await?;
            let read = |row: &Row| Ok((row.try_get::<_, Word<_>>(0)?.0, unsigned(row.try_get(1)?)));
            sums.iter().map(read).collect::<Result<_, StoreError>>()?
        })
    }

    async fn triggers_due(&self, now: Timestamp, limit: usize) -> Result<Vec<DueTrigger>, StoreError> {
        let unreadable = &self.shared.unreadable;
        let (longest, latest) = unreadable.halves(limit);
        let due = reading!(&self.shared.pool, |c| {
            let found = trigger_advance::due(c, now, longest, latest).await?;
            let mut calendars = wanted(&found);
            holiday::look(c, &mut calendars).await?;
            with_holidays(found, &calendars)
        })?;
        Ok(unreadable.readable(due, limit))
    }

    async fn triggers_next(&self) -> Result<Option<Timestamp>, StoreError> {
        let unreadable = &self.shared.unreadable;
        let most = signed(unreadable.count() as u64 + 1);
        let times = reading!(&self.shared.pool, |c| {
            let found = rows(c, trigger_advance::NEXT_DUE, &[&most]).await?;
            let read = |row: &Row| Ok((TriggerId(row.try_get(0)?), row.try_get::<_, At>(1)?.0));
            found.iter().map(read).collect::<Result<_, StoreError>>()?
        })?;
        Ok(unreadable.next(times))
    }

    async fn triggers_advance(&self, advances: Vec<Advance>, now: Timestamp) -> Result<u32, StoreError> {
        let all = trigger_advance::advance_all(&self.shared, &advances, now).await?;
        if all.created > 0 {
            self.shared.wakes.runs_ready();
        }
        if !all.cancelled.is_empty() {
            self.shared.wakes.runs_changed(all.cancelled);
            self.shared.wakes.orders();
        }
        Ok(all.created)
    }

    async fn trigger_by_id(&self, id: TriggerId) -> Result<(TenantId, Trigger), StoreError> {
        reading!(&self.shared.pool, |c| {
            let found = row(c, &format!("{SELECT} {BY_ID}"), &[&id.0]).await?;
            let found = found.ok_or_else(|| StoreError::NotFound(format!("trigger {id}")))?;
            (TenantId(found.try_get("tenant_id")?), read_trigger(&found)?)
        })
    }

    async fn trigger_fire(
        &self,
        tenant: TenantId,
        trigger: TriggerId,
        firing: NewFiring,
        now: Timestamp,
    ) -> Result<Fired, StoreError> {
        let (fired, cancelled) = trigger_fire::fire(&self.shared, tenant, trigger, &firing, now).await?;
        if matches!(fired, Fired::Run(_)) {
            self.shared.wakes.runs_ready();
        }
        if !cancelled.is_empty() {
            self.shared.wakes.runs_changed(cancelled);
            self.shared.wakes.orders();
        }
        Ok(fired)
    }

    async fn triggers_outdated(&self, edition: &str, limit: usize) -> Result<Vec<Outdated>, StoreError> {
        reading!(&self.shared.pool, |c| trigger_retime::outdated(c, edition, limit).await?)
    }

    async fn triggers_retime(&self, retimings: Vec<Retiming>) -> Result<(), StoreError> {
        in_transaction!(&self.shared.pool, |c| trigger_retime::apply(c, &retimings).await?)?;
        self.shared.wakes.triggers_changed();
        Ok(())
    }
}

async fn put_on_record(
    c: &impl GenericClient,
    change: &Change,
    tenant: TenantId,
    before: Option<&Trigger>,
    after: Option<&Trigger>,
) -> Result<(), StoreError> {
    let object = before.or(after).map(|trigger| format!("trigger `{}`", trigger.name)).unwrap_or_default();
    let show = |trigger: Option<&Trigger>| trigger.map_or(Value::Null, record::trigger);
    audit::record(c, change, Some(tenant), object, (show(before), show(after))).await
}

/// Those of a list that begins after a name: of a tenant, and of one task, or of some, or of all.
const LISTED: &str = "WHERE g.tenant_id = $1 AND g.deleted_at IS NULL AND g.name > $2
    AND ($3::uuid IS NULL OR g.task_id = $3) AND ($5::text[] IS NULL OR t.name = ANY($5))";
const PAGE: &str = "ORDER BY g.name LIMIT $4";

/// The rows of such a list.
async fn listed(
    c: &impl GenericClient,
    list: &str,
    tenant: TenantId,
    task: Option<&Name>,
    only: &Option<BTreeSet<Name>>,
    page: &Page,
) -> Result<Vec<Row>, StoreError> {
    if let Some(name) = task.filter(|name| hidden(only, name)) {
        return Err(StoreError::NotFound(format!("task `{name}`")));
    }
    let only: Option<Vec<&str>> = only.as_ref().map(|only| only.iter().map(Name::as_str).collect());
    let task = match task {
        Some(name) => Some(task::get(c, tenant, name).await?.id.0),
        None => None,
    };
    rows(c, list, &[&tenant.0, &after_name(page)?, &task, &limit(page), &only]).await
}

const PLANS: &str = "SELECT g.id, g.name, t.name, g.spec, g.state, g.next_at, g.started,
    octet_length(g.input)::bigint FROM trigger g JOIN task t ON t.id = g.task_id";

fn read_plan(row: &Row) -> Result<Plan, StoreError> {
    Ok(Plan {
        id: TriggerId(row.try_get(0)?),
        name: row.try_get::<_, Word<_>>(1)?.0,
        task: row.try_get::<_, Word<_>>(2)?.0,
        spec: row.try_get::<_, Json<_>>(3)?.0,
        paused: row.try_get::<_, &str>(4)? == "paused",
        next_at: row.try_get::<_, Option<At>>(5)?.map(|at| at.0),
        started: unsigned(row.try_get(6)?),
        input_bytes: unsigned(row.try_get(7)?),
    })
}

const BY_ID: &str = "WHERE g.id = $1 AND g.deleted_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM tenant WHERE id = g.tenant_id AND deleted_at IS NOT NULL)";

const SELECT: &str =
    "SELECT g.id, g.task_id, t.name, g.name, g.spec, g.input_type, g.input, g.state, g.pause_note,
    g.paused_at, g.next_at, g.last_nominal, g.started, g.skipped, g.created_at, g.tenant_id,
    coalesce((SELECT h.sequence FROM event_head h WHERE h.tenant_id = g.tenant_id), 0) - g.event_cursor
    FROM trigger g JOIN task t ON t.id = g.task_id";

fn read_trigger(row: &Row) -> Result<Trigger, StoreError> {
    let state = match row.try_get(7)? {
        "active" => TriggerState::Active,
        "paused" => TriggerState::Paused { note: row.try_get(8)?, at: row.try_get::<_, At>(9)?.0 },
        _ => TriggerState::Finished,
    };
    Ok(Trigger {
        id: TriggerId(row.try_get(0)?),
        task_id: TaskId(row.try_get(1)?),
        task: row.try_get::<_, Word<_>>(2)?.0,
        name: row.try_get::<_, Word<_>>(3)?.0,
        spec: row.try_get::<_, Json<_>>(4)?.0,
        input: Payload { content_type: row.try_get(5)?, bytes: row.try_get(6)? },
        state,
        next_at: row.try_get::<_, Option<At>>(10)?.map(|at| at.0),
        last_nominal: row.try_get::<_, Option<At>>(11)?.map(|at| at.0),
        started: unsigned(row.try_get(12)?),
        skipped: unsigned(row.try_get(13)?),
        created_at: row.try_get::<_, At>(14)?.0,
        behind: row.try_get::<_, Option<i64>>(16)?.map(unsigned),
    })
}

async fn find(c: &impl GenericClient, tenant: TenantId, name: &Name) -> Result<Option<Trigger>, StoreError> {
    let get = format!("{SELECT} WHERE g.tenant_id = $1 AND g.name = $2 AND g.deleted_at IS NULL");
    row(c, &get, &[&tenant.0, &name.as_str()]).await?.as_ref().map(read_trigger).transpose()
}

/// The tenant's trigger of that name.
pub(super) async fn get(
    c: &impl GenericClient,
    tenant: TenantId,
    name: &Name,
) -> Result<Trigger, StoreError> {
    find(c, tenant, name).await?.ok_or_else(|| missing(name))
}

fn missing(name: &Name) -> StoreError {
    StoreError::NotFound(format!("trigger `{name}`"))
}

/// Locks the tenant's trigger of that name, and tells whether it has finished.
pub(super) async fn lock(
    c: &impl GenericClient,
    tenant: TenantId,
    name: &Name,
) -> Result<(TriggerId, bool), StoreError> {
    let lock = "SELECT id, state FROM trigger WHERE tenant_id = $1 AND name = $2 AND deleted_at IS NULL
        FOR NO KEY UPDATE";
    let found = row(c, lock, &[&tenant.0, &name.as_str()]).await?.ok_or_else(|| missing(name))?;
    Ok((TriggerId(found.try_get(0)?), !matches!(found.try_get(1)?, "active" | "paused")))
}

async fn lock_unfinished(
    c: &impl GenericClient,
    tenant: TenantId,
    name: &Name,
) -> Result<TriggerId, StoreError> {
    match lock(c, tenant, name).await? {
        (id, false) => Ok(id),
        (_, true) => Err(has_finished(name)),
    }
}

/// Inserts an active trigger; false if there is one of that name.
async fn insert(
    c: &impl GenericClient,
    tenant: TenantId,
    task: TaskId,
    name: &Name,
    trigger: &NewTrigger,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let first = trigger.first.as_ref();
    let inserted = execute(
        c,
        "INSERT INTO trigger (id, tenant_id, task_id, name, spec, input_type, input, state, next_at, due_at, delay,
             not_after, covered_at, covered_offset, zone_edition, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'active', $8, $9, $10, $11, $12, $13, $14, $15)
         ON CONFLICT DO NOTHING",
        &[
            &trigger.id.0,
            &tenant.0,
            &task.0,
            &name.as_str(),
            &Json(&trigger.spec),
            &text(&trigger.input.content_type),
            &trigger.input.bytes,
            &first.map(|first| At(first.next.nominal)),
            &first.map(|first| At(first.next.due)),
            &trigger.spec.delay().map(micros),
            &trigger.spec.not_after.map(At),
            &At(first.map_or(now, |first| first.covered.at)),
            &first.map_or(0, |first| i64::from(first.covered.offset)),
            &first.map_or("", |first| &first.edition),
            &At(now),
        ],
    )
    .await?;
    Ok(inserted > 0)
}

/// The first trigger that has this in its JSON and of which this is true.
pub(super) async fn naming(
    c: &impl GenericClient,
    tenant: TenantId,
    having: &str,
    names: impl Fn(&TriggerSpec) -> bool,
) -> Result<Option<Name>, StoreError> {
    let list =
        "SELECT name, spec FROM trigger WHERE tenant_id = $1 AND deleted_at IS NULL AND strpos(spec, $2) > 0
        ORDER BY name";
    for row in rows(c, list, &[&tenant.0, &having]).await? {
        if names(&row.try_get::<_, Json<_>>(1)?.0) {
            return Ok(Some(row.try_get::<_, Word<_>>(0)?.0));
        }
    }
    Ok(None)
}
