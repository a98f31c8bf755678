//! Due triggers in SQLite: runs, skips and the trigger's next time, together or not at all.

use super::cancel::cancel_own;
use super::row::{At, Id, Json, Word, signed, unsigned};
use super::start::{NewRow, insert};
use super::{SqliteStore, gate, quota};
use crate::gates::{GateChanges, Gated, WaitsForOwn, begin, task_gates};
use crate::holidays::{Found, add_latest};
use crate::terms::Terms;
use crate::{Advance, DueTrigger, StoreError};
use innkeeper_domain::Timestamp;
use innkeeper_domain::admit::{AdmissionState, FiringTerms, Next, Standing, admit_firing};
use innkeeper_domain::calendar::Covered;
use innkeeper_domain::deadline::Deadlines;
use innkeeper_domain::gate::{Passage, TaskGates};
use innkeeper_domain::holiday::Holidays;
use innkeeper_domain::host::Labels;
use innkeeper_domain::ids::{RunId, TaskId, TenantId, TriggerId};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::time::to_micros;
use innkeeper_domain::trigger::{SkipRange, SkipReason, TriggerSpec};
use rusqlite::{Connection, OptionalExtension, Row, params};

/// Not those of deleted tenants, which the retention clears away.
macro_rules! due {
    ($order:literal) => {
        concat!(
            "SELECT id, spec, next_at, paused_through, tenant_id, covered_at, covered_offset, zone_edition
             FROM trigger g
             WHERE state = 'active' AND due_at <= ?1
                 AND NOT EXISTS (SELECT 1 FROM tenant WHERE id = g.tenant_id AND deleted_at IS NOT NULL)
             ORDER BY due_at ",
            $order,
            " LIMIT ?2"
        )
    };
}

pub(super) const DUE: &str = due!("ASC");
pub(super) const DUE_LAST: &str = due!("DESC");

pub(super) const NEXT_DUE: &str = "SELECT id, due_at FROM trigger g
    WHERE state = 'active' AND due_at IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM tenant WHERE id = g.tenant_id AND deleted_at IS NOT NULL)
    ORDER BY due_at LIMIT ?1";

/// Triggers that are due: so many that are due the longest, and so many that became due last.
pub(super) fn due(
    c: &Connection,
    now: Timestamp,
    longest: usize,
    latest: usize,
) -> Result<Vec<Found>, StoreError> {
    let list = |sql: &str, most: usize| -> Result<Vec<Found>, StoreError> {
        let mut list = c.prepare_cached(sql)?;
        let rows = list.query_map(params![At(now), signed(most as u64)], |row| {
            Ok((TriggerId(row.get::<_, Id>(0)?.0), read_due(row).map_err(StoreError::from)))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    };
    let mut found = list(DUE, longest)?;
    if found.len() == longest {
        add_latest(&mut found, list(DUE_LAST, latest)?);
    }
    Ok(found)
}

fn read_due(row: &Row) -> rusqlite::Result<(TenantId, DueTrigger)> {
    let due = DueTrigger {
        id: TriggerId(row.get::<_, Id>(0)?.0),
        spec: row.get::<_, Json<_>>(1)?.0,
        due: row.get::<_, At>(2)?.0,
        covered: Covered { at: row.get::<_, At>(5)?.0, offset: row.get(6)? },
        edition: row.get(7)?,
        paused_through: row.get::<_, Option<At>>(3)?.map(|at| at.0),
        holidays: Holidays::default(),
    };
    Ok((TenantId(row.get::<_, Id>(4)?.0), due))
}

/// A trigger as the transaction finds it, active and due at the time that a decision was made for.
pub(super) struct Due {
    tenant: TenantId,
    name: Name,
    task: TaskId,
    task_name: Name,
    revision: u32,
    requires: String,
    run_terms: Terms,
    labels: Labels,
    terms: FiringTerms,
    gates: TaskGates,
    priority: u8,
    input: Payload,
    last_nominal: Option<Timestamp>,
    last_success_nominal: Option<Timestamp>,
    state: AdmissionState,
}

impl Due {
    pub fn lock(c: &Connection, decision: &Advance) -> Result<Option<Self>, StoreError> {
        let mut get = c.prepare_cached(
            "SELECT g.tenant_id, g.task_id, t.revision, g.spec, g.input_type, g.input, g.last_nominal,
                 g.last_success_nominal, t.unfinished, g.unfinished, r.spec, g.started, t.paused_at IS NOT NULL,
                 g.name, t.name
             FROM trigger g JOIN task t ON t.id = g.task_id
                 JOIN task_revision r ON r.task_id = t.id AND r.number = t.revision
             WHERE g.id = ?1 AND g.next_at = ?2 AND g.state = 'active'",
        )?;
        let found = get.query_row(params![Id(decision.id.0), At(decision.due)], |row| {
            let (trigger, task) =
                (row.get::<_, Json<TriggerSpec>>(3)?.0, row.get::<_, Json<TaskSpec>>(10)?.0);
            let due = Self {
                tenant: TenantId(row.get::<_, Id>(0)?.0),
                name: row.get::<_, Word<_>>(13)?.0,
                task: TaskId(row.get::<_, Id>(1)?.0),
                task_name: row.get::<_, Word<_>>(14)?.0,
                revision: row.get(2)?,
                requires: task.requires.to_string(),
                run_terms: Terms::of(&task),
                terms: FiringTerms::of(&trigger, unsigned(row.get(11)?)),
                gates: TaskGates::default(),
                priority: trigger.priority.unwrap_or(task.priority),
                labels: trigger.labels,
                input: Payload { content_type: row.get(4)?, bytes: row.get(5)? },
                last_nominal: row.get::<_, Option<At>>(6)?.map(|at| at.0),
                last_success_nominal: row.get::<_, Option<At>>(7)?.map(|at| at.0),
                state: AdmissionState {
                    unfinished_of_task: unsigned(row.get(8)?),
                    unfinished_of_trigger: unsigned(row.get(9)?),
                    same_key: None,
                    tenant: Standing::default(),
                    task_paused: row.get(12)?,
                },
            };
            Ok((due, task))
        });
        let Some((due, task)) = found.optional()? else { return Ok(None) };
        Ok(Some(Self { gates: task_gates(&task, due.state.task_paused)?, ..due }))
    }
}

/// What an applied decision has done.
#[derive(Debug, Default)]
pub(super) struct Advanced {
    pub created: u32,
    /// The trigger's runs that were cancelled, or asked to end.
    pub cancelled: Vec<RunId>,
}

impl SqliteStore {
    /// Writes what triggers start and cancel.
    pub(super) async fn write_advance(
        &self,
        bytes: usize,
        apply: impl FnOnce(&Connection) -> Result<Advanced, StoreError> + Send + 'static,
    ) -> Result<u32, StoreError> {
        let advanced = self.write_starts(bytes, apply, |all| (all.created > 0, &all.cancelled)).await?;
        Ok(advanced.created)
    }
}

/// Applies a decision.
pub(super) fn advance(
    c: &Connection,
    due: &Due,
    decision: &Advance,
    now: Timestamp,
) -> Result<Advanced, StoreError> {
    let trigger = decision.id;
    let Some(mut account) = quota::account(c, due.tenant, now)? else { return Ok(Advanced::default()) };
    let state = AdmissionState { tenant: account.for_trigger(&due.input), ..due.state };
    let admitted = admit_firing(due.terms, state, &decision.firing);
    account.fired(admitted.runs.len(), &due.input);
    account.skipped((trigger, &due.name), &due.task_name, &admitted.skips, &state);
    let cancelled = if admitted.cancels { cancel_own(c, trigger, now)? } else { Vec::new() };
    let waits_for_own = if due.terms.overlap.waits() { WaitsForOwn::Yes } else { WaitsForOwn::No };
    let (passage, key) = begin(&due.gates, &due.input, waits_for_own);
    let of = Gated { tenant: due.tenant, task: due.task, trigger: Some(trigger.0), key: key.as_deref() };
    let mut changes = GateChanges::default();
    let mut last_nominal = due.last_nominal;
    let runs = decision.firing.runs.iter().zip(&decision.run_ids).enumerate();
    for (_, (nominal, id)) in runs.filter(|(place, _)| admitted.runs.contains(place)) {
        insert(
            c,
            &NewRow {
                id: *id,
                tenant: due.tenant,
                task: due.task,
                revision: due.revision,
                requires: &due.requires,
                pinned: due.run_terms.pinned(Deadlines::default(), &due.labels, *nominal, now),
                trigger: Some((trigger, to_micros(*nominal).to_string())),
                backfill: None,
                depth: 0,
                nominal_at: *nominal,
                last_success_nominal: due.last_success_nominal,
                idempotency_key: None,
                input: &due.input,
                priority: due.priority,
                passage,
                key: key.clone(),
            },
            now,
        )?;
        changes.add(&of, (Passage::default(), passage), now, Some(&due.gates));
        last_nominal = Some(*nominal);
    }
    let created = u32::try_from(admitted.runs.len()).unwrap_or(u32::MAX);
    let mut skipped = 0;
    for skip in &admitted.skips {
        let last_run = admitted.last_run_before(skip, &decision.firing, due.last_nominal);
        record(c, trigger, skip, last_run)?;
        skipped += skip.count;
    }
    gate::write(c, &changes)?;
    quota::write(c, &account)?;
    if created > 0 {
        c.prepare_cached("UPDATE task SET unfinished = unfinished + ?2 WHERE id = ?1")?
            .execute(params![Id(due.task.0), created])?;
    }
    c.prepare_cached(
        "UPDATE trigger SET next_at = ?2, due_at = ?3, state = CASE WHEN ?4 THEN 'finished' ELSE state END,
             last_nominal = ?5, started = started + ?6, skipped = skipped + ?7, unfinished = unfinished + ?6,
             covered_at = coalesce(?8, covered_at), covered_offset = coalesce(?9, covered_offset), zone_edition = ?10
         WHERE id = ?1",
    )?
    .execute(params![
        Id(trigger.0),
        admitted.next.upcoming().map(|next| At(next.nominal)),
        admitted.next.upcoming().map(|next| At(next.due)),
        admitted.next == Next::Never,
        last_nominal.map(At),
        created,
        signed(skipped),
        decision.firing.covered.map(|covered| At(covered.at)),
        decision.firing.covered.map(|covered| covered.offset),
        decision.edition,
    ])?;
    Ok(Advanced { created, cancelled })
}

/// Records a skip; one that only goes on from the last one makes that longer.
pub(super) fn record(
    c: &Connection,
    trigger: TriggerId,
    skip: &SkipRange,
    last_run: Option<Timestamp>,
) -> Result<(), StoreError> {
    let mut last = c.prepare_cached(
        "SELECT id, last_at, reason FROM skip WHERE trigger_id = ?1 ORDER BY id DESC LIMIT 1",
    )?;
    let last = last
        .query_row([Id(trigger.0)], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, At>(1)?.0, row.get::<_, Word<SkipReason>>(2)?.0))
        })
        .optional()?;
    let continued = |(_, to, reason): &(i64, Timestamp, SkipReason)| skip.continues(*to, *reason, last_run);
    match last.filter(continued) {
        Some((id, ..)) => c
            .prepare_cached("UPDATE skip SET last_at = ?2, count = count + ?3 WHERE id = ?1")?
            .execute(params![id, At(skip.to), signed(skip.count)])?,
        None => c
            .prepare_cached(
                "INSERT INTO skip (trigger_id, first_at, last_at, count, reason) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                Id(trigger.0),
                At(skip.from),
                At(skip.to),
                signed(skip.count),
                skip.reason.as_str()
            ])?,
    };
    Ok(())
}
