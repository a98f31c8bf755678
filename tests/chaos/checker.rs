//! What must be true of every history and what it has led to. Pure: no clock, no network.

use crate::history::{Answer, Asked, History};
use crate::limits;
use crate::state::{AttemptSeen, Billed, RunSeen, State, TriggerSeen};
use innkeeper_domain::calendar::{Calendar, Schedule};
use innkeeper_domain::ids::RunId;
use innkeeper_domain::run::RunState;
use innkeeper_domain::{Timestamp, time};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

/// How long after it was asked a call may take place whose answer never came: its host may have been frozen.
const LATE_MAX: Duration = Duration::from_secs(10);

/// Which promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// An acknowledged start has its run.
    Acknowledged,
    /// A key names one run.
    OneRunPerKey,
    /// No run without somebody who asked for it.
    Asked,
    /// Every run ends.
    Ends,
    /// Attempts are numbered without gaps and follow each other.
    Attempts,
    /// One outcome, and it is the last attempt's.
    OneOutcome,
    /// What is recorded of an attempt was done by it.
    Fenced,
    /// A host that lost its leases commits nothing any more.
    LostHost,
    /// A run that was told to be cancelled stays so.
    Cancelled,
    /// A nominal time is accounted for once.
    OncePerNominalTime,
    /// Every nominal time is accounted for.
    EveryNominalTime,
    /// Nothing before its nominal time.
    NotEarly,
    /// After an acknowledged pause no run is created.
    Paused,
    /// A lost host's runs are taken up in time.
    TakenUp,
    /// Bills say what was done, no more and no less.
    Billed,
    /// Never more attempts of a task, or of a key, execute than may, on all hosts together.
    Limit,
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

/// How exact the checks can be.
#[derive(Debug, Clone, Copy)]
pub struct Exactness {
    /// How far the clocks of hosts and clients can be apart.
    pub clocks: Duration,
    /// Hosts can hand runs back, which leaves no attempt on record.
    pub handed_back: HandedBack,
    /// What a lease's length plus two seconds is, and a little for a busy machine.
    pub takeover: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandedBack {
    Never,
    Possible,
}

/// All violations; none is what is hoped for.
pub fn check(history: &History, state: &State, exactness: Exactness) -> Vec<Violation> {
    let mut check = Check { history, state, exactness, found: Vec::new() };
    check.starts();
    state.runs.iter().for_each(|run| check.run(run));
    check.lost_hosts();
    check.cancels();
    check.triggers();
    check.bills();
    check.found.extend(limits::check(&state.runs, exactness.clocks));
    check.found
}

/// How long it took until each lost attempt's run was taken up, from its host's loss.
pub fn takeovers(history: &History, state: &State) -> Vec<Duration> {
    let mut found = Vec::new();
    for run in state.runs.iter().filter(|run| !limits::has_limit(run)) {
        for (lost, next) in run.attempts.iter().zip(run.attempts.iter().skip(1)) {
            let loss = history.losses.iter().find(|loss| loss.host == lost.host);
            if let Some(loss) = loss.filter(|_| is_lost(lost)) {
                found.push(time::between(loss.at, next.started_at));
            }
        }
    }
    found.sort();
    found
}

fn is_lost(attempt: &AttemptSeen) -> bool {
    attempt.failure.as_deref() == Some("host-lost")
}

struct Check<'a> {
    history: &'a History,
    state: &'a State,
    exactness: Exactness,
    found: Vec<Violation>,
}

impl Check<'_> {
    fn fail(&mut self, rule: Rule, what: impl Into<String>) {
        self.found.push(Violation { rule, what: what.into() });
    }

    fn bills(&mut self) {
        let (billed, done) = (self.state.billed, Billed::of(&self.state.runs));
        if billed != done {
            self.fail(Rule::Billed, format!("{billed:?} is on the bills, and {done:?} was done"));
        }
    }

    fn starts(&mut self) {
        let by_id: HashMap<RunId, &RunSeen> = self.state.runs.iter().map(|run| (run.id, run)).collect();
        let mut by_key: HashMap<(&str, &str), RunId> = HashMap::new();
        for run in &self.state.runs {
            if let Some(key) = &run.key
                && let Some(other) = by_key.insert((&run.task, key), run.id)
            {
                self.fail(Rule::OneRunPerKey, format!("`{key}` has the runs {other} and {}", run.id));
            }
        }
        let mut may_be = HashSet::new();
        let mut told: HashMap<(&str, &str), RunId> = HashMap::new();
        for call in &self.history.starts {
            let key = (call.asked.task.as_str(), call.asked.key.as_str());
            match &call.answer {
                Answer::Refused(_) => {}
                Answer::Unknown(_) => drop(may_be.insert(key)),
                Answer::Acknowledged(id) => {
                    may_be.insert(key);
                    let run = by_id.get(id);
                    if run.is_none_or(|run| run.key.as_deref() != Some(&call.asked.key)) {
                        let at = call.answered_at;
                        self.fail(
                            Rule::Acknowledged,
                            format!("{id} ({key:?}) was acknowledged at {at}: {run:?}"),
                        );
                    }
                    if let Some(other) = told.insert(key, *id).filter(|other| other != id) {
                        self.fail(Rule::OneRunPerKey, format!("{key:?} was answered with {other} and {id}"));
                    }
                }
            }
        }
        for run in self.state.runs.iter().filter(|run| run.trigger.is_none()) {
            let key = (run.task.as_str(), run.key.as_deref().unwrap_or_default());
            if !may_be.contains(&key) {
                self.fail(Rule::Asked, format!("nobody has started {} ({key:?}), or it was refused", run.id));
            }
        }
    }

    fn run(&mut self, run: &RunSeen) {
        if !run.state.is_final() {
            self.fail(Rule::Ends, format!("{} is {}: {run:?}", run.id, run.state));
        }
        let mut last = 0;
        for attempt in &run.attempts {
            let gap = attempt.number != last + 1 && self.exactness.handed_back == HandedBack::Never;
            if attempt.number <= last || attempt.number > run.attempt || gap {
                self.fail(Rule::Attempts, format!("attempt {} after {last}: {run:?}", attempt.number));
            }
            last = attempt.number;
            let took = time::between(attempt.started_at, attempt.finished_at) + self.exactness.clocks;
            if attempt.wall > took {
                self.fail(Rule::Fenced, format!("attempt {last} took {:?} in less: {run:?}", attempt.wall));
            }
        }
        for (one, next) in run.attempts.iter().zip(run.attempts.iter().skip(1)) {
            if time::after(next.started_at, self.exactness.clocks) < one.finished_at {
                self.fail(Rule::Attempts, format!("attempt {} began too soon: {run:?}", next.number));
            }
            // One that was handed back in between has left no trace of when it took the run up.
            // One with a limit queues anew, and others may be before it.
            if is_lost(one) && next.number == one.number + 1 && !limits::has_limit(run) {
                self.taken_up(run, one, next);
            }
        }
        let successes = run.attempts.iter().filter(|attempt| attempt.failure.is_none());
        let successes: Vec<u32> = successes.map(|attempt| attempt.number).collect();
        let ended_by = (run.state == RunState::Succeeded).then_some(run.attempt);
        if successes != ended_by.into_iter().collect::<Vec<_>>() {
            self.fail(Rule::OneOutcome, format!("attempts {successes:?} succeeded: {run:?}"));
        }
        if run.state == RunState::Failed && last != run.attempt {
            self.fail(Rule::OneOutcome, format!("it has failed, and not its last attempt: {run:?}"));
        }
        if (run.state == RunState::Succeeded) != run.output.is_some() {
            self.fail(Rule::OneOutcome, format!("a success has an output, and nothing else has: {run:?}"));
        }
        self.fenced(run);
    }

    /// Where the output tells which attempt it is of.
    fn fenced(&mut self, run: &RunSeen) {
        let Some(told) = run.output.as_deref().and_then(|output| output.strip_prefix("attempt ")) else {
            return;
        };
        let last = run.attempts.last().map(|attempt| format!("{} on {}", attempt.number, attempt.host));
        if last.as_deref() != Some(told) {
            self.fail(Rule::Fenced, format!("the outcome is that of attempt {told}: {run:?}"));
        }
    }

    fn taken_up(&mut self, run: &RunSeen, lost: &AttemptSeen, next: &AttemptSeen) {
        let Some(loss) = self.history.losses.iter().find(|loss| loss.host == lost.host) else { return };
        let mut by = loss.by;
        for outage in &self.history.outages {
            if outage.from <= by && outage.to >= loss.at {
                by = by.max(time::after(outage.to, self.exactness.takeover));
            }
        }
        if next.started_at > by {
            self.fail(Rule::TakenUp, format!("{} was lost at {}, and is late: {run:?}", lost.host, loss.at));
        }
    }

    fn lost_hosts(&mut self) {
        let mut lost: HashMap<&str, Timestamp> = HashMap::new();
        let attempts =
            || self.state.runs.iter().flat_map(|run| run.attempts.iter().map(move |a| (run.id, a)));
        for (_, attempt) in attempts().filter(|(_, attempt)| is_lost(attempt)) {
            let at = lost.entry(&attempt.host).or_insert(attempt.finished_at);
            *at = attempt.finished_at.min(*at);
        }
        let late = |attempt: &AttemptSeen| {
            let at = lost.get(attempt.host.as_str());
            at.is_some_and(|at| attempt.finished_at > time::after(*at, self.exactness.clocks))
        };
        let late: Vec<_> = attempts().filter(|(_, attempt)| late(attempt)).collect();
        for (run, attempt) in late {
            let at = lost[attempt.host.as_str()];
            self.fail(Rule::LostHost, format!("{run}: {attempt:?}, and the host was lost at {at}"));
        }
    }

    fn cancels(&mut self) {
        let by_id: HashMap<RunId, &RunSeen> = self.state.runs.iter().map(|run| (run.id, run)).collect();
        for call in &self.history.cancels {
            let cancelled = call.answer == Answer::Acknowledged(true);
            let run = by_id.get(&call.asked);
            if cancelled && run.is_none_or(|run| run.state != RunState::Cancelled) {
                self.fail(
                    Rule::Cancelled,
                    format!("{} was cancelled by {}: {run:?}", call.asked, call.answered_at),
                );
            }
        }
    }

    fn triggers(&mut self) {
        let mut schedules: HashMap<&str, &Schedule> = HashMap::new();
        for call in &self.history.triggers {
            if let (name, Asked::Create(schedule)) = &call.asked {
                let there = self.state.triggers.iter().any(|trigger| trigger.name == *name);
                if matches!(call.answer, Answer::Acknowledged(())) && !there {
                    self.fail(Rule::Acknowledged, format!("trigger `{name}` is not there"));
                }
                schedules.insert(name, schedule);
            }
        }
        for trigger in &self.state.triggers {
            let Some(schedule) = schedules.get(trigger.name.as_str()) else {
                self.fail(Rule::Asked, format!("nobody has created trigger `{}`", trigger.name));
                continue;
            };
            let runs = self.state.runs.iter().filter(|run| run.trigger.as_ref() == Some(&trigger.name));
            let runs: Vec<&RunSeen> = runs.collect();
            self.accounts(trigger, &schedule.calendar().expect("a good schedule"), &runs);
            self.pauses(&trigger.name, &runs);
        }
    }

    /// Every nominal time is accounted for, once.
    fn accounts(&mut self, trigger: &TriggerSeen, calendar: &Calendar, runs: &[&RunSeen]) {
        let name = &trigger.name;
        let mut accounted: BTreeMap<Timestamp, u32> = BTreeMap::new();
        for run in runs {
            *accounted.entry(run.nominal_at).or_default() += 1;
            if run.created_at < run.nominal_at {
                self.fail(Rule::NotEarly, format!("`{name}`: {run:?}"));
            }
        }
        for skip in &trigger.skips {
            let before = time::before(skip.from, Duration::from_micros(1));
            let times: Vec<_> = calendar.times_after(before).take_while(|at| *at <= skip.to).collect();
            if times.len() as u64 != skip.count {
                self.fail(Rule::OncePerNominalTime, format!("`{name}`: {skip:?} are {} times", times.len()));
            }
            times.into_iter().for_each(|at| *accounted.entry(at).or_default() += 1);
        }
        let mut expected = calendar.times_after(trigger.created_at).peekable();
        let last = accounted.last_key_value().map_or(trigger.created_at, |(at, _)| *at);
        while let Some(at) = expected.next_if(|at| *at <= last.max(self.history.settled_at)) {
            match accounted.remove(&at) {
                Some(1) => {}
                Some(times) => {
                    self.fail(Rule::OncePerNominalTime, format!("`{name}` has {at} {times} times"));
                }
                None => self.fail(Rule::EveryNominalTime, format!("`{name}` doesn't account for {at}")),
            }
        }
        for at in accounted.keys() {
            self.fail(Rule::NotEarly, format!("`{name}` accounts for {at}, when it isn't due"));
        }
    }

    /// From the acknowledgement of a pause until somebody asks to resume, no run is created.
    fn pauses(&mut self, name: &str, runs: &[&RunSeen]) {
        let calls = self.history.triggers.iter().filter(|call| call.asked.0 == name);
        let calls: Vec<_> = calls.collect();
        for pause in &calls {
            if pause.asked.1 != Asked::Pause || !matches!(pause.answer, Answer::Acknowledged(())) {
                continue;
            }
            // A resume without an answer may have come late.
            let resumes = calls.iter().filter(|call| call.asked.1 == Asked::Resume);
            let may_end = resumes.filter(|call| match call.answer {
                Answer::Unknown(_) => time::after(call.asked_at, LATE_MAX) > pause.asked_at,
                _ => call.answered_at > pause.asked_at,
            });
            let until = may_end.map(|call| call.asked_at).min().unwrap_or(Timestamp::MAX);
            let since = time::after(pause.answered_at, self.exactness.clocks);
            for run in runs.iter().filter(|run| run.created_at > since && run.created_at < until) {
                self.fail(Rule::Paused, format!("`{name}` was paused by {}: {run:?}", pause.answered_at));
            }
        }
    }
}
