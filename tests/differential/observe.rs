//! What both stores must show at any time, and what must hold of it.

use crate::generate::upload_digests;
use crate::operation::{Operation, Step, TENANTS, TenantPlace};
use crate::side::Side;
use innkeeper_domain::Timestamp;
use innkeeper_domain::admit::{AdmissionState, FiringTerms, Standing, admit_firing};
use innkeeper_domain::bill::Bill;
use innkeeper_domain::gate::{GateKind, Hold};
use innkeeper_domain::ids::RunId;
use innkeeper_domain::limits::{STORED_BYTES_PER_EVENT, STORED_BYTES_PER_LINE, STORED_BYTES_PER_RUN};
use innkeeper_domain::name::Name;
use innkeeper_domain::quota::Quota;
use innkeeper_domain::run::{Run, RunEvent, RunState};
use innkeeper_domain::trigger::Trigger;
use innkeeper_store::{Advance, Page, RunFilter, StoreError, UsageFilter};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

/// Runs as they were seen last, to see that each only does what runs can.
#[derive(Default)]
pub struct Seen(HashMap<RunId, Run>);

const ALL: Page = Page { size: 100_000, after: None };

impl Side {
    pub async fn runs(&self, tenant: TenantPlace) -> Vec<Run> {
        let filter = RunFilter::default();
        self.store.run_list(self.tenants[tenant], filter, ALL).await.expect("runs").items
    }

    pub async fn triggers(&self, tenant: TenantPlace) -> Vec<Trigger> {
        self.store.trigger_list(self.tenants[tenant], None, None, ALL).await.expect("triggers").items
    }

    /// Everything that can be read, as text.
    pub async fn listing(&self, at: Step) -> String {
        let mut text = String::new();
        let mut add = async |operation: Operation| {
            let answer = self.apply(&Step { operation: operation.clone(), ..at }).await;
            // A page token's place in the text can't be compared, so pages are as large as they can be.
            writeln!(text, "{operation:?}\n{}", answer.text).expect("text");
        };
        let size = 1_000;
        for tenant in 0..TENANTS.len() {
            add(Operation::ComponentList { tenant, size }).await;
            add(Operation::TaskList { tenant, only: None, size }).await;
            for task in self.store.task_list(self.tenants[tenant], None, ALL).await.expect("tasks").items {
                add(Operation::TaskRevisions { tenant, name: task.name, size }).await;
            }
            add(Operation::TriggerList { tenant, task: None, only: None, size }).await;
            add(Operation::BackfillList { tenant, trigger: None, size }).await;
            add(Operation::EventsAfter { tenant, after: 0, limit: size }).await;
            add(Operation::SecretList { tenant, size }).await;
            add(Operation::HolidaysList { tenant, size }).await;
            add(Operation::TriggerPlans { tenant, task: None, only: None, size }).await;
            for trigger in self.triggers(tenant).await {
                add(Operation::TriggerSkips { tenant, name: trigger.name, size }).await;
            }
            for run in self.runs(tenant).await {
                add(Operation::RunGet { tenant, id: run.id }).await;
                add(Operation::RunLogs { tenant, id: run.id, after: (0, 0), limit: size }).await;
            }
        }
        add(Operation::TenantList { size }).await;
        add(Operation::TokenList { tenant: None, size }).await;
        let (tenant, outcome, since, until) = (None, None, None, None);
        add(Operation::AuditList { tenant, outcome, since, until, size }).await;
        add(Operation::HostList).await;
        add(Operation::TriggersNext).await;
        writeln!(text, "{:?}", self.bills().await).expect("text");
        text
    }

    async fn bills(&self) -> Vec<Bill> {
        let days = ("0001-01-01".parse().expect("a day"), "9999-12-31".parse().expect("a day"));
        let filter = UsageFilter { tenant: None, task: None, days };
        let mut bills = self.store.usage_list(filter, ALL).await.expect("bills").items;
        // As they are stored: the sign that takes a NUL's place in PostgreSQL is longer.
        bills.iter_mut().for_each(|bill| bill.used.log_bytes = 0);
        bills
    }

    /// The bytes that are said to be stored are those of the rows. Ends all uploads, for they can't be listed.
    pub async fn check_stored(&self) -> Result<(), String> {
        for (tenant, id) in self.tenants.iter().enumerate() {
            for digest in upload_digests() {
                self.store.upload_end(*id, digest).await.expect("an end");
            }
            let components = self.store.component_list(*id, ALL).await.expect("components").items;
            let mut sum: u64 = components.iter().map(|component| component.size).sum();
            for run in self.runs(tenant).await {
                let run = self.store.run_get(*id, run.id).await.expect("a run");
                let output = run.output.map_or(0, |output| output.bytes.len());
                sum += STORED_BYTES_PER_RUN + (run.input.bytes.len() + output) as u64;
                let log = self.store.run_logs(*id, run.id, (0, 0), usize::MAX).await.expect("a log");
                sum += log.iter().map(|line| STORED_BYTES_PER_LINE + line.text.len() as u64).sum::<u64>();
            }
            let events = self.store.events_after(*id, 0, usize::MAX >> 1).await.expect("events");
            sum += events
                .iter()
                .map(|event| STORED_BYTES_PER_EVENT + event.data.bytes.len() as u64)
                .sum::<u64>();
            let used = self.store.tenant_use(*id, Timestamp::UNIX_EPOCH).await.expect("what is used").0;
            if used.get(&Quota::StoredBytes) != Some(&sum) {
                return Err(format!("{sum} bytes are stored by the rows, and it says {used:?}"));
            }
        }
        Ok(())
    }

    /// The slots and the waiting of all gates are those of the runs.
    pub async fn check_gates(&self) -> Result<(), String> {
        for (place, tenant) in self.tenants.iter().enumerate() {
            let mut found: BTreeMap<_, (u64, u64)> = BTreeMap::new();
            for status in self.store.gates_list(*tenant, usize::MAX).await.expect("gates") {
                let sum = found.entry((status.kind, status.task, status.key)).or_default();
                *sum = (sum.0 + status.gate.taken, sum.1 + status.gate.held);
            }
            found.retain(|_, numbers| *numbers != (0, 0));
            let mut expected: BTreeMap<_, (u64, u64)> = BTreeMap::new();
            for run in self.runs(place).await.iter().filter(|run| !run.state.is_final()) {
                for kind in GateKind::ALL.iter().copied() {
                    let key = Some(&run.concurrency_key).filter(|_| kind == GateKind::Key);
                    let key = key.cloned().flatten().unwrap_or_default();
                    let (taken, held) = (run.passage.passed.has(kind), run.passage.hold == Hold::At(kind));
                    if taken || held {
                        let sum = expected.entry((kind, run.task_id, key)).or_default();
                        *sum = (sum.0 + u64::from(taken), sum.1 + u64::from(held));
                    }
                }
            }
            if found != expected {
                return Err(format!("gates have {found:?}, by the runs it is {expected:?}"));
            }
        }
        Ok(())
    }

    /// How many runs a decision is to create, from what can be seen before it.
    pub async fn expected(&self, advances: &[Advance]) -> u32 {
        let mut expected = 0;
        for tenant in 0..TENANTS.len() {
            for trigger in self.triggers(tenant).await {
                let decision = advances.iter().find(|advance| advance.id == trigger.id);
                let Some(decision) = decision.filter(|decision| trigger.next_at == Some(decision.due)) else {
                    continue;
                };
                let unfinished_of_trigger = self.unfinished(tenant, &trigger.name).await;
                let paused = self.store.fleet_paused().await.expect("an answer").is_some();
                let standing = Standing { paused, ..Standing::default() };
                let task = self.store.task_get(self.tenants[tenant], &trigger.task).await.expect("its task");
                let task_paused = task.paused.is_some();
                let state = AdmissionState {
                    unfinished_of_trigger,
                    tenant: standing,
                    task_paused,
                    ..AdmissionState::default()
                };
                let terms = FiringTerms::of(&trigger.spec, trigger.started);
                expected += admit_firing(terms, state, &decision.firing).runs.len() as u32;
            }
        }
        expected
    }

    /// No nominal time is both a run's and in a skip.
    pub async fn check_skips(&self) -> Result<(), String> {
        for tenant in 0..TENANTS.len() {
            let runs = self.runs(tenant).await;
            // Events can have the same time.
            let triggers = self.triggers(tenant).await.into_iter();
            for trigger in triggers.filter(|trigger| trigger.spec.rule.schedule().is_some()) {
                let skips = self.store.trigger_skips(self.tenants[tenant], &trigger.name, ALL).await;
                for skip in skips.expect("skips").items {
                    let is_in = |run: &&Run| skip.from <= run.nominal_at && run.nominal_at <= skip.to;
                    let own = runs.iter().filter(|run| run.trigger.as_ref() == Some(&trigger.name));
                    // A backfill is about just those.
                    let own = own.filter(|run| run.backfill.is_none());
                    // A trigger of that name that was deleted has left its runs.
                    let own = own.filter(|run| run.created_at >= trigger.created_at);
                    if let Some(run) = own.into_iter().find(is_in) {
                        return Err(format!("a run's time is skipped: {skip:?}, {run:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    async fn unfinished(&self, tenant: TenantPlace, trigger: &Name) -> u64 {
        let states = RunState::ALL.into_iter().filter(|state| !state.is_final()).collect();
        let filter = RunFilter { trigger: Some(trigger.clone()), states, ..RunFilter::default() };
        let runs: Result<_, StoreError> = self.store.run_list(self.tenants[tenant], filter, ALL).await;
        runs.expect("runs").items.iter().filter(|run| run.backfill.is_none()).count() as u64
    }
}

impl Seen {
    /// Looks at all runs of both sides after an operation: they are the same, and each has only done what it
    /// can do in one.
    pub async fn look(&mut self, left: &Side, right: &Side) -> Result<(), String> {
        let mut now = HashMap::new();
        for (tenant, of) in TENANTS.iter().enumerate() {
            let (runs, others) = (left.runs(tenant).await, right.runs(tenant).await);
            if let Some(what) = difference(&format!("{runs:?}"), &format!("{others:?}")) {
                return Err(format!("the runs of `{of}` differ: {what}"));
            }
            for run in runs {
                check(self.0.get(&run.id), &run)?;
                now.insert(run.id, run);
            }
        }
        let gone = self.0.values().find(|run| !run.state.is_final() && !now.contains_key(&run.id));
        if let Some(run) = gone {
            return Err(format!("an unfinished run is gone: {run:?}"));
        }
        self.0 = now;
        Ok(())
    }
}

fn check(before: Option<&Run>, run: &Run) -> Result<(), String> {
    let fail = |what: &str| Err(format!("{what}: {before:?}\nand then {run:?}"));
    if run.state.is_final() != run.finished_at.is_some() {
        return fail("a run has an end if it is over");
    }
    let Some(before) = before else {
        let is_new = run.state == RunState::Queued && run.attempt == 0 && run.started_at.is_none();
        return if is_new { Ok(()) } else { fail("a new run is queued") };
    };
    let events = [
        RunEvent::Claimed,
        RunEvent::AttemptSucceeded,
        RunEvent::AttemptFailed { again: true },
        RunEvent::AttemptFailed { again: false },
        RunEvent::AttemptCancelled,
        RunEvent::LeaseEnded { again: true },
        RunEvent::LeaseEnded { again: false },
        RunEvent::Cancelled,
        RunEvent::Expired,
        RunEvent::Reopened,
    ];
    let can_be = events.iter().any(|event| before.state.next(*event) == Ok(run.state));
    if before.state != run.state && !can_be {
        return fail("a run did what no run can do");
    }
    let claimed = before.state != RunState::Running && run.state == RunState::Running;
    if run.attempt != before.attempt + u32::from(claimed) {
        return fail("attempts are counted by claims");
    }
    let reopened = before.reopened_at != run.reopened_at;
    if !reopened
        && before.state.is_final()
        && (before.state, before.finished_at) != (run.state, run.finished_at)
    {
        return fail("a run that is over stays so");
    }
    let pinned = |run: &Run| (run.task_id, run.nominal_at, run.created_at, run.labels.to_string());
    if pinned(before) != pinned(run) || (!reopened && before.revision != run.revision) {
        return fail("a run is pinned to what it was created for");
    }
    Ok(())
}

/// Where two texts differ, with a little of what is around it; none if they don't.
pub fn difference(left: &str, right: &str) -> Option<String> {
    if left == right {
        return None;
    }
    // PostgreSQL's texts have no NUL: the sign for what can't be shown takes its place.
    let (left, right) = (left.replace("\\0", "\u{fffd}"), right.replace("\\0", "\u{fffd}"));
    if left == right {
        return None;
    }
    let same = left.chars().zip(right.chars()).take_while(|(one, other)| one == other).count();
    let around = |text: String| text.chars().skip(same.saturating_sub(200)).take(500).collect::<String>();
    Some(format!("\n  left:  ...{}\n  right: ...{}", around(left), around(right)))
}
