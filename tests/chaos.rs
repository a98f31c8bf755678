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
#[path = "chaos/limits.rs"]
mod limits;
#[path = "chaos/nemesis.rs"]
mod nemesis;
#[path = "support/pass_on.rs"]
mod pass_on;
#[path = "chaos/process.rs"]
mod process;
#[path = "support/random.rs"]
mod random;
#[path = "chaos/sabotage.rs"]
mod sabotage;
#[path = "chaos/state.rs"]
mod state;
#[path = "support/two_commits.rs"]
mod two_commits;
#[path = "chaos/workload.rs"]
mod workload;

use campaign::{Campaign, Until};
use checker::Rule;
use cluster::{Cluster, Durability};
use figures::Figures;
use nemesis::Menu;
use process::Keeper;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Hosts of a fleet.
const FLEET: usize = 3;
/// One campaign's time in the long form: what it leaves can be read and checked in seconds.
const CAMPAIGN: Duration = Duration::from_secs(60);
/// Campaigns, of so many faults each, in which a bug must be found.
const BUG_CAMPAIGNS: usize = 8;

/// A bug, how it is brought to light, and what it breaks.
struct Case {
    bug: &'static str,
    hosts: usize,
    menu: Menu,
    /// Of one campaign.
    faults: u64,
    breaks: &'static [Rule],
}

const BUGS: [Case; 4] = [
    Case {
        bug: "advance-before-insert",
        hosts: 1,
        menu: Menu::Everything,
        faults: 4,
        breaks: &[Rule::EveryNominalTime],
    },
    Case {
        bug: "acknowledge-before-commit",
        hosts: 1,
        menu: Menu::Everything,
        faults: 3,
        breaks: &[Rule::Acknowledged],
    },
    Case { bug: "limits-forgotten", hosts: FLEET, menu: Menu::Everything, faults: 2, breaks: &[Rule::Limit] },
    Case { bug: "no-fence", hosts: FLEET, menu: Menu::Freezes, faults: 2, breaks: &[Rule::Fenced] },
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
            tests.record(name, std::panic::catch_unwind(case).map_err(|_| seed));
        }
    }
    if is_wanted("sqlite_keeps_its_promises") {
        let time = minutes.map_or(Duration::from_secs(7), |minutes| minutes / 2);
        tests.promises("sqlite", None, 1, time, &keeper).await;
    }
    let needs_fleet = is_wanted("postgres_keeps_its_promises")
        || BUGS.iter().any(|case| case.hosts > 1 && is_sought(case.bug));
    let database = needs_fleet.then(|| Cluster::start(Durability::Fsync));
    if is_wanted("postgres_keeps_its_promises") {
        let time = minutes.map_or(Duration::from_secs(11), |minutes| minutes / 2);
        tests.promises("postgres", database.as_ref(), FLEET, time, &keeper).await;
    }
    for case in BUGS.iter().filter(|case| is_sought(case.bug)) {
        let database = database.as_ref().filter(|_| case.hosts > 1);
        tests.bug_is_found(case, database, &keeper).await;
    }
    tests.summary(begun.elapsed())
}

struct Tests {
    seed: u64,
    passed: u64,
    failed: Vec<(String, u64)>,
}

impl Tests {
    /// What came of a test; a failure with the seed that shows it again.
    fn record(&mut self, name: &str, result: Result<(), u64>) {
        match result {
            Ok(()) => {
                println!("test {name} ... ok");
                self.passed += 1;
            }
            Err(seed) => {
                println!("test {name} ... FAILED");
                self.failed.push((name.into(), seed));
            }
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
        let mut result = Ok(());
        for seed in self.seed.. {
            let campaign = Campaign { bug: None, database, hosts, menu: Menu::Everything, seed };
            let rest = time.saturating_sub(begun.elapsed()).min(CAMPAIGN);
            let report = campaign.run(keeper, Until::Elapsed(rest)).await;
            figures.add(&report);
            if !report.violations.is_empty() {
                println!("{name}: {} violations, seed {seed}", report.violations.len());
                report.violations.iter().take(20).for_each(|violation| println!("  {violation}"));
                println!("{}", report.logs);
                result = Err(seed);
            }
            if result.is_err() || begun.elapsed() >= time {
                break;
            }
        }
        println!("{name}: {figures}");
        self.record(&format!("{name}_keeps_its_promises"), result);
    }

    /// Campaigns until the checker finds what the bug breaks. It must.
    async fn bug_is_found(&mut self, case: &Case, database: Option<&Cluster>, keeper: &Keeper) {
        let Case { bug, hosts, menu, faults, breaks } = *case;
        let (begun, mut struck) = (Instant::now(), 0);
        let mut result = Err(self.seed);
        for seed in (self.seed..).take(BUG_CAMPAIGNS) {
            let campaign = Campaign { bug: Some(bug), database, hosts, menu, seed };
            let report = campaign.run(keeper, Until::Faults(faults)).await;
            struck += report.done.count();
            if let Some(first) = report.violations.first() {
                let mut found: Vec<Rule> = report.violations.iter().map(|found| found.rule).collect();
                found.sort();
                found.dedup();
                let seconds = begun.elapsed().as_secs_f32();
                println!("{bug}: found after {struck} faults, {seconds:.1} s: {found:?}\n  {first}");
                if found.iter().any(|rule| breaks.contains(rule)) {
                    result = Ok(());
                    break;
                }
            }
        }
        if result.is_err() {
            println!("{bug}: {struck} faults did not show what it breaks");
        }
        self.record(&format!("{bug}_is_found"), result);
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
        for (name, seed) in &self.failed {
            println!("again: INN_SEED={seed} cargo test --locked -p inn --test chaos {name}");
        }
        ExitCode::FAILURE
    }
}
