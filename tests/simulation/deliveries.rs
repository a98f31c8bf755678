//! Holds the runs of triggers that follow events, or other tasks' runs, against what happened.

use crate::checker::{Rule, Violation};
use crate::plan::{Plan, PlannedTrigger, Times};
use crate::record::{Entry, Event};
use crate::state::{State, TriggerSeen};
use crate::stub;
use innkeeper_domain::ids::{RunId, TriggerId};
use innkeeper_domain::name::Name;
use innkeeper_domain::rule::{Gather, Rule as TriggerRule};
use innkeeper_domain::run::{Run, RunState};
use innkeeper_domain::trigger::{OverlapPolicy, SkipReason};
use innkeeper_domain::{Timestamp, time};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Longer than events are ever gathered.
const GATHERED_MAX: Duration = Duration::from_secs(3_600);

/// What is wrong with deliveries.
pub fn check(plan: &Plan, entries: &[Entry], state: &State) -> Vec<Violation> {
    let mut check = Check { plan, entries, state, seen: Seen::of(entries), found: Vec::new() };
    check.published();
    for planned in &plan.triggers {
        let seen = state.triggers.iter().find(|seen| seen.trigger.name == planned.name);
        let happened = match &planned.times {
            Times::Events(_) => check.events(planned),
            Times::AfterSuccess(task) => check.successes(task),
            _ => continue,
        };
        if let Some(seen) = seen {
            check.trigger(planned, seen, &happened);
        }
    }
    check.found
}

/// Something that a trigger follows.
struct Happened {
    /// What its run's input names it by.
    key: String,
    /// When, if an event says so.
    at: Option<Timestamp>,
    /// Not before this place in the record.
    place: usize,
}

/// Places in the record.
#[derive(Default)]
struct Seen {
    asked: HashMap<String, usize>,
    told: HashSet<String>,
    created: HashMap<TriggerId, usize>,
    /// Of runs, by delivery and in its order.
    delivered: HashMap<RunId, (usize, usize)>,
    resumed: HashSet<TriggerId>,
    paused_tasks: HashSet<Name>,
}

impl Seen {
    fn of(entries: &[Entry]) -> Self {
        let mut seen = Self::default();
        for (place, Entry { event, .. }) in entries.iter().enumerate() {
            match event {
                Event::PublishAsked(id) => drop(seen.asked.insert(id.clone(), place)),
                Event::PublishTold(id) => drop(seen.told.insert(id.clone())),
                Event::CreateTold(trigger) => drop(seen.created.insert(*trigger, place)),
                Event::Resumed(trigger) => drop(seen.resumed.insert(*trigger)),
                Event::Tasks(tasks) => {
                    let paused = tasks.iter().filter(|task| task.is_paused);
                    seen.paused_tasks.extend(paused.map(|task| task.task.clone()));
                }
                Event::Delivered(runs) => {
                    let places = runs.iter().enumerate().map(|(of, run)| (*run, (place, of)));
                    seen.delivered.extend(places);
                }
                _ => {}
            }
        }
        seen
    }
}

struct Check<'a> {
    plan: &'a Plan,
    entries: &'a [Entry],
    state: &'a State,
    seen: Seen,
    found: Vec<Violation>,
}

impl Check<'_> {
    fn fail(&mut self, what: String) {
        self.found.push(Violation { rule: Rule::Events, what });
    }

    /// What was told to be published is there, once.
    fn published(&mut self) {
        let mut there: HashMap<&str, u32> = HashMap::new();
        self.state.events.iter().for_each(|event| *there.entry(&event.id).or_default() += 1);
        let told: Vec<_> =
            self.seen.told.iter().filter(|id| there.get(id.as_str()) != Some(&1)).cloned().collect();
        told.into_iter().for_each(|id| self.fail(format!("event `{id}` was told of, and isn't there once")));
    }

    /// The events that a trigger wants, in the order of their commits.
    fn events(&self, trigger: &PlannedTrigger) -> Vec<Happened> {
        let Times::Events(wanted) = &trigger.times else { return Vec::new() };
        let planned: HashMap<&str, _> =
            self.plan.events.iter().map(|event| (event.id.as_str(), event)).collect();
        let is_wanted = |id: &str| planned.get(id).is_some_and(|event| wanted.has(event));
        let events = self.state.events.iter().filter(|event| is_wanted(&event.id));
        let happened = events.map(|event| Happened {
            key: event.id.clone(),
            at: Some(event.at),
            place: self.seen.asked.get(&event.id).copied().unwrap_or_default(),
        });
        happened.collect()
    }

    /// The successes of a task's runs, in the order of their commits.
    fn successes(&self, task: &Name) -> Vec<Happened> {
        let of_task: HashSet<RunId> =
            self.state.runs.iter().filter(|run| run.task == *task).map(|run| run.id).collect();
        let ends = self.entries.iter().enumerate().filter_map(|(place, entry)| match &entry.event {
            Event::Finished(lease, RunState::Succeeded) if of_task.contains(&lease.run) => {
                Some(Happened { key: stub::output(*lease), at: None, place })
            }
            _ => None,
        });
        ends.collect()
    }

    fn trigger(&mut self, planned: &PlannedTrigger, seen: &TriggerSeen, happened: &[Happened]) {
        let name = &planned.name;
        let order: HashMap<&str, usize> =
            happened.iter().enumerate().map(|(place, one)| (one.key.as_str(), place)).collect();
        let mut runs: Vec<&Run> =
            self.state.runs.iter().filter(|run| run.trigger.as_ref() == Some(name)).collect();
        runs.sort_by_key(|run| self.seen.delivered.get(&run.id));
        let (mut have, mut last) = (HashSet::new(), 0);
        for run in runs {
            let keys = keys(run);
            if keys.is_empty() || !self.seen.delivered.contains_key(&run.id) {
                self.fail(format!("`{name}` has run {} for nothing", run.id));
            }
            for key in keys {
                match order.get(key.as_str()) {
                    None => {
                        self.fail(format!("`{name}` has run {} for `{key}`, which it doesn't want", run.id))
                    }
                    Some(place) if *place < last => {
                        self.fail(format!("`{name}` has run {} for `{key}` after later ones", run.id));
                    }
                    Some(place) => last = *place,
                }
                if !have.insert(key.clone()) {
                    self.fail(format!("`{name}` has two runs for `{key}`"));
                }
            }
        }
        let without: Vec<&Happened> = happened.iter().filter(|one| !have.contains(&one.key)).collect();
        self.skips(planned, seen, &without);
    }

    /// What has no run is in the trigger's skips, and nothing else is.
    fn skips(&mut self, planned: &PlannedTrigger, seen: &TriggerSeen, without: &[&Happened]) {
        let (name, id) = (&planned.name, seen.trigger.id);
        let created = self.seen.created.get(&id).copied().unwrap_or(usize::MAX - 1);
        let last = self.entries.partition_point(|entry| entry.at <= self.state.settled_at);
        // A clock that was ahead dates events: what is gathered then waits for that time.
        let is_due =
            |one: &Happened| one.at.is_none_or(|at| time::after(at, GATHERED_MAX) <= self.state.settled_at);
        let is_certain = |one: &Happened| (created + 1..last).contains(&one.place) && is_due(one);
        let certain: Vec<_> = without.iter().filter(|one| is_certain(one)).collect();
        let skipped: u64 = seen.skips.iter().map(|skip| skip.count).sum();
        if skipped < certain.len() as u64 || skipped > without.len() as u64 {
            let (certain, all) = (certain.len(), without.len());
            self.fail(format!("`{name}` skips {skipped}, and {certain} to {all} have no run"));
        }
        let is_skipped = |at: Timestamp| seen.skips.iter().any(|skip| (skip.from..=skip.to).contains(&at));
        for one in certain {
            if one.at.is_some_and(|at| !is_skipped(at)) {
                self.fail(format!("`{name}` has nothing for `{}`", one.key));
            }
        }
        for skip in &seen.skips {
            let overlap = planned.spec.overlap;
            let possible = match skip.reason {
                SkipReason::Overlap => matches!(overlap, OverlapPolicy::Skip | OverlapPolicy::BufferOne),
                SkipReason::Superseded => overlap == OverlapPolicy::CancelOther || debounces(planned),
                SkipReason::Paused => {
                    self.seen.resumed.contains(&id) || self.seen.paused_tasks.contains(&planned.task)
                }
                _ => false,
            };
            if !possible {
                self.fail(format!("`{name}` has no reason for {skip:?}"));
            }
        }
    }
}

fn debounces(planned: &PlannedTrigger) -> bool {
    matches!(&planned.spec.rule, TriggerRule::Event(rule) if matches!(rule.gather, Some(Gather::Debounce { .. })))
}

/// What a run's input says that it is for.
fn keys(run: &Run) -> Vec<String> {
    let id = |event: &serde_json::Value| event.get("id")?.as_str().map(String::from);
    match serde_json::from_slice(&run.input.bytes) {
        Ok(output @ serde_json::Value::String(_)) => vec![output.to_string()],
        Ok(event) => match event.get("events").and_then(|events| events.as_array()) {
            Some(events) => events.iter().filter_map(id).collect(),
            None => id(&event).into_iter().collect(),
        },
        Err(_) => Vec::new(),
    }
}
