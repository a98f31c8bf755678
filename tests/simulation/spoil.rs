//! A good seed, spoilt: every way in which it can be bad must be found.

use crate::checker::Rule;
use crate::plan::{Plan, Times};
use crate::record::{Entry, Event};
use crate::state::State;
use crate::tasks::TaskLimits;
use innkeeper_domain::Timestamp;
use innkeeper_domain::failure::FailureKind;
use innkeeper_domain::ids::RunId;
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::run::{Run, RunState};
use innkeeper_domain::time::{after, before};
use innkeeper_domain::trigger::{OverlapPolicy, SkipReason};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// A seed that can be changed.
#[derive(Clone)]
pub struct Seed<'a> {
    pub plan: &'a Plan,
    pub entries: Vec<Entry>,
    pub state: State,
}

/// Spoils a seed; false if there is nothing in it that can be spoilt so.
type Spoil = fn(&mut Seed) -> bool;

pub const WAYS: [(Rule, Spoil); 35] = [
    (Rule::Told, |seed| {
        let told = seed.events(|event| matches!(event, Event::StartTold { .. }));
        let Some(Event::StartTold { key, run }) = told.first().cloned() else { return false };
        let other = seed.state.runs.iter().map(|run| run.id).find(|id| *id != run);
        other.map(|run| seed.add(Event::StartTold { key, run })).is_some()
    }),
    (Rule::Told, |seed| {
        let deleted = seed.events(|event| matches!(event, Event::DeleteTold(_)));
        let is_deleted =
            |id| deleted.iter().any(|event| matches!(event, Event::DeleteTold(other) if *other == id));
        let place = seed.state.triggers.iter().position(|seen| !is_deleted(seen.trigger.id));
        place.map(|place| seed.state.triggers.remove(place)).is_some()
    }),
    (Rule::Once, |seed| {
        let twice = seed.scheduled().first().map(|place| seed.state.runs[*place].clone());
        twice.map(|run| seed.state.runs.push(run)).is_some()
    }),
    (Rule::Once, |seed| {
        let skip =
            seed.state.triggers.iter_mut().filter(|seen| is_scheduled(seed.plan, seen.trigger.name.as_str()));
        let skip = skip.flat_map(|seen| &mut seen.skips).next();
        skip.map(|skip| skip.count += 1).is_some()
    }),
    (Rule::Every, |seed| {
        // Not the last one of its trigger.
        let places = seed.scheduled();
        let later = |run: &Run| {
            places.iter().any(|other| {
                let other = &seed.state.runs[*other];
                other.trigger == run.trigger && other.nominal_at > run.nominal_at
            })
        };
        let place = places.iter().copied().find(|place| later(&seed.state.runs[*place]));
        place.map(|place| seed.state.runs.remove(place)).is_some()
    }),
    (Rule::NotEarly, |seed| seed.change(|run| run.created_at = before(run.nominal_at, SECOND))),
    (Rule::NotEarly, |seed| seed.change(|run| run.nominal_at = before(run.nominal_at, SECOND))),
    (Rule::NotEarly, |seed| seed.change(|run| run.id = RunId(uuid::Uuid::nil()))),
    (Rule::OnTime, |seed| {
        // Whether it could have been on time is the checker's to know: all are late.
        seed.entries.iter_mut().for_each(|entry| entry.at = after(entry.at, 5 * SECOND));
        true
    }),
    (Rule::CatchUp, |seed| {
        seed.entries.iter_mut().for_each(|entry| {
            if let Event::Advanced { by_clock, .. } = &mut entry.event {
                *by_clock = after(*by_clock, 86_400 * SECOND);
            }
        });
        true
    }),
    (Rule::CatchUp, |seed| {
        let scheduled =
            seed.state.triggers.iter_mut().filter(|seen| is_scheduled(seed.plan, seen.trigger.name.as_str()));
        let skip = scheduled.flat_map(|seen| &mut seen.skips).next();
        skip.map(|skip| skip.reason = SkipReason::Quota).is_some()
    }),
    (Rule::Paused, |seed| seed.stop(Event::PauseTold)),
    (Rule::Paused, |seed| seed.stop(Event::DeleteTold)),
    (Rule::Overlap, |seed| seed.never_end(OverlapPolicy::Skip)),
    (Rule::Overlap, |seed| seed.never_end(OverlapPolicy::BufferOne)),
    (Rule::Overlap, |seed| seed.never_end(OverlapPolicy::BufferAll)),
    (Rule::Overlap, |seed| seed.never_end(OverlapPolicy::CancelOther)),
    (Rule::Overlap, |seed| seed.never_cancel()),
    (Rule::Limit, |seed| seed.limit(|limits| limits.concurrency = limits.concurrency.map(|_| 0))),
    (Rule::Limit, |seed| seed.limit(|limits| limits.key_concurrency = limits.key_concurrency.map(|_| 0))),
    (Rule::Limit, |seed| seed.limit(|limits| limits.is_paused = true)),
    (Rule::Rate, |seed| seed.limit(|limits| limits.rate = limits.rate.as_ref().map(|_| "1/d".into()))),
    (Rule::Deadline, |seed| seed.by_clock(|at| after(at, 3_600 * SECOND))),
    (Rule::Deadline, |seed| {
        let timed = seed.state.runs.iter_mut().filter(|run| run.end_by.is_some());
        timed.map(|run| run.end_by = None).count() > 0
    }),
    (Rule::Deadline, |seed| {
        let failed = |run: &&mut Run| {
            run.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::StartDeadline)
        };
        let failed = seed.state.runs.iter_mut().filter(failed);
        failed.map(|run| run.finished_at = Some(run.created_at)).count() > 0
    }),
    (Rule::Stuck, |seed| seed.never_begin("paired")),
    (Rule::Stuck, |seed| {
        // No attempt ever ends.
        seed.forget_ends(|_| true);
        true
    }),
    (Rule::Events, |seed| {
        let twice = seed.of_follower().first().map(|place| seed.state.runs[*place].clone());
        twice.map(|run| seed.state.runs.push(run)).is_some()
    }),
    (Rule::Events, |seed| {
        let places = seed.of_follower();
        let place = places.get(places.len() / 2).copied();
        place.map(|place| seed.state.runs.remove(place)).is_some()
    }),
    (Rule::Events, |seed| {
        let mut places = seed.of_follower().into_iter();
        let Some((one, other)) = places.next().zip(places.next_back()) else { return false };
        let input = seed.state.runs[one].input.clone();
        let other = std::mem::replace(&mut seed.state.runs[other].input, input);
        seed.state.runs[one].input = other;
        true
    }),
    (Rule::Events, |seed| {
        let told = seed.events(|event| matches!(event, Event::PublishTold(_)));
        let Some(Event::PublishTold(id)) = told.into_iter().next() else { return false };
        let place = seed.state.events.iter().position(|event| event.id == id);
        place.map(|place| seed.state.events.remove(place)).is_some()
    }),
    (Rule::Fenced, |seed| {
        let finished = seed.events(|event| matches!(event, Event::Finished(..)));
        finished.first().cloned().map(|finish| seed.add(finish)).is_some()
    }),
    (Rule::Fenced, |seed| {
        let run = seed.state.runs.iter_mut().find(|run| run.state == RunState::Succeeded);
        run.map(|run| run.output = Some(Payload::json("another host's"))).is_some()
    }),
    (Rule::ExecutedOnce, |seed| {
        let place = seed.entries.iter().position(|entry| matches!(entry.event, Event::ExecutionBegan { .. }));
        place.map(|place| seed.entries.insert(place, seed.entries[place].clone())).is_some()
    }),
    (Rule::Ends, |seed| {
        // Whether one may wait is the checker's to know: none has ended.
        seed.state.runs.iter_mut().for_each(|run| run.state = RunState::Running);
        true
    }),
];

const SECOND: Duration = Duration::from_secs(1);

/// Whether a trigger's times are known beforehand.
fn is_scheduled(plan: &Plan, name: &str) -> bool {
    let planned = plan.triggers.iter().find(|planned| planned.name.as_str() == name);
    planned.is_some_and(|planned| matches!(planned.times, Times::Pattern(_) | Times::Every { .. }))
}

impl Seed<'_> {
    fn add(&mut self, event: Event) {
        let at = self.entries.last().map_or(self.plan.begin, |entry| entry.at);
        self.entries.push(Entry { at, event });
    }

    fn events(&self, which: impl Fn(&Event) -> bool) -> Vec<Event> {
        self.entries.iter().map(|entry| &entry.event).filter(|event| which(event)).cloned().collect()
    }

    /// A run of a trigger with this policy that has a run after it is never over.
    fn never_end(&mut self, overlap: OverlapPolicy) -> bool {
        let of_policy = |run: &Run| {
            let mut triggers = self.plan.triggers.iter();
            triggers.any(|one| Some(&one.name) == run.trigger.as_ref() && one.spec.overlap == overlap)
        };
        let followed = |run: &Run| {
            let mut runs = self.state.runs.iter();
            runs.any(|other| other.trigger == run.trigger && other.id > run.id && other.attempt > 0)
        };
        let found = self.state.runs.iter().find(|run| of_policy(run) && followed(run) && run.attempt > 0);
        let id = found.map(|run| run.id);
        id.map(|id| self.forget_ends(|run| run == id)).is_some()
    }

    fn forget_ends(&mut self, of: impl Fn(RunId) -> bool) {
        self.entries.retain_mut(|entry| match &mut entry.event {
            Event::Finished(lease, state) => !of(lease.run) || !state.is_final(),
            Event::Runs(standings) => {
                standings.retain(|standing| !of(standing.run) || !standing.state.is_final());
                true
            }
            _ => true,
        });
    }

    /// Of a task's runs nobody has heard again since their creation.
    fn never_begin(&mut self, task: &str) -> bool {
        let of_task = self.state.runs.iter().filter(|run| run.task.as_str() == task);
        let of_task: HashSet<RunId> = of_task.map(|run| run.id).collect();
        let mut created = HashSet::new();
        self.entries.retain_mut(|entry| match &mut entry.event {
            Event::Finished(lease, _) => !of_task.contains(&lease.run),
            Event::Claimed { leases, .. } => {
                leases.retain(|lease| !of_task.contains(&lease.run));
                true
            }
            Event::Runs(standings) => {
                standings.retain(|standing| !of_task.contains(&standing.run) || created.insert(standing.run));
                true
            }
            _ => true,
        });
        !of_task.is_empty()
    }

    /// The places of runs of a trigger that follows events, without gathering them.
    fn of_follower(&self) -> Vec<usize> {
        let follows = |run: &Run| {
            let mut triggers = self.plan.triggers.iter();
            triggers.any(|one| {
                Some(&one.name) == run.trigger.as_ref() && matches!(one.times, Times::AfterSuccess(_))
            })
        };
        let runs = self.state.runs.iter().enumerate();
        let all: Vec<_> = runs.filter(|(_, run)| follows(run)).collect();
        let first = all.first().and_then(|(_, run)| run.trigger.clone());
        all.into_iter().filter(|(_, run)| run.trigger == first).map(|(place, _)| place).collect()
    }

    /// No run was ever to be cancelled, though the one that came with it took its place.
    fn never_cancel(&mut self) -> bool {
        let triggers = self.plan.triggers.iter();
        let cancel_others: HashSet<&Name> = triggers
            .filter(|one| one.spec.overlap == OverlapPolicy::CancelOther)
            .map(|one| &one.name)
            .collect();
        let runs = self.state.runs.iter();
        let of_them: HashMap<RunId, &Name> =
            runs.filter_map(|run| Some((run.id, *cancel_others.get(run.trigger.as_ref()?)?))).collect();
        let mut are_cancelled = false;
        for entry in &mut self.entries {
            let Event::Runs(standings) = &mut entry.event else { continue };
            let live = standings.iter().filter(|standing| !standing.state.is_final());
            let live: Vec<(&Name, bool)> =
                live.filter_map(|one| Some((*of_them.get(&one.run)?, one.is_cancelled))).collect();
            are_cancelled |=
                live.iter().any(|(trigger, is_cancelled)| *is_cancelled && live.contains(&(*trigger, false)));
            standings.iter_mut().for_each(|standing| standing.is_cancelled = false);
        }
        are_cancelled
    }

    fn limit(&mut self, change: impl Fn(&mut TaskLimits)) -> bool {
        self.entries.iter_mut().for_each(|entry| {
            if let Event::Tasks(tasks) = &mut entry.event {
                tasks.iter_mut().for_each(&change);
            }
        });
        true
    }

    fn by_clock(&mut self, change: impl Fn(Timestamp) -> Timestamp) -> bool {
        self.entries.iter_mut().for_each(|entry| {
            if let Event::Claimed { by_clock, .. } = &mut entry.event {
                *by_clock = change(*by_clock);
            }
        });
        true
    }

    /// Where in the record it was created.
    fn created(&self, run: &Run) -> Option<usize> {
        self.entries.iter().position(|entry| match &entry.event {
            Event::Advanced { advances, .. } => {
                advances.iter().any(|advance| advance.run_ids.contains(&run.id))
            }
            _ => false,
        })
    }

    /// The places of runs whose triggers are there, with times that are known beforehand.
    fn scheduled(&self) -> Vec<usize> {
        let there = |run: &Run| {
            self.state.triggers.iter().any(|seen| Some(&seen.trigger.name) == run.trigger.as_ref())
        };
        let is_one = |run: &Run| {
            there(run) && run.trigger.as_ref().is_some_and(|name| is_scheduled(self.plan, name.as_str()))
        };
        let runs = self.state.runs.iter().enumerate();
        runs.filter(|(_, run)| is_one(run)).map(|(place, _)| place).collect()
    }

    /// Changes one of those runs.
    fn change(&mut self, change: impl Fn(&mut Run)) -> bool {
        let place = self.scheduled().first().copied();
        place.map(|place| change(&mut self.state.runs[place])).is_some()
    }

    /// Tells of a pause, or a deletion, just before one of those runs was created.
    fn stop(&mut self, told: impl Fn(innkeeper_domain::ids::TriggerId) -> Event) -> bool {
        let Some(run) = self.scheduled().first().map(|place| self.state.runs[*place].clone()) else {
            return false;
        };
        let trigger =
            self.state.triggers.iter().find(|seen| Some(&seen.trigger.name) == run.trigger.as_ref());
        let Some((trigger, place)) = trigger.zip(self.created(&run)) else { return false };
        let entry = Entry { at: self.entries[place].at, event: told(trigger.trigger.id) };
        self.entries.insert(place, entry);
        true
    }
}
