//! Due triggers in PostgreSQL: runs, skips and the trigger's next time, together or not at all.

use super::cancel::cancel_own;
use super::connection::in_transaction;
use super::row::{At, Json, Small, Word, execute, row, rows, signed, unsigned};
use super::start::{NewRow, NewRows, count_up};
use super::trigger_retime::read_covered;
use super::{Shard, Shared, quota};
use crate::gates::{WaitsForOwn, begin, task_gates};
use crate::holidays::{Found, add_latest};
use crate::terms::Terms;
use crate::{Advance, DueTrigger, StoreError};
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::admit::{AdmissionState, AdmittedFiring, FiringTerms, Next, admit_firing};
use innkeeper_domain::deadline::Deadlines;
use innkeeper_domain::gate::TaskGates;
use innkeeper_domain::holiday::Holidays;
use innkeeper_domain::host::Labels;
use innkeeper_domain::ids::{RunId, TaskId, TenantId, TriggerId};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::time::to_micros;
use innkeeper_domain::trigger::{SkipRange, SkipReason, TriggerSpec};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokio_postgres::Row;
use uuid::Uuid;

/// Not those of deleted tenants, which the retention clears away.
macro_rules! due {
    ($order:literal) => {
        concat!(
            "SELECT id, spec, next_at, paused_through, tenant_id, covered_at, covered_offset, zone_edition
             FROM trigger g
             WHERE state = 'active' AND due_at <= $1
                 AND NOT EXISTS (SELECT 1 FROM tenant WHERE id = g.tenant_id AND deleted_at IS NOT NULL)
             ORDER BY due_at ",
            $order,
            " LIMIT $2"
        )
    };
}

pub(super) const NEXT_DUE: &str = "SELECT id, due_at FROM trigger g
    WHERE state = 'active' AND due_at IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM tenant WHERE id = g.tenant_id AND deleted_at IS NOT NULL)
    ORDER BY due_at LIMIT $1";

/// Triggers that are due: so many that are due the longest, and so many that became due last.
pub(super) async fn due(
    c: &impl GenericClient,
    now: Timestamp,
    longest: usize,
    latest: usize,
) -> Result<Vec<Found>, StoreError> {
    let read = |row: &Row| Ok((TriggerId(row.try_get(0)?), read_due(row)));
    let list = async |sql: &str, most: usize| -> Result<Vec<Found>, StoreError> {
        let found = rows(c, sql, &[&At(now), &signed(most as u64)]).await?;
        found.iter().map(read).collect()
    };
    let mut found = list(due!("ASC"), longest).await?;
    if found.len() == longest {
        add_latest(&mut found, list(due!("DESC"), latest).await?);
    }
    Ok(found)
}

fn read_due(row: &Row) -> Result<(TenantId, DueTrigger), StoreError> {
    let due = DueTrigger {
        id: TriggerId(row.try_get(0)?),
        spec: row.try_get::<_, Json<_>>(1)?.0,
        due: row.try_get::<_, At>(2)?.0,
        covered: read_covered(row, 5)?,
        edition: row.try_get(7)?,
        paused_through: row.try_get::<_, Option<At>>(3)?.map(|at| at.0),
        holidays: Holidays::default(),
    };
    Ok((TenantId(row.try_get(4)?), due))
}

/// A trigger as the transaction finds it, active.
struct Due {
    tenant: TenantId,
    name: Name,
    task: TaskId,
    due: Timestamp,
    terms: FiringTerms,
    labels: Labels,
    priority: Option<u8>,
    input: Payload,
    last_nominal: Option<Timestamp>,
    last_success_nominal: Option<Timestamp>,
    unfinished: u64,
}

/// A task of a due trigger, with the count that the transaction has reached.
struct Target {
    name: Name,
    revision: u32,
    requires: String,
    terms: Terms,
    unfinished: u64,
    priority: u8,
    paused: bool,
    gates: TaskGates,
}

/// What applied decisions have done.
#[derive(Debug, Default)]
pub(super) struct Advanced {
    pub created: u32,
    /// Runs of triggers that were cancelled, or asked to end.
    pub cancelled: Vec<RunId>,
}

/// Decisions that are applied together where some cancel runs.
const ADVANCED_TOGETHER: usize = 16;

/// Applies decisions in order: together, but for each that cancels runs, since whoever ends runs has those locked first.
pub(super) async fn advance_all(
    shared: &Shared,
    advances: &[Advance],
    now: Timestamp,
) -> Result<Advanced, StoreError> {
    let (mut all, mut left, mut together) = (Advanced::default(), advances, advances.len());
    while !left.is_empty() {
        let part = left.get(..together).unwrap_or(left);
        let (done, count) = advance_some(shared, part, now).await?;
        if count < part.len() {
            // Where one cancels others may, and what isn't applied is locked for nothing.
            together = ADVANCED_TOGETHER;
        }
        all.created += done.created;
        all.cancelled.extend(done.cancelled);
        left = left.get(count..).unwrap_or_default();
    }
    Ok(all)
}

/// Applies the first ones, in one transaction, and says how many.
async fn advance_some(
    shared: &Shared,
    advances: &[Advance],
    now: Timestamp,
) -> Result<(Advanced, usize), StoreError> {
    let ids: Vec<Uuid> = advances.iter().map(|advance| advance.id.0).collect();
    in_transaction!(&shared.pool, |c| {
        let mut targets = targets(shared, c, &ids).await?;
        let due = lock(c, &ids).await?;
        let tenants: BTreeSet<Uuid> = due.values().map(|due| due.tenant.0).collect();
        let tenants: Vec<Uuid> = tenants.into_iter().collect();
        let mut accounts = quota::accounts(c, &tenants, now).await?;
        let (mut rows, mut steps) = (NewRows::default(), Steps::default());
        let mut counts: BTreeMap<Uuid, i64> = BTreeMap::new();
        let (mut skips, mut cancelled, mut done) = (Vec::new(), Vec::new(), 0);
        for advance in advances {
            done += 1;
            let found = due.get(&advance.id).filter(|due| due.due == advance.due);
            let Some(due) = found else { continue };
            let found = (targets.get_mut(&due.task), accounts.get_mut(&due.tenant));
            let (Some(target), Some(account)) = found else { continue };
            let state = AdmissionState {
                unfinished_of_task: target.unfinished,
                unfinished_of_trigger: due.unfinished,
                same_key: None,
                tenant: account.for_trigger(&due.input),
                task_paused: target.paused,
            };
            let admitted = admit_firing(due.terms, state, &advance.firing);
            if admitted.cancels && done > 1 {
                done -= 1;
                break;
            }
            if admitted.cancels {
                cancelled = cancel_own(shared, c, advance.id, now).await?;
            }
            let last_nominal = due.start(advance, &admitted, target, &mut rows, now);
            let started = admitted.runs.len();
            target.unfinished += started as u64;
            account.fired(started, &due.input);
            account.skipped((advance.id, &due.name), &target.name, &admitted.skips, &state);
            *counts.entry(due.task.0).or_default() += i64::try_from(started).unwrap_or(i64::MAX);
            steps.push(advance, &admitted, last_nominal);
            skips.extend(admitted.skips.iter().map(|skip| {
                let last_run = admitted.last_run_before(skip, &advance.firing, due.last_nominal);
                (advance.id, *skip, last_run)
            }));
        }
        rows.insert(c).await?;
        for (trigger, skip, last_run) in &skips {
            record(c, *trigger, skip, *last_run).await?;
        }
        count_up(c, &counts).await?;
        steps.write(c).await?;
        quota::write(shared, c, Shard::Starts, &accounts).await?;
        let created = u32::try_from(counts.values().sum::<i64>()).unwrap_or(u32::MAX);
        (Advanced { created, cancelled }, done)
    })
}

/// The tasks of these triggers, locked.
async fn targets(
    shared: &Shared,
    c: &impl GenericClient,
    triggers: &[Uuid],
) -> Result<HashMap<TaskId, Target>, StoreError> {
    let found = rows(
        c,
        "SELECT id, revision, unfinished, paused_at IS NOT NULL, name FROM task
         WHERE id IN (SELECT task_id FROM trigger WHERE id = ANY($1)) ORDER BY id FOR NO KEY UPDATE",
        &[&triggers],
    )
    .await?;
    let mut targets = HashMap::with_capacity(found.len());
    for row in &found {
        let (id, revision) = (TaskId(row.try_get(0)?), row.try_get::<_, Small>(1)?.0);
        let (spec, paused) = (shared.spec(c, id, revision).await?, row.try_get(3)?);
        let target = Target {
            name: row.try_get::<_, Word<_>>(4)?.0,
            revision,
            requires: spec.requires.to_string(),
            terms: Terms::of(&spec),
            unfinished: unsigned(row.try_get(2)?),
            priority: spec.priority,
            paused,
            gates: task_gates(&spec, paused)?,
        };
        targets.insert(id, target);
    }
    Ok(targets)
}

/// Those of these triggers that are active, locked.
async fn lock(c: &impl GenericClient, triggers: &[Uuid]) -> Result<HashMap<TriggerId, Due>, StoreError> {
    let found = rows(
        c,
        "SELECT id, tenant_id, task_id, next_at, spec, input_type, input, last_nominal, last_success_nominal,
             unfinished, started, name
         FROM trigger WHERE id = ANY($1) AND state = 'active' AND next_at IS NOT NULL
         ORDER BY id FOR NO KEY UPDATE",
        &[&triggers],
    )
    .await?;
    let mut due = HashMap::with_capacity(found.len());
    for row in &found {
        let spec = row.try_get::<_, Json<TriggerSpec>>(4)?.0;
        let read = Due {
            tenant: TenantId(row.try_get(1)?),
            name: row.try_get::<_, Word<_>>(11)?.0,
            task: TaskId(row.try_get(2)?),
            due: row.try_get::<_, At>(3)?.0,
            terms: FiringTerms::of(&spec, unsigned(row.try_get(10)?)),
            priority: spec.priority,
            labels: spec.labels,
            input: Payload { content_type: row.try_get(5)?, bytes: row.try_get(6)? },
            last_nominal: row.try_get::<_, Option<At>>(7)?.map(|at| at.0),
            last_success_nominal: row.try_get::<_, Option<At>>(8)?.map(|at| at.0),
            unfinished: unsigned(row.try_get(9)?),
        };
        due.insert(TriggerId(row.try_get(0)?), read);
    }
    Ok(due)
}

impl Due {
    /// Adds the admitted runs, and says what the trigger's last nominal time with a run is then.
    fn start<'a>(
        &'a self,
        advance: &Advance,
        admitted: &AdmittedFiring,
        target: &Target,
        rows: &mut NewRows<'a>,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let mut last_nominal = self.last_nominal;
        let waits_for_own = if self.terms.overlap.waits() { WaitsForOwn::Yes } else { WaitsForOwn::No };
        let (passage, key) = begin(&target.gates, &self.input, waits_for_own);
        let runs = advance.firing.runs.iter().zip(&advance.run_ids).enumerate();
        for (_, (nominal, id)) in runs.filter(|(place, _)| admitted.runs.contains(place)) {
            let row = NewRow {
                id: *id,
                tenant: self.tenant,
                task: self.task,
                revision: target.revision,
                requires: Cow::Owned(target.requires.clone()),
                pinned: target.terms.pinned(Deadlines::default(), &self.labels, *nominal, now),
                trigger: Some((advance.id, to_micros(*nominal).to_string())),
                backfill: None,
                depth: 0,
                nominal_at: *nominal,
                last_success_nominal: self.last_success_nominal,
                idempotency_key: None,
                input: &self.input,
                priority: self.priority.unwrap_or(target.priority),
                passage,
                key: key.clone(),
            };
            rows.push(row, &target.gates, now);
            last_nominal = Some(*nominal);
        }
        last_nominal
    }
}

/// Changes of triggers' rows, a column each.
#[derive(Default)]
struct Steps<'a> {
    ids: Vec<Uuid>,
    next_at: Vec<Option<At>>,
    due_at: Vec<Option<At>>,
    finished: Vec<bool>,
    last_nominal: Vec<Option<At>>,
    started: Vec<i64>,
    skipped: Vec<i64>,
    covered_at: Vec<Option<At>>,
    covered_offset: Vec<Option<i64>>,
    editions: Vec<&'a str>,
}

impl<'a> Steps<'a> {
    fn push(&mut self, advance: &'a Advance, admitted: &AdmittedFiring, last_nominal: Option<Timestamp>) {
        let next = admitted.next.upcoming();
        self.ids.push(advance.id.0);
        self.next_at.push(next.map(|next| At(next.nominal)));
        self.due_at.push(next.map(|next| At(next.due)));
        self.finished.push(admitted.next == Next::Never);
        self.last_nominal.push(last_nominal.map(At));
        self.started.push(signed(admitted.runs.len() as u64));
        self.skipped.push(signed(admitted.skips.iter().map(|skip| skip.count).sum()));
        self.covered_at.push(advance.firing.covered.map(|covered| At(covered.at)));
        self.covered_offset.push(advance.firing.covered.map(|covered| covered.offset.into()));
        self.editions.push(&advance.edition);
    }

    async fn write(&self, c: &impl GenericClient) -> Result<(), StoreError> {
        execute(
            c,
            "UPDATE trigger g SET next_at = e.next_at, due_at = e.due_at,
                 state = CASE WHEN e.finished THEN 'finished' ELSE g.state END,
                 last_nominal = e.last_nominal, started = g.started + e.started, skipped = g.skipped + e.skipped,
                 unfinished = g.unfinished + e.started, covered_at = coalesce(e.covered_at, g.covered_at),
                 covered_offset = coalesce(e.covered_offset, g.covered_offset), zone_edition = e.edition
             FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bool[], $5::bigint[], $6::bigint[],
                 $7::bigint[], $8::bigint[], $9::bigint[], $10::text[])
                 AS e (id, next_at, due_at, finished, last_nominal, started, skipped, covered_at, covered_offset,
                     edition)
             WHERE g.id = e.id",
            &[
                &self.ids,
                &self.next_at,
                &self.due_at,
                &self.finished,
                &self.last_nominal,
                &self.started,
                &self.skipped,
                &self.covered_at,
                &self.covered_offset,
                &self.editions,
            ],
        )
        .await?;
        Ok(())
    }
}

/// Records a skip; one that only goes on from the last one makes that longer.
pub(super) async fn record(
    c: &impl GenericClient,
    trigger: TriggerId,
    skip: &SkipRange,
    last_run: Option<Timestamp>,
) -> Result<(), StoreError> {
    let last = "SELECT id, last_at, reason FROM skip WHERE trigger_id = $1 ORDER BY id DESC LIMIT 1";
    let continued = match row(c, last, &[&trigger.0]).await? {
        None => None,
        Some(last) => {
            let (to, reason) = (last.try_get::<_, At>(1)?.0, last.try_get::<_, Word<SkipReason>>(2)?.0);
            Some(last.try_get::<_, i64>(0)?).filter(|_| skip.continues(to, reason, last_run))
        }
    };
    match continued {
        Some(id) => {
            let longer = "UPDATE skip SET last_at = $2, count = count + $3 WHERE id = $1";
            execute(c, longer, &[&id, &At(skip.to), &signed(skip.count)]).await?;
        }
        None => {
            execute(
                c,
                "INSERT INTO skip (trigger_id, first_at, last_at, count, reason) VALUES ($1, $2, $3, $4, $5)",
                &[&trigger.0, &At(skip.from), &At(skip.to), &signed(skip.count), &skip.reason.as_str()],
            )
            .await?;
        }
    }
    Ok(())
}
