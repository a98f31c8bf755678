//! Hosts and their database are killed, frozen and cut off at random moments under load; what clients were told
//! and what is there in the end must agree with every promise. Then the same with bugs put in on purpose, which
//! must be found.
//!
//! Short in `make test`; `make chaos MINUTES=10` goes on for so long. `INN_SEED` repeats what is done and when.
//! A test program of its own kind, so that it can also be a host with a bug (`buggy_host`).

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "chaos/buggy_host.rs"]
mod buggy_host;
#[path = "chaos/campaign.rs"]
mod campaign;
#[path = "chaos/checker.rs"]
mod checker;
#[path = "chaos/checker_cases.rs"]
mod checker_cases;
#[path = "chaos/client.rs"]
mod client;
#[path = "support/cluster.rs"]
mod cluster;
#[path = "chaos/figures.rs"]
mod figures;
#[path = "chaos/history.rs"]
mod history;
#[path = "chaos/nemesis.rs"]
mod nemesis;
#[path = "chaos/process.rs"]
mod process;
#[path = "support/random.rs"]
mod random;
#[path = "chaos/sabotage.rs"]
mod sabotage;
#[path = "chaos/state.rs"]
mod state;
#[path = "chaos/workload.rs"]
mod workload;

use campaign::{Campaign, Until};
use checker::Rule;
use cluster::{Cluster, Durability};
use figures::Figures;
use process::Keeper;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Hosts of a fleet.
const FLEET: usize = 3;
/// One campaign's time in the long form: what it leaves can be read and checked in seconds.
const CAMPAIGN: Duration = Duration::from_secs(60);
/// Campaigns, of so many faults each, in which a bug must be found.
const BUG_CAMPAIGNS: u64 = 8;

/// The bugs: what they are called, how many hosts show them, how many faults a campaign has, and what is broken
/// by them.
const BUGS: [(&str, usize, u64, &[Rule]); 3] = [
    ("advance-before-insert", 1, 5, &[Rule::EveryNominalTime]),
    ("acknowledge-before-commit", 1, 4, &[Rule::Acknowledged, Rule::OneRunPerKey]),
    ("no-fence", FLEET, 5, &[Rule::Fenced, Rule::LostHost]),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    if let Ok(bug) = std::env::var(buggy_host::BUG) {
        runtime.block_on(buggy_host::main(&bug, &arguments));
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    runtime.block_on(run(arguments.iter().find(|argument| !argument.starts_with('-'))))
}

/// The tests in turn; only those with `filter` in their names.
async fn run(filter: Option<&String>) -> ExitCode {
    let begun = Instant::now();
    let is_wanted = |name: &str| filter.is_none_or(|filter| name.contains(filter.as_str()));
    let is_sought = |bug: &str| is_wanted(&format!("{bug}_is_found"));
    let seed = random::first_seed();
    let minutes = random::from_environment("MINUTES").map(|minutes| Duration::from_secs(60 * minutes));
    let keeper = Keeper::start();
    let mut tests = Tests { seed, passed: 0, failed: Vec::new() };
    println!("\nseed {seed}");
    for (name, case) in checker_cases::CASES {
        if is_wanted(name) {
            tests.record(name, std::panic::catch_unwind(case).is_ok());
        }
    }
    if is_wanted("sqlite_keeps_its_promises") {
        let time = minutes.map_or(Duration::from_secs(9), |minutes| minutes / 2);
        tests.promises("sqlite", None, 1, time, &keeper).await;
    }
    let needs_fleet = is_wanted("postgres_keeps_its_promises")
        || BUGS.iter().any(|(name, hosts, ..)| *hosts > 1 && is_sought(name));
    let database = needs_fleet.then(|| Cluster::start(Durability::Fsync));
    if is_wanted("postgres_keeps_its_promises") {
        let time = minutes.map_or(Duration::from_secs(14), |minutes| minutes / 2);
        tests.promises("postgres", database.as_ref(), FLEET, time, &keeper).await;
    }
    for (bug, hosts, faults, rules) in BUGS {
        if is_sought(bug) {
            let database = database.as_ref().filter(|_| hosts > 1);
            tests.bug_is_found(bug, database, hosts, faults, rules, &keeper).await;
        }
    }
    tests.summary(begun.elapsed())
}

struct Tests {
    seed: u64,
    passed: u64,
    failed: Vec<String>,
}

impl Tests {
    fn record(&mut self, name: &str, passed: bool) {
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if passed {
            self.passed += 1;
        } else {
            self.failed.push(name.into());
        }
    }

    /// Campaigns until the time is over. No promise is broken.
    async fn promises(
        &mut self,
        name: &str,
        database: Option<&Cluster>,
        hosts: usize,
        time: Duration,
        keeper: &Keeper,
    ) {
        let begun = Instant::now();
        let mut figures = Figures::default();
        let mut number = 0;
        while begun.elapsed() < time {
            let campaign = Campaign { bug: None, database, hosts, seed: self.seed.wrapping_add(number) };
            let rest = time.saturating_sub(begun.elapsed()).min(CAMPAIGN);
            let report = campaign.run(keeper, Until::Elapsed(rest)).await;
            figures.add(&report);
            if !report.violations.is_empty() {
                println!("{}: seed {}", name, campaign.seed);
                report.violations.iter().take(20).for_each(|violation| println!("  {violation}"));
                println!("{}", report.logs);
                break;
            }
            number += 1;
        }
        println!("{name}: {figures}");
        self.record(&format!("{name}_keeps_its_promises"), figures.violations == 0);
    }

    /// Campaigns until the checker finds something. It must, and what it finds is what the bug breaks.
    async fn bug_is_found(
        &mut self,
        bug: &'static str,
        database: Option<&Cluster>,
        hosts: usize,
        faults: u64,
        rules: &[Rule],
        keeper: &Keeper,
    ) {
        let (begun, mut struck) = (Instant::now(), 0);
        for number in 0..BUG_CAMPAIGNS {
            let seed = self.seed.wrapping_add(number);
            let campaign = Campaign { bug: Some(bug), database, hosts, seed };
            let report = campaign.run(keeper, Until::Faults(faults)).await;
            struck += report.done.count();
            if let Some(first) = report.violations.first() {
                let mut found: Vec<Rule> = report.violations.iter().map(|violation| violation.rule).collect();
                found.sort();
                found.dedup();
                let seconds = begun.elapsed().as_secs_f32();
                println!("{bug}: found after {struck} faults, {seconds:.1} s: {found:?}\n  {first}");
                let as_expected = found.iter().any(|rule| rules.contains(rule));
                return self.record(&format!("{bug}_is_found"), as_expected);
            }
        }
        println!("{bug}: not found by {struck} faults");
        self.record(&format!("{bug}_is_found"), false);
    }

    fn summary(&self, took: Duration) -> ExitCode {
        let (verdict, failed) = match self.failed.len() {
            0 => ("ok", 0),
            failed => ("FAILED", failed),
        };
        println!(
            "\ntest result: {verdict}. {} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in \
             {:.2}s\n",
            self.passed,
            took.as_secs_f32()
        );
        if failed == 0 {
            return ExitCode::SUCCESS;
        }
        println!("again: INN_SEED={} cargo test --locked -p inn --test chaos {}", self.seed, self.failed[0]);
        ExitCode::FAILURE
    }
}
