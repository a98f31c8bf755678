//! Which targets are worked on, with which seeds and for how long; each in a process of its own.

use crate::engine::{Case, Until};
use crate::planted;
use crate::random;
use std::env;
use std::fs::{File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The first argument of a process that works on one target.
const CHILD: &str = "--work";
/// How long a target has its turn where there is no end.
const TURN: Duration = Duration::from_secs(30);

/// What such a process is to do.
pub struct Child {
    pub target: String,
    pub first: u64,
    pub until: Until,
    /// Where it notes the seed that it works on.
    pub last: File,
}

/// What this process is to do, if it is one of them.
pub fn child() -> Option<Child> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [mark, target, first, kind, count, last] = arguments.as_slice() else { return None };
    let count = count.parse().expect("a number");
    let until = match (mark.as_str(), kind.as_str()) {
        (CHILD, "seeds") => Until::Seeds(count),
        (CHILD, "shown") => Until::Shown,
        (CHILD, "millis") => Until::Elapsed(Duration::from_millis(count)),
        _ => return None,
    };
    let last = OpenOptions::new().write(true).open(last).expect("the file for seeds");
    Some(Child { target: target.clone(), first: first.parse().expect("a seed"), until, last })
}

/// How a seed is repeated.
pub fn again(target: &str, seed: u64) -> String {
    format!("INN_SEED={seed} TARGET={target} cargo test --locked -p inn --test fuzz")
}

/// Works on the targets that are asked for.
pub fn run(cases: &[Case]) -> ExitCode {
    let named = env::var("TARGET").ok().filter(|name| !name.is_empty());
    let chosen: Vec<&Case> =
        cases.iter().filter(|case| named.as_deref().is_none_or(|name| name == case.name)).collect();
    if chosen.is_empty() {
        let known: Vec<_> = cases.iter().map(|case| case.name).collect();
        println!("there is no target `{}`; there are {}", named.unwrap_or_default(), known.join(", "));
        return ExitCode::FAILURE;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let seed = random::from_environment("INN_SEED");
    let good = match (seed, random::from_environment("MINUTES")) {
        // To repeat one takes no time that anybody need say.
        (Some(_), _) => some_seeds(&chosen, seed, folder.path()),
        (None, Some(minutes)) => for_so_long(&chosen, minutes, folder.path()),
        (None, None) => {
            some_seeds(&chosen, None, folder.path()) && (named.is_some() || planted::are_found(folder.path()))
        }
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The same seeds every time, or the one that is asked for; as many targets at one time as there are processors.
fn some_seeds(cases: &[&Case], seed: Option<u64>, folder: &Path) -> bool {
    let count = random::from_environment("INN_SEEDS").or(seed.map(|_| 1));
    let (next, good) = (AtomicUsize::new(0), AtomicBool::new(true));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let until = Until::Seeds(count.unwrap_or(case.seeds));
            if !is_good(case.name, seed.unwrap_or(1), until, folder) {
                good.store(false, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    good.into_inner()
}

/// New seeds, one target after the other; zero minutes have no end.
fn for_so_long(cases: &[&Case], minutes: u64, folder: &Path) -> bool {
    let (begun, time) = (Instant::now(), Duration::from_secs(60 * minutes));
    let turn = match (minutes, time.checked_div(cases.len() as u32)) {
        (1.., Some(share)) => share.min(TURN),
        _ => TURN,
    };
    while minutes == 0 || begun.elapsed() < time {
        for case in cases {
            if !is_good(case.name, random::first_seed(), Until::Elapsed(turn), folder) {
                return false;
            }
        }
    }
    true
}

/// Works on a target in a process of its own. Says what ended it, if it didn't itself.
fn is_good(target: &str, first: u64, until: Until, folder: &Path) -> bool {
    let last = folder.join(target);
    let mut child = command(target, first, until, &last);
    let status = child.status().expect("this program starts");
    if let Some(signal) = status.signal() {
        let seed = seed_of(&last);
        println!("{target}: seed {seed} ends the process by signal {signal}; its input:");
        let shown = command(target, seed, Until::Shown, &last).status().expect("this program starts");
        println!("{}\nagain: {}", if shown.success() { "" } else { "can't be shown" }, again(target, seed));
    }
    status.success()
}

/// The process that works on a target, and notes its seeds in a new file.
pub fn command(target: &str, first: u64, until: Until, last: &Path) -> Command {
    std::fs::write(last, [0; 8]).expect("a file for seeds");
    let (kind, count) = match until {
        Until::Seeds(count) => ("seeds", count),
        Until::Elapsed(time) => ("millis", time.as_millis() as u64),
        Until::Shown => ("shown", 0),
    };
    let mut command = Command::new(env::current_exe().expect("this program"));
    // In memory where that can be: nothing here is about the disk.
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        command.env("TMPDIR", memory);
    }
    command.args([CHILD, target, &first.to_string(), kind, &count.to_string()]).arg(last);
    command
}

/// The seed that a process has noted.
pub fn seed_of(last: &Path) -> u64 {
    let bytes = std::fs::read(last).expect("a seed");
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}
