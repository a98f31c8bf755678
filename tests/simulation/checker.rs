//! What must be true of every seed. Pure: it looks at the record, at what there is in the end, and at when triggers
//! were due by a calendar of its own.

use crate::oracle::{Pattern, Watch};
use crate::plan::{MOVING_OFFSETS, Plan, PlannedTrigger, Times};
use crate::record::{Entry, Event};
use crate::state::{State, TriggerSeen};
use crate::tasks::LIMITED;
use crate::{deadlines, deliveries, limits, stub};
use innkeeper_domain::calendar::{BundledZones, Zones};
use innkeeper_domain::ids::{RunId, TriggerId};
use innkeeper_domain::limits::MISSED_AFTER;
use innkeeper_domain::name::Name;
use innkeeper_domain::run::{Lease, Run, RunState};
use innkeeper_domain::trigger::{CatchUp, OverlapPolicy, SkipReason, TriggerState};
use innkeeper_domain::{Timestamp, time};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

/// How late a run may be that nothing has kept from being on time.
const ON_TIME: Duration = Duration::from_secs(2);

/// Which promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// What people were told is so.
    Told,
    /// A nominal time is accounted for once.
    Once,
    /// Every nominal time is accounted for.
    Every,
    /// Nothing before its nominal time, and nothing that isn't due at all.
    NotEarly,
    /// A run is created within two seconds, unless something was amiss.
    OnTime,
    /// What was missed is caught up with as the trigger says, and skipped for a reason that there is.
    CatchUp,
    /// After an acknowledged pause or deletion no run is created.
    Paused,
    /// Runs of a trigger overlap no more than its policy allows, and begin in order if they wait for each other.
    Overlap,
    /// Never more attempts of a task, or of a key, execute than may; none begins while the task is paused.
    Limit,
    /// In no time do more attempts of a task begin than its rate gives.
    Rate,
    /// No attempt begins after its deadline, and no run is left after it; one that fails for it had it.
    Deadline,
    /// A run that no limit and no other run keeps from beginning begins, and what executes ends.
    Stuck,
    /// What a trigger follows is in one run of it, in the order of the commits, or in one skip record.
    Events,
    /// No commit under an old lease.
    Fenced,
    /// A process executes a run once at a time.
    ExecutedOnce,
    /// Every run ends.
    Ends,
}

#[derive(Debug, Clone)]
pub struct Violation {
    pub rule: Rule,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// All violations; none is what is hoped for.
pub fn check(plan: &Plan, entries: &[Entry], state: &State) -> Vec<Violation> {
    let mut check = Check {
        plan,
        entries,
        state,
        seen: Seen::of(entries),
        troubles: Troubles::of(entries),
        watches: HashMap::new(),
        found: vec![],
    };
    check.leases();
    check.executions();
    check.starts();
    check.runs();
    check.triggers();
    check.found.extend(limits::check(plan, entries, state));
    check.found.extend(deadlines::check(entries, state));
    check.found.extend(deliveries::check(plan, entries, state));
    check.found
}

/// From when to when things are not on time.
pub struct Troubles(Vec<(Timestamp, Timestamp)>);

impl Troubles {
    pub fn of(entries: &[Entry]) -> Self {
        let of = |entry: &Entry| match &entry.event {
            Event::Fault(fault) => Some(fault.trouble(entry.at)),
            _ => None,
        };
        Self(entries.iter().filter_map(of).collect())
    }

    /// Whether all was well from then on for a while.
    pub fn well(&self, from: Timestamp, to: Timestamp) -> bool {
        self.0.iter().all(|(begin, end)| to < *begin || from > *end)
    }

    /// Since when all is well now, but not before `since`; now, if it isn't.
    pub fn over_since(&self, since: Timestamp, now: Timestamp) -> Timestamp {
        let begun = self.0.iter().filter(|(begin, _)| *begin <= now).map(|(_, end)| *end);
        begun.max().map_or(since, |end| end.max(since)).min(now)
    }
}

struct Check<'a> {
    plan: &'a Plan,
    entries: &'a [Entry],
    state: &'a State,
    seen: Seen,
    troubles: Troubles,
    watches: HashMap<String, Watch>,
    found: Vec<Violation>,
}

/// The record, by what it is about. Places in it say what came before what.
#[derive(Default)]
struct Seen {
    /// Of each run of a trigger: where it was created, and what the deciding host's clock showed.
    created: HashMap<RunId, (usize, Timestamp)>,
    pauses: HashMap<TriggerId, Vec<usize>>,
    resumes: HashMap<TriggerId, Vec<usize>>,
    deletions: HashMap<TriggerId, usize>,
    told: HashSet<TriggerId>,
    paused_tasks: HashSet<Name>,
}

impl Seen {
    fn of(entries: &[Entry]) -> Self {
        let mut seen = Self::default();
        for (place, Entry { at, event }) in entries.iter().enumerate() {
            match event {
                Event::Advanced { by_clock, advances } => {
                    for run in advances.iter().flat_map(|advance| &advance.run_ids) {
                        seen.created.entry(*run).or_insert((place, *by_clock));
                    }
                }
                Event::PauseTold(trigger) => seen.pauses.entry(*trigger).or_default().push(place),
                Event::Resumed(trigger) => seen.resumes.entry(*trigger).or_default().push(place),
                Event::DeleteTold(trigger) => {
                    seen.deletions.insert(*trigger, place);
                }
                Event::CreateTold(trigger) => {
                    seen.told.insert(*trigger);
                }
                Event::Delivered(runs) => {
                    seen.created.extend(runs.iter().map(|run| (*run, (place, *at))));
                }
                Event::Tasks(tasks) => {
                    let paused = tasks.iter().filter(|task| task.is_paused);
                    seen.paused_tasks.extend(paused.map(|task| task.task.clone()));
                }
                _ => {}
            }
        }
        seen
    }
}

impl Check<'_> {
    fn fail(&mut self, rule: Rule, what: String) {
        self.found.push(Violation { rule, what });
    }

    /// Goes through all that hosts were given and committed.
    fn leases(&mut self) {
        let mut holders: HashMap<RunId, Lease> = HashMap::new();
        let mut gone = HashSet::new();
        let mut living = None;
        for Entry { at, event } in self.entries {
            match event {
                // Of one store there is one host: the others are lost when another begins.
                Event::HostStarted(host) => gone.extend(living.replace(*host)),
                Event::HostStopped(host) => drop(gone.insert(*host)),
                Event::Claimed { leases, .. } => {
                    holders.extend(leases.iter().map(|lease| (lease.run, *lease)))
                }
                Event::Finished(lease, _)
                    if holders.get(&lease.run) != Some(lease) || gone.contains(&lease.host) =>
                {
                    let holder = holders.get(&lease.run);
                    self.fail(
                        Rule::Fenced,
                        format!("at {at} {lease:?} was committed; the lease was {holder:?}"),
                    );
                }
                Event::Finished(lease, _) => drop(holders.remove(&lease.run)),
                _ => {}
            }
        }
    }

    fn executions(&mut self) {
        let mut executing: HashSet<(u32, RunId)> = HashSet::new();
        for Entry { at, event } in self.entries {
            match event {
                Event::ExecutionBegan { process, lease } if !executing.insert((*process, lease.run)) => {
                    self.fail(Rule::ExecutedOnce, format!("at {at} process {process} has {lease:?} twice"));
                }
                Event::ExecutionEnded { process, lease } => drop(executing.remove(&(*process, lease.run))),
                _ => {}
            }
        }
    }

    /// Of starts by hand: a key names one run, and it is there.
    fn starts(&mut self) {
        let mut by_key: HashMap<&str, RunId> = HashMap::new();
        let runs: HashSet<RunId> = self.state.runs.iter().map(|run| run.id).collect();
        for Entry { event, .. } in self.entries {
            let Event::StartTold { key, run } = event else { continue };
            if *by_key.entry(key).or_insert(*run) != *run || !runs.contains(run) {
                self.fail(
                    Rule::Told,
                    format!("key `{key}` is told to be run {run}, and was {:?}", by_key[&**key]),
                );
            }
        }
    }

    fn runs(&mut self) {
        for run in &self.state.runs {
            // One that a clock which was ahead has made ready for a time to come waits for it. Those with limits may be
            // many: whether they go on is seen where they are counted.
            if run.available_at <= self.state.settled_at && !run.state.is_final() && !self.may_wait(run) {
                self.fail(Rule::Ends, show(run));
            }
            let output =
                run.output.as_ref().map(|output| String::from_utf8_lossy(&output.bytes).into_owned());
            let attempt = run
                .attempts
                .last()
                .map(|last| stub::output(Lease { run: run.id, host: last.host, attempt: last.number }));
            if run.state == RunState::Succeeded
                && (output.is_none() || attempt.is_some_and(|a| Some(a) != output))
            {
                self.fail(Rule::Fenced, format!("{} has the output {output:?}", show(run)));
            }
        }
    }

    fn may_wait(&self, run: &Run) -> bool {
        let of_trigger = |name: &Name| self.plan.triggers.iter().find(|planned| planned.name == *name);
        let trigger = run.trigger.as_ref().and_then(of_trigger);
        let waits = trigger.is_some_and(|planned| planned.spec.overlap.waits());
        waits || LIMITED.contains(&run.task.as_str())
    }

    fn triggers(&mut self) {
        let mut by_trigger: HashMap<&Name, Vec<&Run>> = HashMap::new();
        for run in &self.state.runs {
            if let Some(trigger) = &run.trigger {
                by_trigger.entry(trigger).or_default().push(run);
            }
        }
        let there: HashSet<TriggerId> = self.state.triggers.iter().map(|seen| seen.trigger.id).collect();
        let missing =
            self.seen.told.iter().filter(|id| !there.contains(id) && !self.seen.deletions.contains_key(id));
        let missing: Vec<Violation> = missing
            .map(|id| Violation { rule: Rule::Told, what: format!("trigger {id} is not there") })
            .collect();
        self.found.extend(missing);
        for planned in &self.plan.triggers {
            let mut runs = by_trigger.remove(&planned.name).unwrap_or_default();
            runs.sort_by_key(|run| run.nominal_at);
            let Some(seen) = self.state.triggers.iter().find(|seen| seen.trigger.name == planned.name) else {
                continue;
            };
            self.stops(seen, &runs);
            match &planned.times {
                Times::Events(_) | Times::AfterSuccess(_) => continue,
                _ => self.reasons(planned, seen),
            }
            match &planned.times {
                Times::AfterRun(delay) => self.delays(*delay, seen, &runs),
                Times::EveryMovingDay { hour, minute } => self.days(*hour, *minute, seen, &runs),
                _ => {
                    let times = self.times(planned, seen.trigger.created_at);
                    self.accounts(seen, &runs, &times);
                    self.catches_up(planned, &runs, &times);
                }
            }
        }
    }

    /// When a trigger is due, from its creation to some time after all has settled.
    fn times(&mut self, planned: &PlannedTrigger, after: Timestamp) -> Vec<Timestamp> {
        // Clocks that are ahead can have gone through times that are still to come.
        let end = time::after(self.state.settled_at, Duration::from_secs(48 * 3600));
        let begin = self.plan.begin;
        let times = match &planned.times {
            Times::Pattern(pattern) => self.watch(pattern, begin, end).times(pattern, after),
            Times::Every { seconds, anchor } => {
                let at = |n: i64| {
                    Timestamp::from_second(anchor.as_second() + n * seconds).expect("a time of our days")
                };
                (1..).map(at).take_while(|at| *at <= end).filter(|at| *at > after).collect()
            }
            Times::Once(at) => Some(*at).into_iter().filter(|at| *at > after).collect(),
            Times::AfterRun(_) | Times::EveryMovingDay { .. } | Times::Events(_) | Times::AfterSuccess(_) => {
                Vec::new()
            }
        };
        let (start, end) = (planned.spec.not_before, planned.spec.not_after);
        let within =
            |at: &Timestamp| start.is_none_or(|start| *at >= start) && end.is_none_or(|end| *at <= end);
        times.into_iter().filter(within).collect()
    }

    fn watch(&mut self, pattern: &Pattern, begin: Timestamp, end: Timestamp) -> &Watch {
        // A clock that was behind when a trigger was created.
        let from = time::before(begin, Duration::from_secs(48 * 3600));
        self.watches
            .entry(pattern.zone.clone())
            .or_insert_with(|| Watch::new(&BundledZones.zone(&pattern.zone).expect("a zone"), from, end))
    }

    /// Every nominal time is accounted for, once.
    fn accounts(&mut self, seen: &TriggerSeen, runs: &[&Run], times: &[Timestamp]) {
        let name = &seen.trigger.name;
        let mut accounted: BTreeMap<Timestamp, u32> = BTreeMap::new();
        for run in runs {
            *accounted.entry(run.nominal_at).or_default() += 1;
            if run.created_at < run.nominal_at {
                self.fail(Rule::NotEarly, format!("`{name}`: {}", show(run)));
            }
        }
        for skip in &seen.skips {
            let skipped: Vec<_> = times.iter().filter(|at| (skip.from..=skip.to).contains(at)).collect();
            if skipped.len() as u64 != skip.count {
                self.fail(Rule::Once, format!("`{name}`: {skip:?} are {} times", skipped.len()));
            }
            skipped.into_iter().for_each(|at| *accounted.entry(*at).or_default() += 1);
        }
        let last = accounted.last_key_value().map(|(at, _)| *at);
        let had_all = seen.trigger.spec.max_runs.is_some_and(|most| seen.trigger.started >= most);
        let paused = matches!(seen.trigger.state, TriggerState::Paused { .. });
        let until = match (last, had_all || paused) {
            (None, true) => return,
            (Some(last), false) => last.max(self.state.settled_at),
            (Some(last), true) => last,
            (None, false) => self.state.settled_at,
        };
        for at in times.iter().take_while(|at| **at <= until) {
            match accounted.remove(at) {
                Some(1) => {}
                Some(often) => self.fail(Rule::Once, format!("`{name}` has {at} {often} times")),
                None => self.fail(
                    Rule::Every,
                    format!("`{name}` doesn't account for {at}: {}", seen.trigger.spec.rule),
                ),
            }
        }
        for at in accounted.keys() {
            self.fail(Rule::NotEarly, format!("`{name}` accounts for {at}, when it isn't due"));
        }
    }

    /// The runs that there are are those that the catch-up mode allows, and on time when they can be.
    fn catches_up(&mut self, planned: &PlannedTrigger, runs: &[&Run], times: &[Timestamp]) {
        let spec = &planned.spec;
        if runs.len() as u64 > spec.max_runs.unwrap_or(u64::MAX) {
            self.fail(Rule::CatchUp, format!("`{}` has {} runs", planned.name, runs.len()));
        }
        for run in runs {
            let Some(&(place, by_clock)) = self.seen.created.get(&run.id) else {
                self.fail(Rule::NotEarly, format!("nobody decided on {}", show(run)));
                continue;
            };
            if !spec.jitter.is_zero() {
                continue;
            }
            let late = time::between(run.nominal_at, by_clock);
            let following = times.iter().find(|at| **at > run.nominal_at);
            let allowed = match spec.catch_up {
                CatchUp::Latest => following.is_none_or(|at| *at > by_clock),
                CatchUp::All => true,
                CatchUp::None => late <= MISSED_AFTER,
            };
            if !allowed || late > spec.catch_up_window.max(MISSED_AFTER) {
                self.fail(
                    Rule::CatchUp,
                    format!("`{}` ({}): {} late: {}", planned.name, spec.catch_up, late.as_secs(), show(run)),
                );
            }
            let at = self.entries[place].at;
            if time::between(run.nominal_at, at) > ON_TIME
                && self.troubles.well(run.nominal_at, run.nominal_at)
            {
                self.fail(Rule::OnTime, format!("created at {at}: {}", show(run)));
            }
        }
    }

    fn reasons(&mut self, planned: &PlannedTrigger, seen: &TriggerSeen) {
        for skip in &seen.skips {
            let (spec, id) = (&planned.spec, seen.trigger.id);
            let possible = match skip.reason {
                SkipReason::Overlap => {
                    matches!(spec.overlap, OverlapPolicy::Skip | OverlapPolicy::BufferOne)
                }
                SkipReason::Superseded => {
                    spec.catch_up == CatchUp::Latest || spec.overlap == OverlapPolicy::CancelOther
                }
                SkipReason::QueueFull => spec.overlap == OverlapPolicy::BufferAll,
                SkipReason::Missed => spec.catch_up == CatchUp::None,
                SkipReason::TooLate => true,
                SkipReason::Paused => {
                    self.seen.resumes.contains_key(&id) || self.seen.paused_tasks.contains(&planned.task)
                }
                _ => false,
            };
            let by_outage =
                matches!(skip.reason, SkipReason::Superseded | SkipReason::Missed | SkipReason::TooLate);
            // Whether times between two ends were missed isn't known.
            let moves = matches!(planned.times, Times::EveryMovingDay { .. });
            let well = !moves && self.troubles.well(skip.from, time::after(skip.to, spec.jitter));
            if !possible || (by_outage && well) {
                self.fail(Rule::CatchUp, format!("`{}` has no reason for {skip:?}", planned.name));
            }
        }
    }

    /// From the acknowledgement of a pause until a resume takes place, no run is created; after a deletion, none ever.
    fn stops(&mut self, seen: &TriggerSeen, runs: &[&Run]) {
        let id = seen.trigger.id;
        let pauses = self.seen.pauses.get(&id).cloned().unwrap_or_default();
        let resumes = self.seen.resumes.get(&id).cloned().unwrap_or_default();
        let mut stops: Vec<(usize, usize)> = pauses
            .into_iter()
            .map(|pause| {
                (pause, resumes.iter().copied().find(|resume| *resume > pause).unwrap_or(usize::MAX))
            })
            .collect();
        stops.extend(self.seen.deletions.get(&id).map(|deletion| (*deletion, usize::MAX)));
        for run in runs {
            let place = self.seen.created.get(&run.id).map_or(0, |(place, _)| *place);
            if stops.iter().any(|(stop, end)| place > *stop && place < *end) {
                self.fail(Rule::Paused, format!("`{}`: {}", seen.trigger.name, show(run)));
            }
        }
    }

    /// A fixed delay is due so long after the end of each run, or after a decision that came to no run, and at no other
    /// time.
    fn delays(&mut self, delay: Duration, seen: &TriggerSeen, runs: &[&Run]) {
        let (name, id, spec) = (&seen.trigger.name, seen.trigger.id, &seen.trigger.spec);
        let due_after = |run: &Run| run.finished_at.map(|end| time::after(end, delay));
        let mut reckoned: HashSet<Timestamp> = runs.iter().filter_map(|run| due_after(run)).collect();
        for Entry { event, .. } in self.entries {
            let Event::Advanced { advances, .. } = event else { continue };
            let of_this = advances.iter().filter(|advance| advance.id == id);
            reckoned.extend(of_this.filter_map(|advance| Some(advance.firing.next?.nominal)));
        }
        let mut of_runs = BTreeSet::new();
        let first = runs.iter().min_by_key(|run| self.seen.created.get(&run.id)).map(|run| run.nominal_at);
        for run in runs {
            if !of_runs.insert(run.nominal_at) {
                self.fail(Rule::Once, format!("`{name}`: {}", show(run)));
            }
            let explained = Some(run.nominal_at) == first || reckoned.contains(&run.nominal_at);
            if run.created_at < run.nominal_at || !explained {
                self.fail(Rule::NotEarly, format!("`{name}`: {}", show(run)));
            }
        }
        let accounted = |at: &Timestamp| {
            of_runs.contains(at) || seen.skips.iter().any(|skip| (skip.from..=skip.to).contains(at))
        };
        let over = spec.max_runs.is_some_and(|most| seen.trigger.started >= most)
            || matches!(seen.trigger.state, TriggerState::Paused { .. });
        let newest = runs.iter().max_by_key(|run| self.seen.created.get(&run.id)).map(|run| run.id);
        for run in runs {
            let Some(due) = due_after(run) else { continue };
            let ended = spec.not_after.is_some_and(|end| due > end);
            let excused = Some(run.id) == newest && (over || ended || due > self.state.settled_at);
            if !excused && !accounted(&due) {
                self.fail(Rule::Every, format!("`{name}` is due at {due} after {}", show(run)));
            }
        }
    }

    /// Of a zone that moves: every day has its time once, whatever it was taken for.
    fn days(&mut self, hour: i8, minute: i8, seen: &TriggerSeen, runs: &[&Run]) {
        let name = &seen.trigger.name;
        let shown =
            |at: Timestamp, edition: usize| at.as_second() + i64::from(MOVING_OFFSETS[edition]) * 3600;
        // No edition is far enough from another to make it another day.
        let day = |at: Timestamp| shown(at, 0).div_euclid(86_400);
        let of_day = i64::from(hour) * 3600 + i64::from(minute) * 60;
        let mut accounted: BTreeMap<i64, u64> = BTreeMap::new();
        for run in runs {
            *accounted.entry(day(run.nominal_at)).or_default() += 1;
        }
        for skip in &seen.skips {
            let days = day(skip.from)..=day(skip.to);
            if days.clone().count() as u64 != skip.count {
                self.fail(Rule::Once, format!("`{name}`: {skip:?}"));
            }
            days.for_each(|day| *accounted.entry(day).or_default() += 1);
        }
        let passed = |at: Timestamp, edition: usize| {
            let shown = shown(at, edition);
            shown.div_euclid(86_400) - i64::from(shown.rem_euclid(86_400) < of_day)
        };
        let created = seen.trigger.created_at;
        // By one edition its first day's time may have passed when it was created, by another not.
        let certain =
            (0..MOVING_OFFSETS.len()).map(|edition| passed(created, edition)).max().expect("some") + 1;
        let possible =
            (0..MOVING_OFFSETS.len()).map(|edition| passed(created, edition)).min().expect("some") + 1;
        let last = match seen.trigger.state {
            TriggerState::Paused { .. } => i64::MIN,
            _ => passed(self.state.settled_at, self.state.edition),
        };
        let seen_last = accounted.last_key_value().map_or(last, |(day, _)| last.max(*day));
        for day in possible..=seen_last {
            match accounted.remove(&day) {
                Some(1) => {}
                None if day < certain => {}
                found => {
                    self.fail(Rule::Once, format!("`{name}` has day {day} {} times", found.unwrap_or(0)))
                }
            }
        }
        for day in accounted.into_keys() {
            self.fail(Rule::NotEarly, format!("`{name}` has day {day}"));
        }
    }
}

pub fn show(run: &Run) -> String {
    format!(
        "run {} of {}, nominal {}, created {}, {} after {} attempts",
        run.id, run.task, run.nominal_at, run.created_at, run.state, run.attempt
    )
}
