//! One target, worked on in this process: inputs are made of seeds, checked, and made short when they fail.

use crate::campaign;
use crate::random::Random;
use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Half of the stack of tokio's workers, on which the host reads what it is sent: others have a part of that.
const STACK_BYTES: usize = 1024 * 1024;
/// What takes longer than this hangs.
const HANG: Duration = Duration::from_secs(120);
/// How long a failure is made shorter.
const SHRINK_TIME: Duration = Duration::from_secs(30);
/// Bytes of an input's piece that are shown.
const SHOWN_BYTES: usize = 16 * 1024;
/// Bytes that the words of a refusal may have.
const WORDS_MAX: usize = 8 * 1024;

/// An input, in pieces.
pub type Input = Vec<Vec<u8>>;

/// What became of an input that did no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Taken,
    Refused,
}

/// Something that reads what strangers send.
pub trait Target {
    /// An input.
    fn make(&mut self, random: &mut Random) -> Input;

    /// Gives an input to what is tested. The error says what promise it breaks; a panic is one too, on any thread.
    fn check(&mut self, input: &[Vec<u8>]) -> Result<Seen, String>;
}

/// A target by its name.
pub struct Case {
    pub name: &'static str,
    /// How many seeds `make test` goes through.
    pub seeds: u64,
    pub new: fn() -> Box<dyn Target>,
}

/// How long to go on.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    Seeds(u64),
    Elapsed(Duration),
    /// Only shows the input of the first seed.
    Shown,
}

/// Panics that nobody has asked about yet.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Inputs that were checked: the watchdog looks whether it moves on.
static STEPS: AtomicU64 = AtomicU64::new(0);

/// The program: everything, or as a child of it one target.
pub fn run(cases: &'static [Case]) -> ExitCode {
    match campaign::child() {
        Some(child) => {
            let known = cases.iter().chain(&crate::planted::CASES);
            let case = known.into_iter().find(|case| case.name == child.target).expect("a target");
            let work = move || work(case, child.first, child.until, &child.last);
            let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn(work).expect("a thread");
            if thread.join().unwrap_or(false) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        None => campaign::run(cases),
    }
}

/// Whether nothing was found. `last` has the seed that is being worked on.
fn work(case: &Case, first: u64, until: Until, last: &File) -> bool {
    panic::set_hook(Box::new(|info| {
        let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
        // One that repeats itself on a thread of its own needs no more room.
        if panics.len() < 10 {
            panics.push(info.to_string());
        }
    }));
    let mut target = (case.new)();
    if matches!(until, Until::Shown) {
        target.make(&mut Random::new(first)).iter().for_each(|piece| print!("{}", shown(piece)));
        return true;
    }
    let (begun, mut done) = (Instant::now(), 0);
    let (mut taken, mut slowest) = (0, (Duration::ZERO, first));
    let watchdog = Watchdog::start(case.name);
    while match until {
        Until::Seeds(count) => done < count,
        Until::Elapsed(time) => begun.elapsed() < time,
        Until::Shown => false,
    } {
        let seed = first.wrapping_add(done);
        watchdog.at(seed, last);
        let mut input = Input::new();
        let at = Instant::now();
        let checked = caught(|| {
            input = target.make(&mut Random::new(seed));
            target.check(&input)
        });
        slowest = slowest.max((at.elapsed(), seed));
        match checked {
            Ok(seen) => taken += u64::from(seen == Seen::Taken),
            Err(why) => {
                let bytes = size(&input);
                let (input, shorter) = shrunk(target.as_mut(), input);
                println!(
                    "{}: seed {seed} fails: {why}\n\nof {bytes} bytes, {} will do: {}\n{}\nagain: {}",
                    case.name,
                    size(&input),
                    shorter.unwrap_or_else(|| "the same".into()),
                    input.iter().map(|piece| shown(piece)).collect::<String>(),
                    campaign::again(case.name, seed),
                );
                return false;
            }
        }
        done += 1;
    }
    println!(
        "{}: {done} inputs from seed {first}, {taken} of them good, the slowest (seed {}) {:?}: nothing found",
        case.name, slowest.1, slowest.0
    );
    // A generator that makes nothing good, or nothing bad, tests half of what it should.
    if matches!(until, Until::Seeds(count) if count == case.seeds) && (taken == 0 || taken == done) {
        println!("{}: {taken} of {done} inputs are good; some should be, and some not", case.name);
        return false;
    }
    true
}

/// What a closure says; an error if there was a panic, on whatever thread.
fn caught(work: impl FnOnce() -> Result<Seen, String>) -> Result<Seen, String> {
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    let panics = std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
    if !panics.is_empty() {
        return Err(panics.join("\n"));
    }
    result.unwrap_or_else(|_| Err("it panicked without a word".into()))
}

/// Leaves out what the failure doesn't need: pieces, then chunks of them. And how it fails then.
fn shrunk(target: &mut dyn Target, mut input: Input) -> (Input, Option<String>) {
    let begun = Instant::now();
    let why = RefCell::new(None);
    let mut fails = |input: &Input| match caught(|| target.check(input)) {
        Ok(_) => false,
        Err(words) => {
            STEPS.fetch_add(1, Ordering::Relaxed);
            *why.borrow_mut() = Some(words);
            true
        }
    };
    shorter(&mut input, &mut fails, begun);
    for piece in 0..input.len() {
        let mut bytes = input[piece].clone();
        let mut with = |bytes: &Vec<u8>| {
            let mut input = input.clone();
            input[piece].clone_from(bytes);
            fails(&input)
        };
        shorter(&mut bytes, &mut with, begun);
        input[piece] = bytes;
    }
    (input, why.into_inner())
}

fn shorter<T: Clone>(list: &mut Vec<T>, fails: &mut impl FnMut(&Vec<T>) -> bool, begun: Instant) {
    let mut chunk = list.len().div_ceil(2);
    while chunk > 0 {
        let mut place = 0;
        while place < list.len() && begun.elapsed() < SHRINK_TIME {
            let mut fewer = list.clone();
            fewer.drain(place..(place + chunk).min(list.len()));
            if fails(&fewer) { *list = fewer } else { place += chunk }
        }
        chunk /= 2;
    }
}

fn size(input: &[Vec<u8>]) -> usize {
    input.iter().map(Vec::len).sum()
}

/// A piece of an input for people: its text, else hex digits.
fn shown(piece: &[u8]) -> String {
    let cut = &piece[..piece.len().min(SHOWN_BYTES)];
    let more = if cut.len() < piece.len() { " and so on" } else { "" };
    match std::str::from_utf8(cut) {
        Ok(text) => format!("  {text:?}{more}\n"),
        Err(_) => format!("  hex {}{more}\n", hex::encode(cut)),
    }
}

/// Ends the process when an input takes too long, and says which it was.
struct Watchdog(&'static AtomicU64);

static SEED: AtomicU64 = AtomicU64::new(0);

impl Watchdog {
    fn start(target: &'static str) -> Self {
        thread::spawn(move || {
            let mut seen = (STEPS.load(Ordering::Relaxed), Instant::now());
            loop {
                thread::sleep(Duration::from_secs(1));
                let steps = STEPS.load(Ordering::Relaxed);
                if steps != seen.0 {
                    seen = (steps, Instant::now());
                } else if seen.1.elapsed() > HANG {
                    let seed = SEED.load(Ordering::Relaxed);
                    println!(
                        "{target}: seed {seed} takes more than {HANG:?}\nagain: {}",
                        campaign::again(target, seed)
                    );
                    std::process::exit(1);
                }
            }
        });
        Self(&SEED)
    }

    fn at(&self, seed: u64, last: &File) {
        self.0.store(seed, Ordering::Relaxed);
        STEPS.fetch_add(1, Ordering::Relaxed);
        last.write_all_at(&seed.to_le_bytes(), 0).expect("a note of the seed");
    }
}

/// Whether the words of a refusal are words: some, and not too many.
pub fn words(words: &str) -> Result<(), String> {
    if words.trim().is_empty() {
        return Err("it is refused without a word".into());
    }
    if words.len() > WORDS_MAX {
        return Err(format!("it is refused with {} bytes of words", words.len()));
    }
    Ok(())
}

/// The same, and whether there is nothing in them that could steer a terminal.
pub fn plain_words(words: &str) -> Result<(), String> {
    self::words(words)?;
    match words.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("it is refused with {c:?} in {words:?}")),
        None => Ok(()),
    }
}

/// Fails unless two answers to the same question are the same.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, one: &T, other: &T) -> Result<(), String> {
    if one == other { Ok(()) } else { Err(format!("{what}: {one:?}, and then {other:?}")) }
}

/// A piece as text.
pub fn text(piece: &[u8]) -> String {
    String::from_utf8_lossy(piece).into_owned()
}
