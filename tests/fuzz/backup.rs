//! Backups, damaged: all of one is restored, or nothing, and never by a panic.

use crate::engine::{Input, Seen, Target, plain_words};
use crate::host;
use crate::mutate::{Grow, damage};
use crate::random::Random;
use innkeeper_store::Page;
use innkeeper_store::sqlite::SqliteStore;
use innkeeper_store::transfer::{Place, backup, restore};
use innkeeper_store::{RunFilter, Store, StoreError};
use sha2::{Digest, Sha256};
use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

pub struct Backups {
    runtime: tokio::runtime::Runtime,
    /// A good one.
    good: Vec<u8>,
}

/// What every backup begins with.
const BEGINNING: &[u8] = b"innkeeper backup 1\n";

const EXAMPLES: Grow = Grow {
    corpus: &[b"innkeeper backup 1\n", b"\x01\0\0\0\0\0\0\0\0", b"{\"rows\":1}"],
    tokens: &[
        "\0",
        "\u{1}",
        "\u{2}",
        "\u{3}",
        "h",
        "t",
        "r",
        "e",
        "\"",
        "{",
        "tenant",
        "run",
        "task_revision",
        "\"columns\":[]",
        "\"schema\":1",
        "\"schema\":99999999999999999999",
        "9999-12-31",
        "null",
        "é",
        "'; DROP TABLE run; --",
    ],
};

impl Backups {
    pub fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let good = runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let store: Arc<dyn Store> = Arc::new(SqliteStore::open(folder.path()).unwrap());
            let tenant = host::fill(&store, "a", 1).await.tenant;
            host::tokens(&store, tenant).await;
            drop(store);
            let file = Written::default();
            let place = Place::Folder(folder.path().into());
            backup(&place, host::now(), file.clone(), Box::new(|_| {})).await.unwrap();
            std::mem::take(&mut *file.0.lock().unwrap())
        });
        Self { runtime, good }
    }
}

impl Target for Backups {
    fn make(&mut self, random: &mut Random) -> Input {
        if random.chance(2) {
            return vec![self.good.clone()];
        }
        if random.chance(30) {
            let mut bytes = self.good.clone();
            // In its first records now and then: what is read first is reached most.
            let reach = if random.chance(50) { bytes.len() } else { bytes.len().min(400) };
            let mut beginning = bytes[..reach].to_vec();
            damage(random, &mut beginning, &EXAMPLES);
            bytes.splice(..reach, beginning);
            return vec![bytes];
        }
        // By somebody who knows how a backup is sealed.
        let mut records = records(&self.good);
        for _ in 0..1 + random.below(3) {
            let place = random.below(records.len() as u64) as usize;
            let other = random.below(records.len() as u64) as usize;
            match random.below(8) {
                0 => drop(records.remove(place)),
                1 => records.insert(other, records[place].clone()),
                2 => records.swap(place, other),
                3 => records[place].0 = random.pick(b"htrex").unwrap_or(b'r'),
                _ => damage(random, &mut records[place].1, &EXAMPLES),
            }
            if records.is_empty() {
                break;
            }
        }
        vec![sealed(records, random.chance(80))]
    }

    fn check(&mut self, input: &[Vec<u8>]) -> Result<Seen, String> {
        let file = input.concat();
        self.runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let place = Place::Folder(folder.path().into());
            match restore(Cursor::new(file.clone()), &place, Box::new(|_| {})).await {
                Ok(_) => look(folder.path()).await.map(|()| Seen::Taken),
                Err(error) if file == self.good => Err(format!("a good one is refused: {error}")),
                Err(error @ (StoreError::Invalid(_) | StoreError::Conflict(_))) => {
                    plain_words(&error.to_string())?;
                    // Nothing of it was kept: there is room for another.
                    let again = restore(Cursor::new(self.good.clone()), &place, Box::new(|_| {})).await;
                    again.map_err(|left| format!("after `{error}` a good one is refused: {left}"))?;
                    Ok(Seen::Refused)
                }
                Err(error) => Err(format!("it is refused as the host's fault: {error:?}")),
            }
        })
    }
}

/// Reads a store that was made of a backup. Rows that somebody has made up may be corrupt, which is an error.
async fn look(folder: &Path) -> Result<(), String> {
    let store: Box<dyn Store> = match SqliteStore::open(folder) {
        Ok(store) => Box::new(store),
        Err(error) => return plain_words(&error.to_string()),
    };
    let page = || Page { size: 100, after: None };
    let tenants = match store.tenant_list(page()).await {
        Ok(tenants) => tenants.items,
        Err(error) => return plain_words(&error.to_string()),
    };
    let mut errors = Vec::new();
    for tenant in tenants {
        errors.extend(store.task_list(tenant.id, None, page()).await.err());
        errors.extend(store.trigger_list(tenant.id, None, None, page()).await.err());
        errors.extend(store.run_list(tenant.id, RunFilter::default(), page()).await.err());
        errors.extend(store.component_list(tenant.id, page()).await.err());
        errors.extend(store.tenant_use(tenant.id, host::now()).await.err());
    }
    errors.extend(store.triggers_due(host::now(), 100).await.err());
    errors.iter().try_for_each(|error| plain_words(&error.to_string()))
}

/// Kinds and contents of a good backup's records.
fn records(file: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut records, mut at) = (Vec::new(), BEGINNING.len());
    while at < file.len() {
        let (kind, length) =
            (file[at], u32::from_le_bytes(file[at + 1..at + 5].try_into().unwrap()) as usize);
        records.push((kind, file[at + 5..at + 5 + length].to_vec()));
        at += 5 + length + if kind == b'e' { 32 } else { 8 };
    }
    records
}

/// A backup of such records, with the right checks. The last says the right number of rows, if it is asked to.
fn sealed(records: Vec<(u8, Vec<u8>)>, counted: bool) -> Vec<u8> {
    let (mut file, mut rows) = (BEGINNING.to_vec(), 0);
    for (kind, content) in records {
        rows += usize::from(kind == b'r');
        let content = if kind == b'e' && counted { format!("{{\"rows\":{rows}}}").into() } else { content };
        file.push(kind);
        file.extend((content.len() as u32).to_le_bytes());
        file.extend(content);
        let check = Sha256::digest(&file);
        file.extend(&check[..if kind == b'e' { 32 } else { 8 }]);
    }
    file
}

/// What was written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
