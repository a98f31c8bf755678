//! Gates: what a run has to pass before it can be claimed, and how many may have passed at one time.
//!
//! A run passes its gates in order: its trigger's, its key's, its task's. It holds a slot of each from then on, though no
//! host has claimed it yet: of its key's and its task's until its attempt has ended, of its trigger's until it is over.
//! Nearly all runs have no gates.

use crate::expression::{Compiled, Expression, ExpressionError};
use crate::payload::Payload;
use crate::rate::Rate;
use crate::task::TaskSpec;
use crate::word::words;
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;

/// Whose gate it is, in the order in which runs pass them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GateKind {
    /// One run of the trigger at one time: overlap policies that let others wait.
    Trigger,
    /// So many runs at one time of a task with the same concurrency key.
    Key,
    /// So many runs of a task at one time, so many in some time, or none while it is paused.
    Task,
}

words!(GateKind, "a kind of gate", Trigger = "trigger", Key = "key", Task = "task");

impl GateKind {
    /// As stored in a run's row: one bit.
    pub fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Some gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GateSet(u8);

impl GateSet {
    pub const NONE: Self = Self(0);

    /// From the bits that are stored; others are left out.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & (GateKind::Trigger.bit() | GateKind::Key.bit() | GateKind::Task.bit()))
    }

    pub fn bits(self) -> u8 {
        self.0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn has(self, kind: GateKind) -> bool {
        self.0 & kind.bit() != 0
    }

    pub fn with(self, kind: GateKind) -> Self {
        Self(self.0 | kind.bit())
    }

    /// Those of both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    fn first_after(self, passed: Self) -> Option<GateKind> {
        GateKind::ALL.iter().copied().find(|kind| self.has(*kind) && !passed.has(*kind))
    }
}

impl FromIterator<GateKind> for GateSet {
    fn from_iter<I: IntoIterator<Item = GateKind>>(kinds: I) -> Self {
        kinds.into_iter().fold(Self::NONE, Self::with)
    }
}

/// What keeps a run from being claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hold {
    #[default]
    Free,
    /// It waits at this gate.
    At(GateKind),
    /// Somebody paused the run. Also while an attempt executes: then there is no other after it.
    ByHand,
}

/// [`Hold::ByHand`], as stored.
const BY_HAND: u8 = 8;

impl Hold {
    /// As stored: 0 free, a gate's bit, or 8.
    pub fn number(self) -> u8 {
        match self {
            Self::Free => 0,
            Self::At(kind) => kind.bit(),
            Self::ByHand => BY_HAND,
        }
    }

    /// [`number`](Self::number)'s inverse; a number that is none is by hand, so that nothing begins by mistake.
    pub fn from_number(number: u8) -> Self {
        let gate = GateKind::ALL.iter().copied().find(|kind| kind.bit() == number);
        match (number, gate) {
            (0, _) => Self::Free,
            (_, Some(kind)) => Self::At(kind),
            (_, None) => Self::ByHand,
        }
    }
}

/// Where an unfinished run stands among its gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passage {
    /// All that it has to pass.
    pub gates: GateSet,
    /// Those of which it holds a slot.
    pub passed: GateSet,
    pub hold: Hold,
}

impl Passage {
    /// That of a new run.
    pub fn begin(gates: GateSet) -> Self {
        Self { gates, passed: GateSet::NONE, hold: Hold::Free }.queued()
    }

    /// From how it is stored.
    pub fn from_stored(gates: u8, passed: u8, hold: u8) -> Self {
        let (gates, passed) = (GateSet::from_bits(gates), GateSet::from_bits(passed));
        Self { gates, passed, hold: Hold::from_number(hold) }
    }

    /// Whether limits have nothing to do with it.
    pub fn is_free(self) -> bool {
        self == Self::default()
    }

    /// It passes the gate that it waits at.
    pub fn pass(self) -> Self {
        match self.hold {
            Hold::At(kind) => Self { passed: self.passed.with(kind), ..self }.next(),
            Hold::Free | Hold::ByHand => self,
        }
    }

    /// It has no attempt any more and isn't over: it queues again, at its key's gate or its task's.
    pub fn queued(self) -> Self {
        Self { passed: self.passed.and(GateSet::NONE.with(GateKind::Trigger)), ..self }.next()
    }

    /// It is over.
    pub fn over(self) -> Self {
        Self { passed: GateSet::NONE, hold: Hold::Free, ..self }
    }

    /// Somebody pauses it. What executes keeps its slots.
    pub fn pause(self, executes: bool) -> Self {
        let held = Self { hold: Hold::ByHand, ..self };
        if executes { held } else { held.queued() }
    }

    /// Somebody resumes it; otherwise nothing changes.
    pub fn resume(self, executes: bool) -> Self {
        match self.hold {
            Hold::ByHand if executes => Self { hold: Hold::Free, ..self },
            Hold::ByHand => Self { hold: Hold::Free, ..self }.next(),
            Hold::Free | Hold::At(_) => self,
        }
    }

    /// Its task's limits have changed: its own gates are these now. What executes counts at once, what doesn't
    /// queues anew.
    pub fn regate(self, own: GateSet, executes: bool) -> Self {
        let of_trigger = GateSet::NONE.with(GateKind::Trigger);
        let gates = GateSet(self.gates.and(of_trigger).0 | own.0);
        let passed = self.passed.and(of_trigger);
        if executes {
            Self { gates, passed: GateSet(passed.0 | own.0), ..self }
        } else {
            Self { gates, passed, ..self }.next()
        }
    }

    fn next(self) -> Self {
        let hold = match self.hold {
            Hold::ByHand => Hold::ByHand,
            Hold::Free | Hold::At(_) => self.gates.first_after(self.passed).map_or(Hold::Free, Hold::At),
        };
        Self { hold, ..self }
    }

    /// How the numbers of a gate change when a run goes from `before` to this: slots that are taken, runs that wait.
    pub fn changes_since(self, before: Self, kind: GateKind) -> (i64, i64) {
        let change = |now: bool, then: bool| i64::from(now) - i64::from(then);
        (
            change(self.passed.has(kind), before.passed.has(kind)),
            change(self.hold == Hold::At(kind), before.hold == Hold::At(kind)),
        )
    }
}

/// How many a gate lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GateTerms {
    /// So many may hold a slot at one time; none: any number.
    pub most: Option<u32>,
    pub rate: Option<Rate>,
}

impl GateTerms {
    /// One at a time.
    pub const ONE: Self = Self { most: Some(1), rate: None };
}

/// A task's limits, as its runs meet them.
#[derive(Debug, Default)]
pub struct TaskGates {
    task: Option<GateTerms>,
    key: Option<(Arc<Expression>, GateTerms)>,
}

impl TaskGates {
    /// Those of a task that says this, and is paused or not. Paused, it lets nothing pass.
    pub fn of(spec: &TaskSpec, paused: bool, keys: &Compiled) -> Result<Self, ExpressionError> {
        let most = if paused { Some(0) } else { spec.concurrency };
        let has_task = most.is_some() || spec.rate.is_some();
        let key =
            spec.concurrency_key.as_deref().map(|key| keys.get(key, Expression::parse_key)).transpose()?;
        Ok(Self {
            task: has_task.then_some(GateTerms { most, rate: spec.rate }),
            key: key.map(|key| (key, GateTerms { most: Some(spec.key_concurrency), rate: None })),
        })
    }

    /// The key that a run with this input has, if any.
    pub fn key(&self, input: &Payload) -> Option<String> {
        self.key.as_ref().and_then(|(key, _)| key.key(input))
    }

    /// Whether runs have keys.
    pub fn has_keys(&self) -> bool {
        self.key.is_some()
    }

    /// The gates of a run with a key, or without.
    pub fn gates(&self, has_key: bool) -> GateSet {
        let key = (has_key && self.key.is_some()).then_some(GateKind::Key);
        key.into_iter().chain(self.task.is_some().then_some(GateKind::Task)).collect()
    }

    /// What a gate of this kind lets pass; none if there is none.
    pub fn terms(&self, kind: GateKind) -> Option<GateTerms> {
        match kind {
            GateKind::Trigger => Some(GateTerms::ONE),
            GateKind::Key => self.key.as_ref().map(|(_, terms)| *terms),
            GateKind::Task => self.task,
        }
    }
}

/// A gate as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gate {
    pub terms: GateTerms,
    /// Runs that hold a slot.
    pub taken: u64,
    /// Runs that wait.
    pub held: u64,
    /// See [`Rate::admit`].
    pub on_time_at: Option<Timestamp>,
}

impl Gate {
    /// How many of `wanted` runs may pass now.
    pub fn room(&self, now: Timestamp, wanted: usize) -> usize {
        let free = self.terms.most.map_or(u64::MAX, |most| u64::from(most).saturating_sub(self.taken));
        let wanted = usize::try_from(free).unwrap_or(usize::MAX).min(wanted);
        match self.terms.rate {
            None => wanted,
            Some(rate) => rate.room(self.on_time_at, now, wanted),
        }
    }

    /// So many pass; no more than there was [`room`](Self::room) for.
    pub fn pass(self, now: Timestamp, runs: usize) -> Self {
        let passed = runs as u64;
        let on_time_at = match self.terms.rate {
            Some(rate) if runs > 0 => Some(rate.take(self.on_time_at, now, passed)),
            _ => self.on_time_at,
        };
        Self { taken: self.taken + passed, held: self.held.saturating_sub(passed), on_time_at, ..self }
    }

    /// The instant to keep when so many of those that have passed last begin nothing, and wait again.
    pub fn on_time_without(&self, runs: usize) -> Option<Timestamp> {
        let rate = self.terms.rate?;
        self.on_time_at.map(|at| rate.give_back(at, runs as u64))
    }

    /// When it is worth looking at again if nobody gives a slot back: the earliest of those that wait is ready at
    /// `next_ready`.
    pub fn wake_at(&self, now: Timestamp, next_ready: Timestamp) -> Timestamp {
        let opens = self.terms.rate.map(|rate| rate.opens_at(self.on_time_at, now));
        opens.map_or(next_ready, |opens| opens.max(next_ready))
    }
}

/// What a run waits for, as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    /// Somebody to resume it.
    Hand,
    Gate(GateKind, Gate),
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hand => f.write_str("somebody to resume it: it is paused"),
            Self::Gate(GateKind::Trigger, _) => f.write_str("the trigger's run before it"),
            Self::Gate(kind, Gate { terms, taken, .. }) => match (terms.most, terms.rate) {
                (Some(0), _) => write!(f, "its {kind} to be resumed: it is paused"),
                (Some(most), _) if *taken >= u64::from(most) => {
                    write!(f, "its {kind}'s concurrency, {taken} of {most}")
                }
                (_, Some(rate)) => write!(f, "its {kind}'s rate, {rate}"),
                (_, None) => write!(f, "its turn at its {kind}'s limit"),
            },
        }
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
