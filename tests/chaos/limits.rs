//! Tasks with limits, and the attempts that are certain to have executed at the same time. Pure.

use crate::checker::{Rule, Violation};
use crate::state::{AttemptSeen, RunSeen};
use innkeeper_domain::Timestamp;
use innkeeper_domain::time::{after, before};
use std::collections::BTreeMap;
use std::time::Duration;

/// Of which so many execute at one time.
pub const SHARED: &str = "shared";
pub const SHARED_MOST: u32 = 3;
/// Of which so many execute at one time for the same customer.
pub const KEYED: &str = "keyed";
pub const KEYED_MOST: u32 = 1;
/// What tells a customer in an input, as a key.
pub const KEY: &str = "input.customer";

/// What a run shares with others, and how many of these may execute.
fn limit(run: &RunSeen) -> Option<(String, u32)> {
    match run.task.as_str() {
        SHARED => Some((SHARED.into(), SHARED_MOST)),
        KEYED => Some((format!("{KEYED} for {}", run.customer.as_ref()?), KEYED_MOST)),
        _ => None,
    }
}

/// Whether it may have to wait for others.
pub fn has_limit(run: &RunSeen) -> bool {
    limit(run).is_some()
}

/// When an attempt was certainly executing. It took so much of the time from its claim to its end, and where in it
/// isn't known: what waits for the store or is frozen takes longer. Of a lost one nothing is known.
fn core(attempt: &AttemptSeen, clocks: Duration) -> Option<(Timestamp, Timestamp)> {
    let (from, to) = (before(attempt.finished_at, attempt.wall), after(attempt.started_at, attempt.wall));
    let from = after(from, clocks);
    (from < to).then_some((from, to))
}

/// Where more executed at the same time than may.
pub fn check(runs: &[RunSeen], clocks: Duration) -> Vec<Violation> {
    let mut cores: BTreeMap<(String, u32), Vec<(Timestamp, Timestamp)>> = BTreeMap::new();
    for run in runs {
        if let Some(limit) = limit(run) {
            cores.entry(limit).or_default().extend(run.attempts.iter().filter_map(|one| core(one, clocks)));
        }
    }
    let mut found = Vec::new();
    for ((of, most), cores) in cores {
        let at_once = |at: Timestamp| cores.iter().filter(|(from, to)| (*from..*to).contains(&at)).count();
        let worst = cores.iter().map(|(from, _)| (at_once(*from), *from)).max();
        if let Some((executing, at)) = worst.filter(|(executing, _)| *executing > most as usize) {
            let what = format!("{executing} of {of} executed at {at}, of {most}");
            found.push(Violation { rule: Rule::Limit, what });
        }
    }
    found
}
