//! Which runs the next events start of a trigger. Nothing is remembered of events that wait to be gathered: they stay
//! after the cursor, and are looked at again when it is time, or when others have come.

use super::{Event, HostTopic, input};
use crate::expression::{Compiled, Expression, ExpressionError};
use crate::ids::{RunId, TaskId};
use crate::limits::{CAUSE_DEPTH_MAX, EVALUATIONS_WORK_MAX, EVENT_BATCH_BYTES_MAX, RUNS_PER_DECISION_MAX};
use crate::payload::Payload;
use crate::rule::{EventRule, Gather, Rule};
use crate::run::RunState;
use crate::time;
use crate::trigger::{SkipRange, SkipReason, TriggerSpec};
use jiff::Timestamp;
use std::sync::Arc;

/// A trigger with the events that come after its cursor.
#[derive(Debug, Clone, Copy)]
pub struct Waiting<'a> {
    pub spec: &'a TriggerSpec,
    /// The task that it comes after.
    pub after: Option<TaskId>,
    /// Events up to this instant came while it was paused.
    pub paused_through: Option<Timestamp>,
    pub cursor: u64,
    /// In order, without gaps from the cursor on, but for what isn't kept any more.
    pub events: &'a [Event],
    /// Whether there are more than these.
    pub more: bool,
    /// The sequence of the tenant's last event.
    pub head: u64,
    /// When what isn't kept any more was published at the latest.
    pub expired_at: Option<Timestamp>,
}

/// What becomes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// In the order of the events.
    pub items: Vec<Item>,
    /// Everything up to there is dealt with.
    pub cursor: u64,
    /// Everything up to there was looked at: it is time to look again when there is more.
    pub seen: u64,
    /// Or at this instant.
    pub look_at: Option<Timestamp>,
}

/// What becomes of one event, or of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Run(Delivered),
    Skip(SkipRange),
}

/// A run to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Unique in the trigger.
    pub occurrence: String,
    /// The time of its first event.
    pub from: Timestamp,
    /// The time of its last event.
    pub at: Timestamp,
    /// How many events it is of.
    pub count: u64,
    pub depth: u32,
    pub input: Given,
}

impl Delivered {
    /// Its events without a run.
    pub fn skipped(&self, reason: SkipReason) -> SkipRange {
        SkipRange { from: self.from, to: self.at, count: self.count, reason }
    }
}

/// What its input is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    Payload(Payload),
    /// The output of this run, which has succeeded.
    OutputOf(RunId),
}

/// A rule's expressions, read.
#[derive(Debug, Default)]
pub struct Deciders {
    filter: Option<Arc<Expression>>,
    input: Option<Arc<Expression>>,
}

impl Deciders {
    /// Reads those of a rule.
    pub fn read(rule: &Rule, compiled: &Compiled) -> Result<Self, ExpressionError> {
        let Rule::Event(rule) = rule else { return Ok(Self::default()) };
        let get = |text: &Option<String>, names: &'static [&'static str]| {
            let read = |text: &String| {
                // Rules are checked when they are made: a text that is known names only what it may.
                compiled.get(text, |text| Expression::parse(text, names))
            };
            text.as_ref().map(read).transpose()
        };
        Ok(Self {
            filter: get(&rule.filter, &input::EVENT_VARIABLES)?,
            input: get(&rule.input_from, rule.input_variables())?,
        })
    }
}

/// Decides. An event that the rule wants is in one run or one skip, in order, however many are looked at together; or
/// still after the cursor. Of a gathering that is longer than can be looked at together, those make a run of their own.
pub fn deliver(waiting: Waiting<'_>, deciders: &Deciders, now: Timestamp) -> Delivery {
    let first = waiting.events.first();
    let mut of = Delivering {
        waiting,
        deciders,
        items: Vec::new(),
        runs: 0,
        cursor: waiting.cursor,
        open: Vec::new(),
        open_bytes: 0,
        work: 0,
    };
    let until = first.map_or(waiting.head, |first| first.sequence - 1);
    let gap = until.saturating_sub(waiting.cursor);
    if let Some(at) = waiting.expired_at.filter(|_| gap > 0) {
        of.items.push(Item::Skip(SkipRange { from: at, to: at, count: gap, reason: SkipReason::Expired }));
        of.cursor += gap;
    }
    of.all(now)
}

struct Delivering<'a> {
    waiting: Waiting<'a>,
    deciders: &'a Deciders,
    items: Vec<Item>,
    runs: usize,
    /// Everything up to there is in `items`, or isn't wanted, while nothing is open.
    cursor: u64,
    /// What is gathered.
    open: Vec<&'a Event>,
    open_bytes: usize,
    /// What expressions have gone through.
    work: usize,
}

impl<'a> Delivering<'a> {
    fn all(mut self, now: Timestamp) -> Delivery {
        let gather = match &self.waiting.spec.rule {
            Rule::Event(rule) => rule.gather,
            Rule::Schedule(_) | Rule::After(_) | Rule::Webhook(_) => None,
        };
        let mut events = self.waiting.events;
        for (place, event) in events.iter().enumerate() {
            if self.work > EVALUATIONS_WORK_MAX {
                // The next decision goes on with this one.
                (events, self.waiting.more) = (&events[..place], true);
                break;
            }
            let wanted = self.wanted(event);
            if let Some(Ok(())) = wanted
                && self.ends_before(event, gather)
            {
                self.close(gather);
            }
            if self.runs == RUNS_PER_DECISION_MAX {
                return self.end(None);
            }
            match wanted {
                Some(Ok(())) => {
                    self.open.push(event);
                    self.open_bytes += event.data.bytes.len();
                    if self.is_full(gather) {
                        self.close(gather);
                        self.cursor = event.sequence;
                    }
                }
                // What is skipped doesn't wait for what is gathered: that is what came before it.
                Some(Err(reason)) => {
                    self.close(gather);
                    self.skip(event, event, 1, reason);
                    self.cursor = event.sequence;
                }
                None if self.open.is_empty() => self.cursor = event.sequence,
                None => {}
            }
        }
        let last = events.last().map_or(self.cursor, |last| last.sequence);
        let Some(ends_at) = self.ends_at(gather) else { return self.end(None) };
        let is_stuck = self.waiting.more && self.cursor <= self.waiting.cursor;
        if (ends_at <= now && !self.waiting.more) || is_stuck {
            self.close(gather);
            self.cursor = last;
            return self.end(None);
        }
        if self.waiting.more {
            return self.end(None);
        }
        let mut delivery = self.end(Some(ends_at));
        delivery.seen = last;
        delivery
    }

    fn end(self, look_at: Option<Timestamp>) -> Delivery {
        Delivery { items: self.items, cursor: self.cursor, seen: self.cursor, look_at }
    }

    /// Whether the rule wants it, and what keeps it from a run if so.
    fn wanted(&mut self, event: &Event) -> Option<Result<(), SkipReason>> {
        let Waiting { spec, after, paused_through, .. } = self.waiting;
        let matches = match &spec.rule {
            Rule::Event(rule) => rule.pattern.matches(&event.topic) && self.passes(event),
            Rule::After(rule) => event.ended.is_some_and(|ended| {
                let state = HostTopic::end_on(&event.topic);
                Some(ended.task) == after && state.is_some_and(|state| rule.when.includes(state))
            }),
            Rule::Schedule(_) | Rule::Webhook(_) => false,
        };
        if !matches || !spec.is_within_window(event.at) {
            return None;
        }
        Some(if paused_through.is_some_and(|end| event.at <= end) {
            Err(SkipReason::Paused)
        } else if event.depth >= CAUSE_DEPTH_MAX {
            Err(SkipReason::Loop)
        } else {
            Ok(())
        })
    }

    fn passes(&mut self, event: &Event) -> bool {
        let deciders = self.deciders;
        let Some(filter) = &deciders.filter else { return true };
        input::variables(event).is_some_and(|variables| filter.matches(&variables, &mut self.work))
    }

    /// When what is open ends by itself; none if nothing is.
    fn ends_at(&self, gather: Option<Gather>) -> Option<Timestamp> {
        let (first, last) = (self.open.first()?, self.open.last()?);
        Some(match gather {
            None => last.at,
            Some(Gather::Batch { wait, .. }) => time::after(first.at, wait),
            Some(Gather::Debounce { quiet, most }) => {
                time::after(last.at, quiet).min(time::after(first.at, most))
            }
        })
    }

    /// Whether what is open has ended when this event comes.
    fn ends_before(&self, event: &Event, gather: Option<Gather>) -> bool {
        let too_large = match gather {
            Some(Gather::Batch { .. }) => {
                self.open_bytes + event.data.bytes.len() > EVENT_BATCH_BYTES_MAX && !self.open.is_empty()
            }
            Some(Gather::Debounce { .. }) | None => false,
        };
        too_large || self.ends_at(gather).is_some_and(|ends_at| ends_at < event.at)
    }

    fn is_full(&self, gather: Option<Gather>) -> bool {
        match gather {
            None => true,
            Some(Gather::Batch { size, .. }) => self.open.len() >= size,
            Some(Gather::Debounce { .. }) => false,
        }
    }

    /// Makes a run of what is open.
    fn close(&mut self, gather: Option<Gather>) {
        let open = std::mem::take(&mut self.open);
        self.open_bytes = 0;
        let (Some(first), Some(last)) = (open.first(), open.last()) else { return };
        self.cursor = last.sequence;
        let is_batch = matches!(gather, Some(Gather::Batch { .. }));
        if !is_batch
            && let [older @ .., _] = open.as_slice()
            && let Some(newest) = older.last()
        {
            self.skip(first, newest, older.len() as u64, SkipReason::Superseded);
        }
        let used = if is_batch { &open[..] } else { &open[open.len() - 1..] };
        // Not the run that has ended: one that was retried ends again.
        let occurrence = format!("event/{}", first.sequence);
        let depth = used.iter().map(|event| event.depth).max().unwrap_or_default() + 1;
        let (first, count) = (used.first().copied().unwrap_or(last), used.len() as u64);
        match self.input(used, is_batch) {
            Some(input) => {
                self.runs += 1;
                let (from, at) = (first.at, last.at);
                self.items.push(Item::Run(Delivered { occurrence, from, at, count, depth, input }));
            }
            None => self.skip(first, last, count, SkipReason::NoInput),
        }
    }

    fn input(&mut self, used: &[&Event], is_batch: bool) -> Option<Given> {
        let spec = self.waiting.spec;
        match &spec.rule {
            Rule::Event(rule) => self.made(rule, used, is_batch).map(Given::Payload),
            _ => used.last().and_then(|event| {
                let ended = event.ended?;
                Some(match ended.state {
                    RunState::Succeeded => Given::OutputOf(ended.run),
                    // Which may have been retried since.
                    _ => Given::Payload(input::of_failure(event)),
                })
            }),
        }
    }

    fn made(&mut self, rule: &EventRule, used: &[&Event], is_batch: bool) -> Option<Payload> {
        let deciders = self.deciders;
        input::of(rule, deciders.input.as_deref(), used, is_batch, &mut self.work)
    }

    fn skip(&mut self, first: &Event, last: &Event, count: u64, reason: SkipReason) {
        let skip = SkipRange { from: first.at, to: last.at, count, reason };
        match self.items.last_mut() {
            Some(Item::Skip(before)) if before.reason == reason => {
                before.to = skip.to;
                before.count += count;
            }
            _ => self.items.push(Item::Skip(skip)),
        }
    }
}

#[cfg(test)]
mod tests;
