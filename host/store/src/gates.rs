//! How the numbers of gates change with the runs that pass them, for every driver alike. A driver gathers the changes
//! of its transaction, and writes them with the runs.

use innkeeper_domain::Timestamp;
use innkeeper_domain::expression::{Compiled, ExpressionError};
use innkeeper_domain::gate::{GateKind, GateSet, GateTerms, Hold, Passage, TaskGates};
use innkeeper_domain::ids::{TaskId, TenantId};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::task::TaskSpec;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use uuid::Uuid;

use crate::StoreError;

/// A gate's row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GateKey {
    /// Whose lock protects it.
    pub task: Uuid,
    pub kind: GateKind,
    /// The task, or the trigger.
    pub owner: Uuid,
    /// Empty but for keys.
    pub key: String,
}

/// How it changes.
#[derive(Debug, Clone)]
pub(crate) struct GateChange {
    pub tenant: Uuid,
    pub taken: i64,
    pub held: i64,
    /// The earliest time at which one of those is ready that begin to wait.
    pub ready_at: Option<Timestamp>,
    /// Of a gate that isn't there yet.
    pub terms: GateTerms,
}

/// Whose run it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gated<'a> {
    pub tenant: TenantId,
    pub task: TaskId,
    pub trigger: Option<Uuid>,
    pub key: Option<&'a str>,
}

/// All that a transaction changes.
#[derive(Debug, Default)]
pub(crate) struct GateChanges(pub BTreeMap<GateKey, GateChange>);

impl Gated<'_> {
    /// The run's gate of a kind.
    pub fn gate(&self, kind: GateKind) -> GateKey {
        let (owner, key) = match kind {
            GateKind::Trigger => (self.trigger.unwrap_or_default(), ""),
            GateKind::Key => (self.task.0, self.key.unwrap_or_default()),
            GateKind::Task => (self.task.0, ""),
        };
        GateKey { task: self.task.0, kind, owner, key: key.into() }
    }
}

impl GateChanges {
    /// A run goes from `before` to `after`; if it waits then, it is ready at `ready_at`. `gates` tells the terms of
    /// gates that may not be there yet.
    pub fn add(
        &mut self,
        of: &Gated,
        (before, after): (Passage, Passage),
        ready_at: Timestamp,
        gates: Option<&TaskGates>,
    ) {
        for kind in GateKind::ALL.iter().copied() {
            let (taken, held) = after.changes_since(before, kind);
            if (taken, held) == (0, 0) {
                continue;
            }
            let terms = match (kind, gates) {
                (GateKind::Trigger, _) => Some(GateTerms::ONE),
                (GateKind::Key | GateKind::Task, gates) => gates.and_then(|gates| gates.terms(kind)),
            };
            let change = self.entry(of, kind, terms.unwrap_or_default());
            change.taken += taken;
            change.held += held;
            if held > 0 {
                change.ready_at = Some(change.ready_at.map_or(ready_at, |at| at.min(ready_at)));
            }
        }
    }

    /// The change of a run's gate, which is nothing at first.
    pub fn entry(&mut self, of: &Gated, kind: GateKind, terms: GateTerms) -> &mut GateChange {
        let change = GateChange { tenant: of.tenant.0, taken: 0, held: 0, ready_at: None, terms };
        self.0.entry(of.gate(kind)).or_insert(change)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl GateChange {
    /// Whether it may leave nothing.
    pub fn may_empty(&self, kind: GateKind) -> bool {
        kind != GateKind::Task && (self.taken < 0 || self.held < 0)
    }
}

/// Keys' expressions, as they were read: reading one takes longer than evaluating it.
static KEYS: LazyLock<Compiled> = LazyLock::new(Compiled::default);

/// The gates of a task that says this.
pub(crate) fn task_gates(spec: &TaskSpec, paused: bool) -> Result<TaskGates, StoreError> {
    TaskGates::of(spec, paused, &KEYS)
        .map_err(|e: ExpressionError| StoreError::Corrupt(format!("a task's concurrency key: {e}")))
}

/// Where a new run of a task stands, and its key. A trigger's own runs may have to wait for each other.
pub(crate) fn begin(
    gates: &TaskGates,
    input: &Payload,
    waits_for_own: WaitsForOwn,
) -> (Passage, Option<String>) {
    let key = gates.key(input);
    let mut set = gates.gates(key.is_some());
    if waits_for_own == WaitsForOwn::Yes {
        set = set.with(GateKind::Trigger);
    }
    (Passage::begin(set), key)
}

/// Whether a run waits for its trigger's other runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitsForOwn {
    No,
    Yes,
}

/// Whether runs meet other limits by one than by the other.
pub(crate) fn limits_differ(one: &TaskSpec, other: &TaskSpec) -> bool {
    let limits =
        |spec: &TaskSpec| (spec.concurrency, spec.concurrency_key.clone(), spec.key_concurrency, spec.rate);
    limits(one) != limits(other)
}

/// Where a run stands when its task's gates have become these; its key as well.
pub(crate) fn regate(gates: &TaskGates, passage: Passage, key: Option<&str>, executes: bool) -> Passage {
    let own: GateSet = gates.gates(key.is_some());
    passage.regate(own, executes)
}

/// The same run as if it had to do with its trigger's gate alone.
pub(crate) fn only_trigger(passage: Passage) -> Passage {
    let passed = passage.passed.and(GateSet::NONE.with(GateKind::Trigger));
    let hold = match passage.hold {
        Hold::At(GateKind::Trigger) => passage.hold,
        Hold::Free | Hold::ByHand | Hold::At(_) => Hold::Free,
    };
    Passage { passed, hold, ..passage }
}
