//! Goes through the record with a list of the runs that aren't over, and holds them against limits and overlap
//! policies in their plainest words. It knows nothing of gates.

use crate::checker::{Rule, Troubles, Violation, show};
use crate::observer::Standing;
use crate::plan::{Fault, Plan};
use crate::record::{Entry, Event};
use crate::state::State;
use crate::tasks::TaskLimits;
use innkeeper_domain::ids::RunId;
use innkeeper_domain::limits::BUFFERED_RUNS_MAX;
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::run::{Lease, Run, RunState};
use innkeeper_domain::trigger::OverlapPolicy;
use innkeeper_domain::{Timestamp, time};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

/// How long a run may wait that nothing keeps from beginning, while nobody else of its task begins.
const PATIENCE: Duration = Duration::from_secs(2_400);
/// How long an attempt may execute: longer than any timeout.
const EXECUTES_MAX: Duration = Duration::from_secs(2 * 3_600);
/// When nothing has happened for so long, nothing is just about to.
const STILL: Duration = Duration::from_secs(10);
/// Attempts that a host executes at one time.
pub const CAPACITY: u32 = 64;

/// What is wrong with limits and overlaps.
pub fn check(plan: &Plan, entries: &[Entry], state: &State) -> Vec<Violation> {
    let mut sweep = Sweep {
        policies: plan.triggers.iter().map(|one| (&one.name, one.spec.overlap)).collect(),
        runs: state.runs.iter().map(|run| (run.id, run)).collect(),
        troubles: Troubles::of(entries),
        clocks: wrong_clocks(entries),
        tasks: HashMap::new(),
        live: BTreeMap::new(),
        begins: HashMap::new(),
        idle: HashMap::new(),
        stuck: HashSet::new(),
        found: Vec::new(),
    };
    for (place, entry) in entries.iter().enumerate() {
        sweep.go(entry);
        let next = entries.get(place + 1).map_or(state.settled_at, |next| next.at);
        if time::between(entry.at, next) >= STILL {
            sweep.look_for_stuck(entry.at, next);
        }
    }
    sweep.found
}

/// From when to when a host's clock was wrong.
fn wrong_clocks(entries: &[Entry]) -> Vec<(Timestamp, Timestamp)> {
    let of = |entry: &Entry| match &entry.event {
        Event::Fault(Fault::Clock { lasts, .. }) => {
            Some((entry.at, time::after(entry.at, *lasts + Duration::from_secs(60))))
        }
        _ => None,
    };
    entries.iter().filter_map(of).collect()
}

/// A run that isn't over.
#[derive(Clone, Copy)]
struct Live<'a> {
    run: &'a Run,
    state: RunState,
    is_cancelled: bool,
    available_at: Timestamp,
    has_begun: bool,
    /// Since when it is in this state.
    since: Timestamp,
}

impl Live<'_> {
    fn executes(&self) -> bool {
        self.state == RunState::Running
    }

    /// The order of a trigger's runs: one that has begun is before all others. Those of the same time have none.
    fn place(&self) -> (bool, Timestamp) {
        (!self.has_begun, self.run.nominal_at)
    }
}

struct Sweep<'a> {
    policies: HashMap<&'a Name, OverlapPolicy>,
    runs: HashMap<RunId, &'a Run>,
    troubles: Troubles,
    clocks: Vec<(Timestamp, Timestamp)>,
    tasks: HashMap<Name, TaskLimits>,
    live: BTreeMap<RunId, Live<'a>>,
    /// When attempts of a task began by their hosts' clocks, as long as these and the rate were as they are.
    begins: HashMap<Name, Vec<Timestamp>>,
    /// Since when runs could begin, and haven't.
    idle: HashMap<RunId, Timestamp>,
    /// Those that are told of already.
    stuck: HashSet<RunId>,
    found: Vec<Violation>,
}

/// The key of an input.
fn customer(input: &Payload) -> Option<String> {
    let input: serde_json::Value = serde_json::from_slice(&input.bytes).ok()?;
    input.get("customer")?.as_str().map(Into::into)
}

/// So many, and the time of one in microseconds.
fn rate(text: &str) -> (i64, i64) {
    let (count, per) = text.split_once('/').expect("a rate");
    let seconds = match per {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => 86_400,
    };
    let count: i64 = count.parse().expect("a number");
    (count, seconds * 1_000_000 / count)
}

impl<'a> Sweep<'a> {
    fn fail(&mut self, rule: Rule, what: String) {
        self.found.push(Violation { rule, what });
    }

    fn go(&mut self, Entry { at, event }: &Entry) {
        match event {
            Event::Tasks(tasks) => {
                for task in tasks {
                    self.begins.remove(&task.task);
                    self.tasks.insert(task.task.clone(), task.clone());
                }
            }
            Event::Claimed { by_clock, leases } => self.claimed(*at, *by_clock, leases),
            Event::Finished(lease, state) => {
                let available_at = self.live.get(&lease.run).map_or(*at, |live| live.available_at);
                let of = Standing { run: lease.run, state: *state, is_cancelled: false, available_at };
                self.stand(*at, &[of]);
            }
            Event::Runs(standings) => self.stand(*at, standings),
            _ => {}
        }
    }

    /// Runs have come, or stand otherwise than before.
    fn stand(&mut self, at: Timestamp, standings: &[Standing]) {
        let mut triggers = BTreeSet::new();
        for standing in standings {
            let Some(run) = self.runs.get(&standing.run).copied() else { continue };
            triggers.extend(run.trigger.as_ref());
            let before = self.live.remove(&run.id);
            if standing.state.is_final() {
                self.idle.remove(&run.id);
                continue;
            }
            let since =
                before.filter(|before| before.state == standing.state).map_or(at, |before| before.since);
            let live = Live {
                run,
                state: standing.state,
                is_cancelled: standing.is_cancelled,
                available_at: standing.available_at,
                has_begun: before.is_some_and(|before| before.has_begun),
                since,
            };
            self.live.insert(run.id, live);
        }
        triggers.into_iter().for_each(|trigger| self.overlaps(at, None, trigger));
    }

    fn claimed(&mut self, at: Timestamp, by_clock: Timestamp, leases: &[Lease]) {
        let (mut tasks, mut triggers) = (BTreeSet::new(), BTreeSet::new());
        for lease in leases {
            let Some(live) = self.live.get_mut(&lease.run) else { continue };
            (live.state, live.has_begun, live.since) = (RunState::Running, true, at);
            tasks.insert(&live.run.task);
            triggers.extend(live.run.trigger.as_ref());
            if let Some(key) = customer(&live.run.input) {
                let task = &live.run.task;
                self.key_is_kept(at, task, &key);
            }
            let task = &self.runs[&lease.run].task;
            self.rate_is_kept(at, by_clock, task);
        }
        for task in tasks {
            let Some(limits) = self.tasks.get(task) else { continue };
            let most = if limits.is_paused { Some(0) } else { limits.concurrency };
            let executing = self.executing(|run| run.task == *task);
            if most.is_some_and(|most| executing > most) {
                self.fail(Rule::Limit, format!("at {at} {executing} of `{task}` execute, of {most:?}"));
            }
            // Somebody goes on: the others have their turns.
            let runs = &self.runs;
            self.idle.retain(|run, _| runs[run].task != *task);
        }
        triggers.into_iter().for_each(|trigger| self.overlaps(at, Some(by_clock), trigger));
    }

    fn executing(&self, of: impl Fn(&Run) -> bool) -> u32 {
        self.live.values().filter(|live| live.executes() && of(live.run)).count() as u32
    }

    fn of_key(&self, task: &Name, key: &str) -> u32 {
        self.executing(|run| run.task == *task && customer(&run.input).as_deref() == Some(key))
    }

    fn key_is_kept(&mut self, at: Timestamp, task: &Name, key: &str) {
        let Some(most) = self.tasks.get(task).and_then(|limits| limits.key_concurrency) else { return };
        let executing = self.of_key(task, key);
        if executing > most {
            self.fail(
                Rule::Limit,
                format!("at {at} {executing} of `{task}` with `{key}` execute, of {most}"),
            );
        }
    }

    /// One more attempt has begun: in no time up to now have more than the rate gives, and as many as come at once.
    fn rate_is_kept(&mut self, at: Timestamp, by_clock: Timestamp, task: &Name) {
        let Some(text) = self.tasks.get(task).and_then(|limits| limits.rate.clone()) else { return };
        if self.clocks.iter().any(|(from, to)| (*from..=*to).contains(&at)) {
            self.begins.remove(task);
            return;
        }
        let (count, step) = rate(&text);
        let begins = self.begins.entry(task.clone()).or_default();
        begins.push(by_clock);
        let too_many = begins.iter().rev().enumerate().find(|(older, from)| {
            let passed = time::to_micros(by_clock) - time::to_micros(**from);
            *older as i64 + 1 > count + passed / step
        });
        if let Some((older, from)) = too_many {
            let what = format!("{} of `{task}` began from {from} to {by_clock}, at {text}", older + 1);
            self.fail(Rule::Rate, what);
        }
    }

    /// The runs of a trigger that aren't over are no more than its policy allows, and begin in order if they wait: when
    /// some begin, by the clock of their host.
    fn overlaps(&mut self, at: Timestamp, by_clock: Option<Timestamp>, trigger: &Name) {
        let Some(policy) = self.policies.get(trigger).copied() else { return };
        let mut runs: Vec<Live> =
            self.live.values().filter(|live| live.run.trigger.as_ref() == Some(trigger)).copied().collect();
        runs.sort_by_key(|live| live.run.nominal_at);
        let (most, counted) = match policy {
            OverlapPolicy::Skip => (1, runs.len()),
            OverlapPolicy::BufferOne => (2, runs.len()),
            OverlapPolicy::BufferAll => (1 + BUFFERED_RUNS_MAX as usize, runs.len()),
            OverlapPolicy::CancelOther => (1, runs.iter().filter(|live| !live.is_cancelled).count()),
            OverlapPolicy::AllowAll => return,
        };
        if counted > most {
            let them: Vec<String> = runs.iter().map(|live| show(live.run)).collect();
            self.fail(Rule::Overlap, format!("at {at} `{trigger}` ({policy}) has {}", them.join(" and ")));
        }
        // Those of the same time have no order, and one that a clock which was ahead has made ready for a time to come
        // lets others go first.
        let begun: Vec<&Live> = runs.iter().filter(|live| live.has_begun).collect();
        let is_before = |one: &Live, live: &Live| {
            let ready = by_clock.is_some_and(|clock| one.available_at <= clock);
            ready && !one.has_begun && one.run.nominal_at < live.run.nominal_at
        };
        let early = begun.iter().find(|live| runs.iter().any(|one| is_before(one, live)));
        if policy.waits()
            && let Some(live) = early.or(begun.get(1))
        {
            let what =
                format!("at {at} `{trigger}` ({policy}) is not done with those before {}", show(live.run));
            self.fail(Rule::Overlap, what);
        }
    }

    /// Nothing has happened until now since `still`: who could have begun, and has not for long?
    fn look_for_stuck(&mut self, still: Timestamp, now: Timestamp) {
        let mut firsts: HashMap<&Name, (bool, Timestamp)> = HashMap::new();
        for live in self.live.values() {
            if let Some(trigger) = &live.run.trigger {
                let first = firsts.entry(trigger).or_insert(live.place());
                *first = live.place().min(*first);
            }
        }
        let is_full = self.executing(|_| true) >= CAPACITY;
        let mut stuck = Vec::new();
        for live in self.live.values() {
            let id = live.run.id;
            let (since, patience) = if live.executes() {
                (live.since, EXECUTES_MAX)
            } else if !is_full && live.available_at <= now && self.may_begin(live, &firsts) {
                (*self.idle.entry(id).or_insert(still.max(live.available_at)), PATIENCE)
            } else {
                self.idle.remove(&id);
                continue;
            };
            let since = self.troubles.over_since(since, now);
            if time::between(since, now) > patience {
                stuck.push((id, format!("at {now} {} is {} since {since}", show(live.run), live.state)));
            }
        }
        for (id, what) in stuck {
            if self.stuck.insert(id) {
                self.fail(Rule::Stuck, what);
            }
        }
    }

    fn may_begin(&self, live: &Live, firsts: &HashMap<&Name, (bool, Timestamp)>) -> bool {
        let Run { task, trigger, input, .. } = live.run;
        if let Some(trigger) = trigger
            && self.policies.get(trigger).is_some_and(|policy| policy.waits())
            && firsts.get(trigger) != Some(&live.place())
        {
            return false;
        }
        let Some(limits) = self.tasks.get(task) else { return true };
        let has_room = |most: Option<u32>, executing: u32| most.is_none_or(|most| executing < most);
        let of_key =
            || customer(input).is_none_or(|key| has_room(limits.key_concurrency, self.of_key(task, &key)));
        !limits.is_paused && has_room(limits.concurrency, self.executing(|run| run.task == *task)) && of_key()
    }
}
