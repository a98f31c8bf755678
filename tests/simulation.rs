//! The real scheduler, dispatcher and store under simulated time, with a stub for a sandbox. A seed is a week of fifty
//! triggers in which processes die at any commit, freeze beyond their leases, have wrong clocks, other time zones and
//! a store that fails; every promise is checked in the end. Then the same with bugs put in on purpose, which must be
//! found.
//!
//! `make test` goes through as many seeds as fit a minute, `make simulate SEEDS=N` through any number. `INN_SEED`
//! repeats a seed, to the letter.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "simulation/bug.rs"]
mod bug;
#[path = "simulation/checker.rs"]
mod checker;
#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/deadlines.rs"]
mod deadlines;
#[path = "simulation/deliveries.rs"]
mod deliveries;
#[path = "simulation/followers.rs"]
mod followers;
#[path = "simulation/front.rs"]
mod front;
#[path = "simulation/limits.rs"]
mod limits;
#[path = "simulation/observer.rs"]
mod observer;
#[path = "simulation/oracle.rs"]
mod oracle;
#[path = "support/pass_on.rs"]
mod pass_on;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/process.rs"]
mod process;
#[path = "support/random.rs"]
mod random;
#[path = "simulation/record.rs"]
mod record;
#[path = "simulation/spoil.rs"]
mod spoil;
#[path = "simulation/state.rs"]
mod state;
#[path = "simulation/stub.rs"]
mod stub;
#[path = "simulation/tasks.rs"]
mod tasks;
#[path = "simulation/time.rs"]
mod time;
#[path = "support/two_commits.rs"]
mod two_commits;
#[path = "simulation/weather.rs"]
mod weather;
#[path = "simulation/world.rs"]
mod world;

use bug::Bug;
use spoil::Seed;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use weather::DeathPoint;
use world::{Report, live_through, simulate};

/// How long seeds are gone through when nobody says how many.
const TIME: Duration = Duration::from_secs(60);
/// Seeds in which a bug must be found.
const BUG_SEEDS: u64 = 60;
/// Seeds among which there must be something to spoil in every way.
const SPOILT_SEEDS: u64 = 20;

/// What came of many seeds.
#[derive(Default)]
struct Figures {
    seeds: u64,
    simulated: Duration,
    faults: usize,
    runs: usize,
    skipped: u64,
    died: BTreeMap<DeathPoint, u32>,
    violations: Vec<String>,
}

impl Figures {
    fn add(&mut self, seed: u64, report: Report) {
        self.seeds += 1;
        self.simulated += report.simulated;
        self.faults += report.faults;
        self.runs += report.runs;
        self.skipped += report.skipped;
        report.died.into_iter().for_each(|(point, times)| *self.died.entry(point).or_default() += times);
        if !report.violations.is_empty() {
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("simulation-{seed}.txt"));
            fs::write(&file, report.history).unwrap();
            self.violations.push(format!("INN_SEED={seed}, all that happened is in {}:", file.display()));
        }
        self.violations.extend(report.violations.iter().map(ToString::to_string));
    }
}

#[test]
fn every_promise_is_kept_in_every_seed() {
    let first = random::first_seed();
    let seeds = random::from_environment("INN_SEEDS");
    let repeated = std::env::var_os("INN_SEED").is_some() && seeds.is_none();
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let wanted = |number: u64| match seeds {
        Some(seeds) => number < seeds,
        None if repeated => number < 1,
        None => begun.elapsed() < TIME,
    };
    let figures = Mutex::new(Figures::default());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if !wanted(number) {
                        return;
                    }
                    let seed = first + number;
                    let report = simulate(seed, Bug::None);
                    figures.lock().unwrap().add(seed, report);
                }
            });
        }
    });
    let figures = figures.into_inner().unwrap();
    println!(
        "INN_SEED={first}: {} seeds, {} days simulated, {} faults, {} runs, {} times skipped, violations {}; {:.2} s a seed",
        figures.seeds,
        figures.simulated.as_secs() / 86_400,
        figures.faults,
        figures.runs,
        figures.skipped,
        figures.violations.len(),
        begun.elapsed().as_secs_f64() * threads as f64 / figures.seeds.max(1) as f64,
    );
    println!("processes died at {:?}", figures.died);
    assert!(
        figures.violations.is_empty(),
        "{}",
        figures.violations[..figures.violations.len().min(20)].join("\n")
    );
}

#[test]
fn a_seed_repeats_to_the_letter() {
    let first = random::first_seed();
    let fingerprints = |seed| (simulate(seed, Bug::None).fingerprint, simulate(seed, Bug::None).fingerprint);
    let mut seen = BTreeSet::new();
    for seed in first..first + 3 {
        let (one, other) = fingerprints(seed);
        assert_eq!(one, other, "INN_SEED={seed}");
        assert!(seen.insert(one), "every seed is another one");
    }
}

#[test]
fn whatever_is_bad_is_found() {
    let first = random::first_seed();
    let mut left: Vec<_> = spoil::WAYS.into_iter().enumerate().collect();
    for seed in first..first + SPOILT_SEEDS {
        if left.is_empty() {
            break;
        }
        let lived = live_through(seed, Bug::None);
        let (plan, entries) = (&lived.plan, lived.record.entries().clone());
        let good = Seed { plan, entries, state: lived.state.clone() };
        assert!(checker::check(plan, &good.entries, &good.state).is_empty(), "INN_SEED={seed}");
        left.retain(|(number, (rule, spoil))| {
            let mut bad = good.clone();
            if !spoil(&mut bad) {
                return true;
            }
            let found = checker::check(plan, &bad.entries, &bad.state);
            assert!(found.iter().any(|found| found.rule == *rule), "way {number}, {rule:?}: INN_SEED={seed}");
            false
        });
    }
    let left: Vec<usize> = left.into_iter().map(|(number, _)| number).collect();
    assert!(left.is_empty(), "ways {left:?} have nothing to spoil: INN_SEED={first}");
}

#[test]
fn bugs_are_found() {
    let first = random::first_seed();
    for bug in Bug::ALL {
        let found = (1..=BUG_SEEDS).find_map(|number| {
            let violations = simulate(first + number, bug).violations;
            Some((number, violations.into_iter().find(|found| bug.breaks().contains(&found.rule))?))
        });
        let (seeds, violation) = found.unwrap_or_else(|| panic!("{bug:?} isn't found: INN_SEED={first}"));
        println!("{bug:?} is found by seed {seeds}: {violation}");
    }
}
