//! Runs that wait at gates are let pass, in PostgreSQL: a step of every claim. It has the tasks locked, and waits for no
//! other lock: runs that somebody changes are passed by.

use super::Shared;
use super::connection::{in_transaction, reading};
use super::gate::{IS_OPEN, of_task, open_tenants, place, read_gate, read_kind, read_passage, small, write};
use super::row::{At, execute, row, rows, signed, text};
use crate::StoreError;
use crate::gates::{GateChanges, GateKey, Gated};
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::gate::{Gate, GateKind, Hold, Passage};
use innkeeper_domain::host::{HostState, Labels};
use innkeeper_domain::ids::{HostId, RunId, TaskId, TenantId};
use innkeeper_domain::limits::{GATE_ROUNDS_MAX, GATES_PER_LOOK, PRIORITY_MAX, UNCLAIMED_LOOK};
use innkeeper_domain::tenant::TenantState;
use innkeeper_domain::time;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use tokio_postgres::Row;
use uuid::Uuid;

/// What a grant has done.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Granted {
    /// Runs that can be claimed now and couldn't before.
    pub free: usize,
    /// Whether there may be more that could pass.
    pub is_left: bool,
}

/// What a grant does about tasks that others have locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Locked {
    PassBy,
    WaitFor,
}

/// Lets runs pass, up to `room` of each tenant; what is left over has its turn with the next claim. Tasks that others
/// are changing are waited for beside the claims, so that these wait for nobody.
///
/// A host that isn't active lets nothing pass.
pub(super) async fn grant(
    shared: &Arc<Shared>,
    host: HostId,
    room: usize,
    now: Timestamp,
) -> Result<Granted, StoreError> {
    let open = reading!(&shared.pool, |c| {
        let open = open_gates(c, now).await?;
        let is_active = open.is_empty() || may_claim(c, host).await?;
        if is_active { open } else { Open::new() }
    })?;
    if open.is_empty() {
        return Ok(Granted::default());
    }
    let (granted, passed_by) = grant_open(shared, &open, room, now, Locked::PassBy).await?;
    if !passed_by.is_empty() && !shared.waits_for_gates.swap(true, Ordering::Relaxed) {
        let worker = Arc::clone(shared);
        shared.tasks.spawn(async move {
            for tenant in passed_by {
                let of_one = open.get(&tenant).map(|tasks| Open::from([(tenant, tasks.clone())]));
                let of_one = of_one.unwrap_or_default();
                if let Err(error) = grant_open(&worker, &of_one, room, now, Locked::WaitFor).await {
                    tracing::debug!(%error, "runs that wait for limits were not let pass; it tries again");
                }
            }
            worker.waits_for_gates.store(false, Ordering::Relaxed);
            worker.hints.runs_ready.notify_one();
        });
    }
    Ok(granted)
}

/// Whether the host is active, and the fleet isn't paused.
async fn may_claim(c: &impl GenericClient, host: HostId) -> Result<bool, StoreError> {
    let get = "SELECT state = $2 AND NOT paused FROM host WHERE id = $1";
    match row(c, get, &[&host.0, &HostState::Active.as_str()]).await? {
        Some(found) => Ok(found.try_get(0)?),
        None => Ok(false),
    }
}

/// The tasks of gates that are open and worth looking at, of each tenant.
type Open = BTreeMap<TenantId, Vec<Uuid>>;

async fn open_gates(c: &impl GenericClient, now: Timestamp) -> Result<Open, StoreError> {
    let find = format!(
        "{} SELECT o.id, g.task_id FROM open o JOIN tenant n ON n.id = o.id AND n.state = $2 AND n.paused_at IS NULL
                 AND n.deleted_at IS NULL,
             LATERAL (SELECT task_id FROM gate WHERE {IS_OPEN} AND tenant_id = o.id AND wake_at <= $1
                 ORDER BY wake_at LIMIT $3) g",
        open_tenants()
    );
    let most = signed(GATES_PER_LOOK as u64);
    let mut open = Open::new();
    for found in rows(c, &find, &[&At(now), &TenantState::Active.as_str(), &most]).await? {
        open.entry(TenantId(found.try_get(0)?)).or_default().push(found.try_get(1)?);
    }
    Ok(open)
}

/// In one transaction. Returns the tenants of which tasks, or runs, were passed by as well.
async fn grant_open(
    shared: &Shared,
    open: &Open,
    room: usize,
    now: Timestamp,
    others: Locked,
) -> Result<(Granted, Vec<TenantId>), StoreError> {
    let tasks: HashSet<Uuid> = open.values().flatten().copied().collect();
    let tasks: Vec<Uuid> = tasks.into_iter().collect();
    let skip = if others == Locked::PassBy { " SKIP LOCKED" } else { "" };
    let lock = format!("SELECT id FROM task WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE{skip}");
    let (granted, passed_by, rated) = in_transaction!(&shared.pool, |c| {
        let found = rows(c, &lock, &[&tasks]).await?;
        let locked: HashSet<Uuid> = found.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let (mut granted, mut passed_by, mut rated) = (Granted::default(), Vec::new(), Vec::new());
        for (tenant, tasks) in open {
            let own: Vec<Uuid> = tasks.iter().copied().filter(|task| locked.contains(task)).collect();
            let passed_by_tasks = own.len() < tasks.len();
            let mut grant =
                Grant { c, now, passed_by: passed_by_tasks, granted: &mut granted, rated: &mut rated };
            if !own.is_empty() {
                grant.tenant(*tenant, &own, room).await?;
            }
            if grant.passed_by {
                passed_by.push(*tenant);
            }
        }
        (granted, passed_by, rated)
    })?;
    shared.rated().extend(rated);
    Ok((granted, passed_by))
}

/// A rate is of attempts that begin: what has come to its turn and isn't `begun` waits again. Else such runs would
/// gather while hosts are full, and begin all at once. But for those that this host can't execute: others may claim them,
/// and they are in nobody's way. Tasks that others have locked are looked at after the next claim. Returns how many wait.
pub(super) async fn give_back(
    shared: &Shared,
    labels: &Labels,
    begun: &HashSet<RunId>,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let rated = std::mem::take(&mut *shared.rated());
    let rated: Vec<(Uuid, RunId)> = rated.into_iter().filter(|(_, run)| !begun.contains(run)).collect();
    if rated.is_empty() {
        return Ok(0);
    }
    let tasks: Vec<Uuid> = rated.iter().map(|(task, _)| *task).collect::<BTreeSet<_>>().into_iter().collect();
    let gave_back = in_transaction!(&shared.pool, |c| {
        let lock = "SELECT id FROM task WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED";
        let found = rows(c, lock, &[&tasks]).await?;
        let locked: Vec<Uuid> = found.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let mut count = 0;
        for task in &locked {
            let runs = rated.iter().filter(|(of, _)| of == task).map(|(_, run)| run.0);
            count += give_back_of(c, *task, runs.collect(), labels, now).await?;
        }
        (locked, count)
    });
    let (locked, count) = match gave_back {
        Ok(gave_back) => gave_back,
        Err(error) => {
            shared.rated().extend(rated);
            return Err(error);
        }
    };
    shared.rated().extend(rated.into_iter().filter(|(task, _)| !locked.contains(task)));
    Ok(count)
}

/// Of a task that is locked. Runs that others have locked are about to begin.
async fn give_back_of(
    c: &impl GenericClient,
    task: Uuid,
    runs: Vec<Uuid>,
    labels: &Labels,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let get = "SELECT id, gates, passed, hold, trigger_id, concurrency_key, available_at, tenant_id, requires FROM run
        WHERE id = ANY($1) AND hold = 0 AND state IN ('queued', 'waiting')
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED";
    let (mut changes, mut placed) = (GateChanges::default(), Vec::new());
    for found in rows(c, get, &[&runs]).await? {
        let run = read_held(&found)?;
        let requires: &str = found.try_get(8)?;
        let is_its = requires.parse().is_ok_and(|required| labels.offer(&required));
        if !is_its || !run.passage.passed.has(GateKind::Task) {
            continue;
        }
        let after = run.passage.queued();
        placed.push((run.id, after));
        let (tenant, task) = (TenantId(found.try_get(7)?), TaskId(task));
        let of = Gated { tenant, task, trigger: run.trigger, key: run.key.as_deref() };
        changes.add(&of, (run.passage, after), run.available_at, None);
    }
    if placed.is_empty() {
        return Ok(0);
    }
    place(c, &placed).await?;
    write(c, &changes).await?;
    let kind = small(GateKind::Task.bit());
    let get = "SELECT most, rate, on_time_at, taken, held FROM gate WHERE owner = $1 AND kind = $2";
    if let Some(found) = row(c, get, &[&task, &kind]).await? {
        let on_time_at = read_gate(&found, 0)?.on_time_without(placed.len());
        let look_at = time::after(now, UNCLAIMED_LOOK);
        let keep = "UPDATE gate SET on_time_at = $3, wake_at = $4 WHERE owner = $1 AND kind = $2";
        execute(c, keep, &[&task, &kind, &on_time_at.map(At), &At(look_at)]).await?;
    }
    Ok(placed.len())
}

impl Shared {
    fn rated(&self) -> MutexGuard<'_, Vec<(Uuid, RunId)>> {
        self.rated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transaction that lets runs of a tenant pass.
struct Grant<'a, C> {
    c: &'a C,
    now: Timestamp,
    /// Whether there is something that others have locked.
    passed_by: bool,
    granted: &'a mut Granted,
    /// Runs that have come to their turn by a rate, and their tasks.
    rated: &'a mut Vec<(Uuid, RunId)>,
}

impl<C: GenericClient> Grant<'_, C> {
    async fn tenant(&mut self, tenant: TenantId, locked: &[Uuid], room: usize) -> Result<(), StoreError> {
        let list = format!(
            "SELECT task_id, kind, owner, key, most, rate, on_time_at, taken, held FROM gate
             WHERE {IS_OPEN} AND tenant_id = $1 AND wake_at <= $2 AND task_id = ANY($4)
             ORDER BY wake_at, owner, kind, key COLLATE \"C\" LIMIT $3"
        );
        let most = signed(GATES_PER_LOOK as u64);
        let mut free = 0;
        for _ in 0..GATE_ROUNDS_MAX {
            let open = rows(self.c, &list, &[&tenant.0, &At(self.now), &most, &locked]).await?;
            if open.is_empty() {
                return Ok(());
            }
            let mut runs_passed_by = false;
            for found in &open {
                if free >= room {
                    self.granted.is_left = true;
                    return Ok(());
                }
                let key = GateKey {
                    task: found.try_get(0)?,
                    kind: read_kind(found, 1)?,
                    owner: found.try_get(2)?,
                    key: found.try_get(3)?,
                };
                let looked = self.look(tenant, &key, read_gate(found, 4)?, room - free).await?;
                free += looked.free;
                self.granted.free += looked.free;
                runs_passed_by |= looked.passed_by;
            }
            if runs_passed_by {
                // Whoever waits for them looks again.
                self.passed_by = true;
                return Ok(());
            }
        }
        self.granted.is_left = true;
        Ok(())
    }

    /// Lets the first runs that wait at a gate pass, and says how many can be claimed now.
    async fn look(
        &mut self,
        tenant: TenantId,
        key: &GateKey,
        gate: Gate,
        wanted: usize,
    ) -> Result<Looked, StoreError> {
        let room = gate.room(self.now, wanted);
        let found = if room > 0 { self.held(key, room).await? } else { Vec::new() };
        let runs = self.lock(key, &found).await?;
        let passed_by = runs.len() < found.len();
        let task = TaskId(key.task);
        let (mut changes, mut placed) = (GateChanges::default(), Vec::with_capacity(runs.len()));
        let (mut gates, mut free) = (None, 0);
        for run in &runs {
            let after = run.passage.pass();
            placed.push((run.id, after));
            if after.hold == Hold::Free {
                free += 1;
            } else if gates.is_none() {
                gates = Some(of_task(self.c, task).await?);
            }
            let of = Gated { tenant, task, trigger: run.trigger, key: run.key.as_deref() };
            changes.add(&of, (run.passage, after), run.available_at, gates.as_ref());
        }
        if gate.terms.rate.is_some() {
            self.rated.extend(runs.iter().map(|run| (key.task, run.id)));
        }
        place(self.c, &placed).await?;
        write(self.c, &changes).await?;
        let gate = gate.pass(self.now, runs.len());
        let next_ready = match found.len() < room && !passed_by {
            true => self.next_ready(key).await?.unwrap_or(Timestamp::MAX),
            false => self.now,
        };
        let keep =
            "UPDATE gate SET on_time_at = $4, wake_at = $5 WHERE owner = $1 AND kind = $2 AND key = $3";
        let (kind, wake_at) = (small(key.kind.bit()), At(gate.wake_at(self.now, next_ready)));
        execute(self.c, keep, &[&key.owner, &kind, &text(&key.key), &gate.on_time_at.map(At), &wake_at])
            .await?;
        Ok(Looked { free, passed_by })
    }

    /// The first runs that wait at a gate and are ready, the highest priority first; those of a trigger in the order
    /// of their times.
    async fn held(&self, gate: &GateKey, most: usize) -> Result<Vec<Held>, StoreError> {
        let columns = "id, gates, passed, hold, trigger_id, concurrency_key, available_at";
        let most = signed(most as u64);
        let found = match gate.kind {
            GateKind::Trigger => {
                let list = format!(
                    "SELECT {columns} FROM run WHERE hold = 1 AND trigger_id = $1 AND available_at <= $2
                     ORDER BY nominal_at, id LIMIT $3"
                );
                rows(self.c, &list, &[&gate.owner, &At(self.now), &most]).await?
            }
            GateKind::Key => {
                let list = by_priority(&format!(
                    "SELECT {columns} FROM run WHERE hold = 2 AND task_id = $1 AND priority = p::smallint
                         AND concurrency_key = $4 AND available_at <= $2 ORDER BY available_at, id LIMIT $3"
                ));
                rows(self.c, &list, &[&gate.owner, &At(self.now), &most, &gate.key]).await?
            }
            GateKind::Task => {
                let list = by_priority(&format!(
                    "SELECT {columns} FROM run WHERE hold = 4 AND task_id = $1 AND priority = p::smallint
                         AND available_at <= $2 ORDER BY available_at, id LIMIT $3"
                ));
                rows(self.c, &list, &[&gate.owner, &At(self.now), &most]).await?
            }
        };
        found.iter().map(read_held).collect()
    }

    /// Those of these runs that still wait and that nobody changes, locked, in the order given.
    async fn lock(&self, gate: &GateKey, runs: &[Held]) -> Result<Vec<Held>, StoreError> {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = runs.iter().map(|run| run.id.0).collect();
        let lock =
            "SELECT id FROM run WHERE id = ANY($1) AND hold = $2 ORDER BY id FOR NO KEY UPDATE SKIP LOCKED";
        let locked = rows(self.c, lock, &[&ids, &small(gate.kind.bit())]).await?;
        let locked: HashSet<Uuid> = locked.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        Ok(runs.iter().filter(|run| locked.contains(&run.id.0)).cloned().collect())
    }

    /// When the next one becomes ready that waits at a gate.
    async fn next_ready(&self, gate: &GateKey) -> Result<Option<Timestamp>, StoreError> {
        let next = |which: &str| {
            format!(
                "SELECT min(r.available_at) FROM generate_series(0, {PRIORITY_MAX}) AS p, LATERAL (
                     SELECT available_at FROM run WHERE {which} AND available_at > $2
                     ORDER BY available_at LIMIT 1) r"
            )
        };
        let found = match gate.kind {
            // By another host's clock it may have been ready when it was inserted.
            GateKind::Trigger => {
                let next = "SELECT min(available_at) FROM run WHERE hold = 1 AND trigger_id = $1 AND available_at > $2";
                row(self.c, next, &[&gate.owner, &At(self.now)]).await?
            }
            GateKind::Key => {
                let next =
                    next("hold = 2 AND task_id = $1 AND priority = p::smallint AND concurrency_key = $3");
                row(self.c, &next, &[&gate.owner, &At(self.now), &gate.key]).await?
            }
            GateKind::Task => {
                let next = next("hold = 4 AND task_id = $1 AND priority = p::smallint");
                row(self.c, &next, &[&gate.owner, &At(self.now)]).await?
            }
        };
        super::claim::instant(found)
    }
}

/// What a look at a gate came to.
struct Looked {
    /// Runs that can be claimed now.
    free: usize,
    /// Whether somebody else changes some that might have passed.
    passed_by: bool,
}

/// The first rows of what a query gives for each priority `p`, the highest first.
fn by_priority(of_one: &str) -> String {
    format!(
        "SELECT r.* FROM generate_series({PRIORITY_MAX}, 0, -1) AS p, LATERAL ({of_one}) r
         ORDER BY p DESC, r.available_at, r.id LIMIT $3"
    )
}

#[derive(Clone)]
struct Held {
    id: RunId,
    passage: Passage,
    trigger: Option<Uuid>,
    key: Option<String>,
    available_at: Timestamp,
}

fn read_held(row: &Row) -> Result<Held, StoreError> {
    Ok(Held {
        id: RunId(row.try_get(0)?),
        passage: read_passage(row, 1)?,
        trigger: row.try_get(4)?,
        key: row.try_get(5)?,
        available_at: row.try_get::<_, At>(6)?.0,
    })
}
