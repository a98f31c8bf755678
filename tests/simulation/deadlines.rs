//! Holds runs against the deadlines of their tasks.

use crate::checker::{Rule, Troubles, Violation, show};
use crate::record::{Entry, Event};
use crate::state::State;
use crate::tasks;
use innkeeper_domain::component::Digest;
use innkeeper_domain::failure::FailureKind;
use innkeeper_domain::ids::RunId;
use innkeeper_domain::run::{Run, RunState};
use innkeeper_domain::time::{after, between};
use innkeeper_domain::{Timestamp, time};
use std::collections::HashMap;
use std::time::Duration;

/// How long after its deadline a run may not be over: hosts look now and then.
const LATE_MAX: Duration = Duration::from_secs(300);
/// What an attempt's end takes to be committed.
const COMMIT_MAX: Duration = Duration::from_secs(2);

/// What is wrong with deadlines.
pub fn check(entries: &[Entry], state: &State) -> Vec<Violation> {
    let (ended, begins, troubles) = (ends(entries), begins(entries), Troubles::of(entries));
    let mut found = Vec::new();
    for run in &state.runs {
        let spec = tasks::spec(run.task.as_str(), Digest([0; 32]));
        let due = run.nominal_at.max(run.created_at);
        let (start_by, end_by) =
            (spec.start_deadline.map(|late| after(due, late)), spec.deadline.map(|late| after(due, late)));
        let begins = begins.get(&run.id).map_or(&[][..], Vec::as_slice);
        let of_run = Timed { run, start_by, end_by, begins, ended: ended.get(&run.id).copied(), state };
        let wrong = of_run.wrong(&troubles);
        found.extend(
            wrong.map(|what| Violation { rule: Rule::Deadline, what: format!("{what}: {}", show(run)) }),
        );
    }
    found
}

/// When runs were over, by the last of their ends.
fn ends(entries: &[Entry]) -> HashMap<RunId, Timestamp> {
    let mut ends = HashMap::new();
    for Entry { at, event } in entries {
        match event {
            Event::Finished(lease, state) if state.is_final() => drop(ends.entry(lease.run).or_insert(*at)),
            Event::Runs(standings) => {
                for standing in standings.iter().filter(|standing| standing.state.is_final()) {
                    ends.entry(standing.run).or_insert(*at);
                }
            }
            _ => {}
        }
    }
    ends
}

/// When their attempts began by their hosts' clocks, and which these were.
fn begins(entries: &[Entry]) -> HashMap<RunId, Vec<(u32, Timestamp)>> {
    let mut begins: HashMap<RunId, Vec<(u32, Timestamp)>> = HashMap::new();
    for Entry { event, .. } in entries {
        if let Event::Claimed { by_clock, leases } = event {
            leases
                .iter()
                .for_each(|lease| begins.entry(lease.run).or_default().push((lease.attempt, *by_clock)));
        }
    }
    begins
}

struct Timed<'a> {
    run: &'a Run,
    start_by: Option<Timestamp>,
    end_by: Option<Timestamp>,
    begins: &'a [(u32, Timestamp)],
    ended: Option<Timestamp>,
    state: &'a State,
}

impl Timed<'_> {
    fn wrong(&self, troubles: &Troubles) -> Option<String> {
        let Self { run, start_by, end_by, .. } = *self;
        if (run.start_by, run.end_by) != (start_by, end_by) {
            return Some(format!("it is to begin by {:?} and to be over by {:?}", run.start_by, run.end_by));
        }
        let too_late = |(number, at): &&(u32, Timestamp)| {
            end_by.is_some_and(|by| *at >= by) || (*number == 1 && start_by.is_some_and(|by| *at > by))
        };
        if let Some((number, at)) = self.begins.iter().find(too_late) {
            return Some(format!("attempt {number} began at {at}"));
        }
        let kind = run.failure.as_ref().filter(|_| run.state == RunState::Failed).map(|failure| failure.kind);
        let early = |by: Option<Timestamp>| by.is_none_or(|by| run.finished_at.is_none_or(|at| at < by));
        // How long an attempt sleeps is decided before its clock is set.
        let may_be_early = end_by.is_some_and(|by| !troubles.well(run.created_at, by));
        match kind {
            Some(FailureKind::StartDeadline) if early(start_by) || !self.begins.is_empty() => {
                return Some("it has failed for its start deadline".into());
            }
            Some(FailureKind::Deadline) if early(end_by) && !may_be_early => {
                return Some("it has failed for its deadline".into());
            }
            _ => {}
        }
        // One that has not begun is over after its start deadline.
        let over_by = if self.begins.is_empty() { start_by.or(end_by) } else { end_by }?;
        self.late(over_by, troubles)
    }

    /// What is wrong if it was over too late though all was well.
    fn late(&self, by: Timestamp, troubles: &Troubles) -> Option<String> {
        let latest = time::after(by, LATE_MAX);
        if latest > self.state.settled_at || !troubles.well(self.run.created_at, latest) {
            return None;
        }
        let Some(ended) = self.ended else { return Some(format!("it is not over since {by}")) };
        let has_succeeded_late = self.run.state == RunState::Succeeded && between(by, ended) > COMMIT_MAX;
        (ended > latest || has_succeeded_late)
            .then(|| format!("it was over at {ended}, which was to be by {by}"))
    }
}
