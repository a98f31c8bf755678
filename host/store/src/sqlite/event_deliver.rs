//! What events do in SQLite: triggers that follow them, runs that they start, and ends of runs that are events.

use super::event::{NewRow, append, head};
use super::row::{At, Id, Word, signed};
use super::trigger_advance::Advanced;
use super::{output, quota, task, trigger_fire};
use crate::events::EndedRun;
use crate::starting::{Standing, Start, Starting};
use crate::{Deliver, NewTrigger, StoreError};
use innkeeper_domain::Timestamp;
use innkeeper_domain::event::{Edge, Given, HostTopic, Item, find_loop};
use innkeeper_domain::ids::{RunId, TaskId, TenantId};
use innkeeper_domain::limits::{AFTER_TRIGGERS_PER_TENANT_MAX, STORED_BYTES_PER_EVENT};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::rule::Rule;
use innkeeper_domain::run::RunState;
use innkeeper_domain::trigger::SkipReason;
use rusqlite::{Connection, OptionalExtension, params};

/// Lets a new trigger follow events from now on, if that is its rule.
pub(super) fn follow(c: &Connection, tenant: TenantId, trigger: &NewTrigger) -> Result<(), StoreError> {
    let (mut after, mut watches) = (None, 0);
    match &trigger.spec.rule {
        Rule::Schedule(_) | Rule::Webhook(_) => return Ok(()),
        Rule::Event(rule) => watches = HostTopic::matching(&rule.pattern),
        Rule::After(rule) => {
            let edges = edges(c, tenant)?;
            find_loop(&edges, &Edge { after: rule.task.clone(), task: trigger.task.clone() })
                .map_err(|e| StoreError::Conflict(e.to_string()))?;
            let followed = task::get(c, tenant, &rule.task)?.id;
            c.execute("UPDATE task SET followed = 1 WHERE id = ?1", [Id(followed.0)])?;
            after = Some(Id(followed.0));
        }
    }
    if watches != 0 {
        let watch = "UPDATE tenant SET watched = watched | ?2 WHERE id = ?1";
        c.execute(watch, params![Id(tenant.0), watches])?;
    }
    let (cursor, _) = head(c, tenant)?;
    c.execute(
        "UPDATE trigger SET event_cursor = ?2, event_seen = ?2, after_task_id = ?3, watches = ?4 WHERE id = ?1",
        params![Id(trigger.id.0), signed(cursor), after, watches],
    )?;
    Ok(())
}

/// A trigger that comes after the task.
pub(super) fn follower(c: &Connection, task: TaskId) -> Result<Option<Name>, StoreError> {
    let mut get = c.prepare_cached(
        "SELECT name FROM trigger WHERE after_task_id = ?1 AND deleted_at IS NULL AND state <> 'finished'
         ORDER BY name LIMIT 1",
    )?;
    Ok(get.query_row([Id(task.0)], |row| Ok(row.get::<_, Word<_>>(0)?.0)).optional()?)
}

/// Which tasks of the tenant come after which.
fn edges(c: &Connection, tenant: TenantId) -> Result<Vec<Edge>, StoreError> {
    let mut list = c.prepare_cached(
        "SELECT a.name, t.name FROM trigger g JOIN task a ON a.id = g.after_task_id JOIN task t ON t.id = g.task_id
         WHERE g.tenant_id = ?1 AND g.after_task_id IS NOT NULL AND g.deleted_at IS NULL AND a.deleted_at IS NULL
             AND g.state <> 'finished' LIMIT ?2",
    )?;
    let most = signed(AFTER_TRIGGERS_PER_TENANT_MAX as u64 + 1);
    let rows = list.query_map(params![Id(tenant.0), most], |row| {
        Ok(Edge { after: row.get::<_, Word<_>>(0)?.0, task: row.get::<_, Word<_>>(1)?.0 })
    })?;
    let edges: Vec<Edge> = rows.collect::<Result<_, _>>()?;
    crate::words::so_many_after(edges.len())?;
    Ok(edges)
}

/// Applies a decision.
pub(super) fn deliver(c: &Connection, of: &Deliver, now: Timestamp) -> Result<Advanced, StoreError> {
    let Some(source) = trigger_fire::find(c, of.tenant, of.id)? else { return Ok(Advanced::default()) };
    let mut get = c.prepare_cached("SELECT event_cursor FROM trigger WHERE id = ?1")?;
    let cursor: Option<i64> = get.query_row([Id(of.id.0)], |row| row.get(0))?;
    if source.standing != Standing::Active || cursor != Some(signed(of.cursor)) {
        return Ok(Advanced::default());
    }
    let Some(mut account) = quota::account(c, of.tenant, now)? else { return Ok(Advanced::default()) };
    let mut starting = Starting::new(&source, &mut account);
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
                    Given::OutputOf(run) => output_of(c, *run)?,
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
    let cancelled = trigger_fire::write(c, &source, &starting, now)?;
    let created = u32::try_from(starting.starts.len()).unwrap_or(u32::MAX);
    quota::write(c, &account)?;
    c.prepare_cached(
        "UPDATE trigger SET event_cursor = ?2, event_seen = ?3, look_at = ?4, looked_at = ?5 WHERE id = ?1",
    )?
    .execute(params![
        Id(of.id.0),
        signed(of.delivery.cursor),
        signed(of.delivery.seen),
        of.delivery.look_at.map(At),
        At(now),
    ])?;
    Ok(Advanced { created, cancelled })
}

/// The output of a run; none if it isn't kept any more.
fn output_of(c: &Connection, run: RunId) -> Result<Option<Payload>, StoreError> {
    let mut get =
        c.prepare_cached("SELECT output_type, output FROM run WHERE id = ?1 AND state = 'succeeded'")?;
    let found =
        get.query_row([Id(run.0)], |row| Ok(Payload { content_type: row.get(0)?, bytes: row.get(1)? }));
    let mut output: Option<Payload> = found.optional()?;
    if let Some(output) = &mut output {
        output::add_further(c, run, &mut output.bytes)?;
    }
    Ok(output)
}

/// Makes an event of a run's end, if a trigger waits for it; whether there is one. `followed`: a trigger may come after
/// the run's task.
pub(super) fn run_ended(
    c: &Connection,
    run: RunId,
    state: RunState,
    followed: bool,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let mut get = c.prepare_cached(
        "SELECT r.tenant_id, r.task_id, t.name, g.name, r.attempt, r.nominal_at, r.depth, r.failure_kind,
             r.failure_code, r.failure_message,
             EXISTS (SELECT 1 FROM trigger a WHERE a.after_task_id = r.task_id AND a.deleted_at IS NULL
                 AND a.state <> 'finished'),
             EXISTS (SELECT 1 FROM trigger w WHERE w.tenant_id = r.tenant_id AND w.watches <> 0 AND w.watches & ?2 <> 0
                 AND w.deleted_at IS NULL AND w.state <> 'finished')
         FROM run r JOIN task t ON t.id = r.task_id LEFT JOIN trigger g ON g.id = r.trigger_id WHERE r.id = ?1",
    )?;
    let (tenant, task, ended, is_followed, is_watched) =
        get.query_row(params![Id(run.0), HostTopic::end_bit(state)], |row| {
            let failure = match row.get::<_, Option<String>>(7)? {
                None => None,
                Some(kind) => Some((kind, row.get(8)?, row.get(9)?)),
            };
            let ended = EndedRun {
                run,
                task: row.get(2)?,
                trigger: row.get(3)?,
                state,
                attempt: row.get(4)?,
                nominal_at: row.get::<_, At>(5)?.0,
                depth: row.get(6)?,
                failure,
            };
            let (tenant, task) = (TenantId(row.get::<_, Id>(0)?.0), TaskId(row.get::<_, Id>(1)?.0));
            Ok((tenant, task, ended, row.get::<_, bool>(10)?, row.get::<_, bool>(11)?))
        })?;
    if followed && !is_followed {
        c.prepare_cached("UPDATE task SET followed = 0 WHERE id = ?1")?.execute([Id(task.0)])?;
    }
    let Some(topic) = HostTopic::of_end(state).filter(|_| is_followed || is_watched) else {
        return Ok(false);
    };
    let (data, id) = (ended.data(), ended.id(head(c, tenant)?.0 + 1));
    let (depth, ended) = (ended.depth, Some((run, task)));
    append(c, tenant, &NewRow { id: &id, topic: topic.as_str(), data: &data, depth, ended }, now)?;
    quota::store(c, tenant, signed(STORED_BYTES_PER_EVENT + data.bytes.len() as u64))?;
    Ok(true)
}
