//! Random operations on two stores of the contract: both must answer alike, and show alike what they have
//! made of it. `INN_SEED` repeats a seed, `INN_SEEDS` says how many to go through.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "differential/generate.rs"]
mod generate;
#[path = "differential/observe.rs"]
mod observe;
#[path = "differential/operation.rs"]
mod operation;
#[path = "support/random.rs"]
mod random;
#[path = "differential/side.rs"]
mod side;

use generate::Generator;
use innkeeper_store::Store;
use innkeeper_store::postgres::PostgresStore;
use innkeeper_store::sqlite::SqliteStore;
use observe::{Seen, difference};
use operation::{Operation, Step};
use side::{Learned, Side};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Operations of one seed.
const STEPS: usize = 300;
/// Everything is compared after so many of them; runs and answers after each.
const LISTING_EVERY: usize = 50;
/// How long seeds are gone through when nobody says how many.
const TIME: Duration = Duration::from_secs(5);
/// How long a failure is made shorter.
const SHRINK_TIME: Duration = Duration::from_secs(60);

/// Two empty stores, and what must live as long as they.
type Stores = ((Arc<dyn Store>, Arc<dyn Store>), Vec<TempDir>);

fn sqlite(folders: &mut Vec<TempDir>) -> Arc<dyn Store> {
    // In memory where that can be: nothing here is about the disk.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    let folder = folder.expect("a temporary folder");
    let store = SqliteStore::open(folder.path()).expect("a new store");
    folders.push(folder);
    Arc::new(store)
}

/// Whether the harness itself answers alike twice.
async fn two_of_sqlite() -> Stores {
    let mut folders = Vec::new();
    ((sqlite(&mut folders), sqlite(&mut folders)), folders)
}

async fn sqlite_and_postgres() -> Stores {
    let mut folders = Vec::new();
    let url = cluster::database().parse().expect("a URL");
    let postgres = Arc::new(PostgresStore::open(&url).await.expect("a new store"));
    ((sqlite(&mut folders), postgres), folders)
}

/// What differs, and after how many operations.
struct Difference {
    steps: usize,
    what: String,
}

async fn apply(step: &Step, left: &Side, right: &Side, seen: &mut Seen) -> Result<Learned, String> {
    let expected = match &step.operation {
        Operation::Schedule { .. } => Some(left.expected(&left.decide(step.at).await).await),
        _ => None,
    };
    let answer = left.apply(step).await;
    if let Some(what) = difference(&answer.text, &right.apply(step).await.text) {
        return Err(format!("the answers differ: {what}"));
    }
    if let Some(expected) = expected
        && !answer.text.ends_with(&format!("Ok({expected}))"))
    {
        return Err(format!("{expected} runs should have been created: {}", answer.text));
    }
    seen.look(left, right).await?;
    Ok(answer.learned)
}

/// Applies operations to two new stores until they differ. With a generator, these are as many more.
async fn play(
    steps: &mut Vec<Step>,
    mut generator: Option<&mut Generator>,
    stores: Stores,
    skew: Duration,
) -> Option<Difference> {
    let ((left, right), _folders) = stores;
    let (left, mut right) = (Side::new(left).await, Side::new(right).await);
    right.skew = skew;
    let mut seen = Seen::default();
    let count = if generator.is_some() { STEPS } else { steps.len() };
    for place in 0..count {
        if let Some(generator) = &mut generator {
            steps.push(generator.step());
        }
        let step = &steps[place];
        let mut result = apply(step, &left, &right, &mut seen).await;
        if result.is_ok() && ((place + 1) % LISTING_EVERY == 0 || place + 1 == count) {
            let listings = (left.listing(step.clone()).await, right.listing(step.clone()).await);
            if let Some(what) = difference(&listings.0, &listings.1) {
                result = Err(format!("what can be read differs: {what}"));
            } else if let Err(what) = left.check_skips().await {
                result = Err(what);
            } else if let Err(what) = left.check_gates().await.and(right.check_gates().await) {
                result = Err(what);
            }
            if result.is_ok() && place + 1 == count {
                let checked = left.check_stored().await.and(right.check_stored().await);
                result = checked.map(|()| Learned::default());
            }
        }
        match result {
            Err(what) => return Some(Difference { steps: place + 1, what }),
            Ok(learned) => {
                if let Some(generator) = &mut generator {
                    generator.learn(learned);
                }
            }
        }
    }
    None
}

/// Leaves out operations as long as the stores differ without them.
async fn shrink(steps: &mut Vec<Step>, stores: &impl AsyncFn() -> Stores, skew: Duration) -> String {
    let begun = Instant::now();
    let mut what = String::new();
    let mut chunk = steps.len() / 2;
    while chunk > 0 {
        let mut place = 0;
        while place < steps.len() && begun.elapsed() < SHRINK_TIME {
            let mut fewer = steps.clone();
            fewer.drain(place..(place + chunk).min(steps.len()));
            match play(&mut fewer, None, stores().await, skew).await {
                Some(found) => {
                    fewer.truncate(found.steps);
                    *steps = fewer;
                    what = found.what;
                }
                None => place += chunk,
            }
        }
        chunk /= 2;
    }
    what
}

/// Goes through seeds, and tells of the first one that makes the stores differ.
async fn seeds(test: &str, stores: impl AsyncFn() -> Stores) {
    let first = random::first_seed();
    let once = random::from_environment("INN_SEED").map(|_| 1);
    let count = random::from_environment("INN_SEEDS").or(once);
    let begun = Instant::now();
    let mut done = 0;
    while count.map_or(begun.elapsed() < TIME, |count| done < count) {
        let seed = first.wrapping_add(done);
        let mut steps = Vec::new();
        let mut generator = Generator::new(seed);
        if let Some(found) = play(&mut steps, Some(&mut generator), stores().await, Duration::ZERO).await {
            let asked = steps.len();
            let shorter = shrink(&mut steps, &stores, Duration::ZERO).await;
            panic!(
                "seed {seed}: after {asked} operations {}\n\n{} of them will do:\n{}\n{shorter}\n\n\
                 again: INN_SEED={seed} cargo test --locked -p inn --test differential {test}",
                found.what,
                steps.len(),
                steps.iter().map(|step| format!("{step:?}")).collect::<Vec<_>>().join("\n")
            );
        }
        done += 1;
    }
    println!("{done} seeds from {first}, {STEPS} operations each: no difference");
}

#[tokio::test]
async fn sqlite_is_like_sqlite() {
    seeds("sqlite_is_like_sqlite", two_of_sqlite).await;
}

#[tokio::test]
async fn postgres_is_like_sqlite() {
    seeds("postgres_is_like_sqlite", sqlite_and_postgres).await;
}

/// The harness finds a store that is a microsecond late, and says so with few words.
#[tokio::test]
async fn a_difference_is_found_and_made_short() {
    let late = Duration::from_micros(1);
    let mut steps = Vec::new();
    let found = play(&mut steps, Some(&mut Generator::new(1)), two_of_sqlite().await, late).await;
    assert!(found.is_some());
    shrink(&mut steps, &two_of_sqlite, late).await;
    assert!(steps.len() <= 3, "{steps:#?}");
}

/// Found by a seed: both stores took a chunk of nothing, and then none in its place.
#[tokio::test]
async fn an_upload_goes_on_after_a_chunk_of_nothing() {
    let ((left, right), _folders) = sqlite_and_postgres().await;
    for side in [Side::new(left).await, Side::new(right).await] {
        let digest = side::digest(b"x");
        let append =
            |bytes: &[u8]| Operation::UploadAppend { tenant: 0, digest, first: 0, bytes: bytes.into() };
        for (operation, answer) in [
            (Operation::UploadBegin { tenant: 0, digest, size: 1 }, "Ok(0)"),
            (append(b""), "Ok(0)"),
            (append(b"x"), "Ok(1)"),
        ] {
            assert_eq!(
                side.apply(&Step { at: innkeeper_domain::Timestamp::UNIX_EPOCH, operation }).await.text,
                answer
            );
        }
    }
}
