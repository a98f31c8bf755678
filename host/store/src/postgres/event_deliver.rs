//! What events do in PostgreSQL: triggers that follow them, runs that they start, and ends of runs that are events.

use super::connection::in_transaction;
use super::event::{NewRow, NewRows, head, hold_head, step_head};
use super::quota::{Counted, Stored, exclude};
use super::row::{At, Small, Word, execute, row, rows, signed};
use super::trigger_advance::Advanced;
use super::{Shard, Shared, quota, task, trigger_fire};
use crate::events::EndedRun;
use crate::starting::{Source, Standing, Start, Starting};
use crate::{Deliver, NewTrigger, StoreError};
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::event::{Edge, Given, HostTopic, Item, find_loop};
use innkeeper_domain::ids::{RunId, TaskId, TenantId};
use innkeeper_domain::limits::{AFTER_TRIGGERS_PER_TENANT_MAX, STORED_BYTES_PER_EVENT};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::rule::Rule;
use innkeeper_domain::run::RunState;
use innkeeper_domain::trigger::SkipReason;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Row;
use uuid::Uuid;

/// Locks what a new trigger that follows events changes: before its task is locked.
pub(super) async fn prepare(
    c: &impl GenericClient,
    tenant: TenantId,
    trigger: &NewTrigger,
) -> Result<(), StoreError> {
    match &trigger.spec.rule {
        Rule::Schedule(_) | Rule::Webhook(_) => {}
        Rule::Event(rule) => {
            let watches = HostTopic::matching(&rule.pattern);
            if watches != 0 {
                let watch = "UPDATE tenant SET watched = watched | $2 WHERE id = $1 AND watched & $2 <> $2";
                execute(c, watch, &[&tenant.0, &i64::from(watches)]).await?;
            }
        }
        // Two that close a loop together mustn't miss each other.
        Rule::After(_) => exclude(c, tenant, Counted::After).await?,
    }
    Ok(())
}

/// Lets a new trigger follow events from now on, if that is its rule. Ends of runs that are committed at the same time
/// may be before it.
pub(super) async fn follow(
    c: &impl GenericClient,
    tenant: TenantId,
    trigger: &NewTrigger,
) -> Result<(), StoreError> {
    let (mut after, mut watches) = (None, 0);
    match &trigger.spec.rule {
        Rule::Schedule(_) | Rule::Webhook(_) => return Ok(()),
        Rule::Event(rule) => watches = HostTopic::matching(&rule.pattern),
        Rule::After(rule) => {
            let edges = edges(c, tenant).await?;
            find_loop(&edges, &Edge { after: rule.task.clone(), task: trigger.task.clone() })
                .map_err(|e| StoreError::Conflict(e.to_string()))?;
            let (followed, _) = task::lock(c, tenant, &rule.task, "NO KEY UPDATE").await?;
            execute(c, "UPDATE task SET followed = 1 WHERE id = $1", &[&followed.0]).await?;
            after = Some(followed.0);
        }
    }
    let cursor = signed(head(c, tenant).await?);
    execute(
        c,
        "UPDATE trigger SET event_cursor = $2, event_seen = $2, after_task_id = $3, watches = $4 WHERE id = $1",
        &[&trigger.id.0, &cursor, &after, &i64::from(watches)],
    )
    .await?;
    Ok(())
}

/// A trigger that comes after the task.
pub(super) async fn follower(c: &impl GenericClient, task: TaskId) -> Result<Option<Name>, StoreError> {
    let get =
        "SELECT name FROM trigger WHERE after_task_id = $1 AND deleted_at IS NULL AND state <> 'finished'
        ORDER BY name LIMIT 1";
    row(c, get, &[&task.0]).await?.map(|found| Ok(found.try_get::<_, Word<_>>(0)?.0)).transpose()
}

/// Which tasks of the tenant come after which.
async fn edges(c: &impl GenericClient, tenant: TenantId) -> Result<Vec<Edge>, StoreError> {
    let list = "SELECT a.name, t.name FROM trigger g JOIN task a ON a.id = g.after_task_id JOIN task t ON t.id = g.task_id
        WHERE g.tenant_id = $1 AND g.after_task_id IS NOT NULL AND g.deleted_at IS NULL AND a.deleted_at IS NULL
            AND g.state <> 'finished' LIMIT $2";
    let most = signed(AFTER_TRIGGERS_PER_TENANT_MAX as u64 + 1);
    let found = rows(c, list, &[&tenant.0, &most]).await?;
    crate::words::so_many_after(found.len())?;
    let edge = |row: &Row| {
        Ok(Edge { after: row.try_get::<_, Word<_>>(0)?.0, task: row.try_get::<_, Word<_>>(1)?.0 })
    };
    found.iter().map(edge).collect()
}

/// Applies a decision.
pub(super) async fn deliver(shared: &Shared, of: &Deliver, now: Timestamp) -> Result<Advanced, StoreError> {
    in_transaction!(&shared.pool, |c| {
        match trigger_fire::lock(shared, c, of.tenant, of.id).await? {
            None => Advanced::default(),
            Some(source) => apply(shared, c, of, &source, now).await?,
        }
    })
}

async fn apply(
    shared: &Shared,
    c: &impl GenericClient,
    of: &Deliver,
    source: &Source,
    now: Timestamp,
) -> Result<Advanced, StoreError> {
    let found = row(c, "SELECT event_cursor FROM trigger WHERE id = $1", &[&of.id.0]).await?;
    let cursor: Option<i64> = found.map(|found| found.try_get(0)).transpose()?.flatten();
    if source.standing != Standing::Active || cursor != Some(signed(of.cursor)) {
        return Ok(Advanced::default());
    }
    let mut accounts = quota::accounts(c, &[of.tenant.0], now).await?;
    let Some(account) = accounts.get_mut(&of.tenant) else { return Ok(Advanced::default()) };
    let mut starting = Starting::new(source, account);
    let mut ids = of.run_ids.iter();
    for item in &of.delivery.items {
        if starting.is_over() {
            break;
        }
        match item {
            Item::Skip(skip) => starting.skip(*skip),
            Item::Run(run) => {
                let input = match &run.input {
                    Given::Payload(payload) => Some(payload.clone()),
                    Given::OutputOf(run) => output_of(c, *run).await?,
                };
                match (input, ids.next()) {
                    (Some(input), Some(id)) => {
                        let (occurrence, nominal_at, depth) = (run.occurrence.clone(), run.at, run.depth);
                        let (from, count) = (run.from, run.count);
                        let start = Start { id: *id, occurrence, nominal_at, from, count, depth, input };
                        // What isn't admitted is on record.
                        let _ = starting.start(start);
                    }
                    _ => starting.skip(run.skipped(SkipReason::NoInput)),
                }
            }
        }
    }
    let cancelled = trigger_fire::write(shared, c, source, &starting, now).await?;
    let created = u32::try_from(starting.starts.len()).unwrap_or(u32::MAX);
    execute(
        c,
        "UPDATE trigger SET event_cursor = $2, event_seen = $3, look_at = $4, looked_at = $5 WHERE id = $1",
        &[
            &of.id.0,
            &signed(of.delivery.cursor),
            &signed(of.delivery.seen),
            &of.delivery.look_at.map(At),
            &At(now),
        ],
    )
    .await?;
    quota::write(shared, c, Shard::Starts, &accounts).await?;
    Ok(Advanced { created, cancelled })
}

/// The output of a run; none if it isn't kept any more.
async fn output_of(c: &impl GenericClient, run: RunId) -> Result<Option<Payload>, StoreError> {
    let get = "SELECT output_type, output FROM run WHERE id = $1 AND state = 'succeeded'";
    let found = row(c, get, &[&run.0]).await?;
    found.map(|row| Ok(Payload { content_type: row.try_get(0)?, bytes: row.try_get(1)? })).transpose()
}

/// A run that has ended.
pub(super) struct End {
    pub run: RunId,
    pub task: Uuid,
    pub state: RunState,
    /// The tenant's.
    pub watched: u32,
}

/// Makes events of the ends of runs that a trigger waits for, in this order; whether there are any. `followed`: the tasks
/// that triggers may come after. After all other locks but the sums'.
pub(super) async fn runs_ended(
    c: &impl GenericClient,
    ends: &[End],
    followed: &BTreeSet<Uuid>,
    stored: &mut Stored,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let told = ends
        .iter()
        .filter(|end| followed.contains(&end.task) || end.watched & HostTopic::end_bit(end.state) != 0);
    let told: Vec<&End> = told.collect();
    if told.is_empty() {
        return Ok(false);
    }
    let ids: Vec<Uuid> = told.iter().map(|end| end.run.0).collect();
    let get = "SELECT r.id, r.tenant_id, r.task_id, t.name, g.name, r.attempt, r.nominal_at, r.depth, r.failure_kind,
            r.failure_code, r.failure_message,
            EXISTS (SELECT 1 FROM trigger a WHERE a.after_task_id = r.task_id AND a.deleted_at IS NULL
                AND a.state <> 'finished'),
            (SELECT coalesce(bit_or(w.watches), 0) FROM trigger w WHERE w.tenant_id = r.tenant_id AND w.watches <> 0
                AND w.deleted_at IS NULL AND w.state <> 'finished')
        FROM run r JOIN task t ON t.id = r.task_id LEFT JOIN trigger g ON g.id = r.trigger_id WHERE r.id = ANY($1)";
    let found = rows(c, get, &[&ids]).await?;
    let by_run: BTreeMap<Uuid, &Row> =
        found.iter().map(|row| Ok((row.try_get(0)?, row))).collect::<Result<_, StoreError>>()?;
    let mut by_tenant: BTreeMap<Uuid, Vec<(&End, &Row)>> = BTreeMap::new();
    let mut forsaken: BTreeSet<Uuid> = BTreeSet::new();
    for end in told {
        let Some(row) = by_run.get(&end.run.0) else { continue };
        let (is_followed, watches): (bool, u32) = (row.try_get(11)?, row.try_get::<_, Small>(12)?.0);
        if !is_followed && followed.contains(&end.task) {
            forsaken.insert(end.task);
        }
        if is_followed || watches & HostTopic::end_bit(end.state) != 0 {
            by_tenant.entry(row.try_get(1)?).or_default().push((end, row));
        }
    }
    if !forsaken.is_empty() {
        let forsaken: Vec<Uuid> = forsaken.into_iter().collect();
        execute(c, "UPDATE task SET followed = 0 WHERE id = ANY($1)", &[&forsaken]).await?;
    }
    let mut new = NewRows::default();
    for (tenant, ends) in &by_tenant {
        let tenant = TenantId(*tenant);
        let (mut last, at) = hold_head(c, tenant, now).await?;
        for (end, row) in ends {
            let Some(topic) = HostTopic::of_end(end.state) else { continue };
            let ended = read_ended(end, row)?;
            let data = ended.data();
            stored.add(tenant, signed(STORED_BYTES_PER_EVENT + data.bytes.len() as u64));
            last += 1;
            let (id, depth) = (ended.id(last), ended.depth);
            let ended = Some((end.run, TaskId(end.task)));
            let row = NewRow { id, topic: topic.as_str(), data: Cow::Owned(data), depth, ended };
            new.push(tenant, last, at, row);
        }
        step_head(c, tenant, last).await?;
    }
    new.insert(c).await?;
    Ok(!by_tenant.is_empty())
}

fn read_ended(end: &End, row: &Row) -> Result<EndedRun, StoreError> {
    let failure = match row.try_get::<_, Option<String>>(8)? {
        None => None,
        Some(kind) => Some((kind, row.try_get(9)?, row.try_get(10)?)),
    };
    Ok(EndedRun {
        run: end.run,
        task: row.try_get(3)?,
        trigger: row.try_get(4)?,
        state: end.state,
        attempt: row.try_get::<_, Small>(5)?.0,
        nominal_at: row.try_get::<_, At>(6)?.0,
        depth: row.try_get::<_, Small>(7)?.0,
        failure,
    })
}
