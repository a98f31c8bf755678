//! What is done to the hosts and their database, and when: made up from a seed, so that it can be repeated.

use crate::client::Client;
use crate::cluster::Cluster;
use crate::history::{Loss, Outage, Recorder, now};
use crate::process::HostProcess;
use crate::random::Random;
use innkeeper_domain::time;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Beyond the lease: what is promised, and what a busy machine needs.
pub const TAKEOVER: Duration = Duration::from_secs(2);
const BUSY: Duration = Duration::from_secs(1);

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// kill -9 of a host, and its start after a while.
    Kill { host: usize, down: Duration },
    /// A host stands still for longer than its lease.
    Freeze { host: usize, beyond_lease: Duration },
    /// The database stops without a word, and is started again after a while.
    StopDatabase { down: Duration },
    /// The database's processes are killed; it recovers by itself.
    KillDatabase,
}

/// The word for a freeze.
const FROZEN: &str = "host frozen";

impl Fault {
    /// The word for its kind.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Kill { .. } => "host killed",
            Self::Freeze { .. } => FROZEN,
            Self::StopDatabase { .. } => "database stopped",
            Self::KillDatabase => "database killed",
        }
    }
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Menu {
    Everything,
    /// Only that hosts stand still.
    Freezes,
}

/// The next fault after so many, and how long before it nothing goes wrong. A fleet's first four are one of each
/// kind.
pub fn next_fault(random: &mut Random, hosts: usize, menu: Menu, after: u64) -> (Duration, Fault) {
    let mut millis = |from: u64, to: u64| Duration::from_millis(from + random.below(to - from));
    let alone = hosts == 1;
    let rest = if alone { millis(80, 900) } else { millis(300, 1_500) };
    let down = if alone { millis(0, 120) } else { millis(200, 3_000) };
    let beyond_lease = millis(200, 1_500);
    let host = random.below(hosts as u64) as usize;
    let chance = random.below(100);
    let chance = match after {
        0..4 if !alone => [0, 80, 50, 95][after as usize],
        _ => chance,
    };
    let fault = match chance {
        _ if menu == Menu::Freezes => Fault::Freeze { host, beyond_lease },
        0..5 if alone => Fault::Freeze { host, beyond_lease },
        _ if alone => Fault::Kill { host, down },
        0..45 => Fault::Kill { host, down },
        45..75 => Fault::Freeze { host, beyond_lease },
        75..92 => Fault::StopDatabase { down: down / 2 },
        _ => Fault::KillDatabase,
    };
    (rest, fault)
}

/// What was done, and how soon there were answers again.
#[derive(Debug, Clone, Default)]
pub struct Done {
    pub faults: BTreeMap<&'static str, u64>,
    /// From a fault, or from when the database was up again, to the first answer that a new client gets from
    /// whichever host comes first.
    pub answers_again: Vec<Duration>,
}

impl Done {
    pub fn count(&self) -> u64 {
        self.faults.values().sum()
    }

    pub fn was_frozen(&self) -> bool {
        self.faults.contains_key(FROZEN)
    }
}

/// The one who does it.
pub struct Nemesis<'a, 'k> {
    pub hosts: &'a mut [HostProcess<'k>],
    pub database: Option<&'a Cluster>,
    pub menu: Menu,
    pub lease: Duration,
    pub recorder: Recorder,
    pub random: Random,
    pub done: Done,
}

impl Nemesis<'_, '_> {
    /// One fault from its beginning to its end.
    pub async fn strike(&mut self) {
        let (rest, fault) = next_fault(&mut self.random, self.hosts.len(), self.menu, self.done.count());
        tokio::time::sleep(rest).await;
        let mut begun = Instant::now();
        match fault {
            Fault::Kill { host, down } => self.kill(host, down).await,
            Fault::Freeze { host, beyond_lease } => self.freeze(host, beyond_lease).await,
            Fault::StopDatabase { down } => {
                self.stop_database(down).await;
                begun = Instant::now();
            }
            Fault::KillDatabase => self.kill_database().await,
        }
        // While one of several hosts is away the others answer: there is nothing to be waited for.
        if self.hosts.len() == 1 || !matches!(fault, Fault::Kill { .. } | Fault::Freeze { .. }) {
            self.answered().await;
            self.done.answers_again.push(begun.elapsed());
        }
        *self.done.faults.entry(fault.kind()).or_default() += 1;
    }

    async fn kill(&mut self, host: usize, down: Duration) {
        let incarnation = self.incarnation(host).await;
        let at = now();
        self.hosts[host].kill();
        if self.hosts.len() == 1 {
            tokio::time::sleep(down).await;
            // A host that has its store for itself takes everything up when it begins.
            let began = self.hosts[host].start().await;
            self.lost(incarnation, at, time::after(began, TAKEOVER + BUSY));
        } else {
            self.lost(incarnation, at, time::after(at, self.lease + TAKEOVER + BUSY));
            tokio::time::sleep(down).await;
            self.hosts[host].start().await;
        }
    }

    async fn freeze(&mut self, host: usize, beyond_lease: Duration) {
        let incarnation = self.incarnation(host).await;
        let at = now();
        self.hosts[host].freeze();
        tokio::time::sleep(self.lease + beyond_lease).await;
        self.hosts[host].thaw();
        let from = if self.hosts.len() == 1 { now() } else { time::after(at, self.lease) };
        self.lost(incarnation, at, time::after(from, TAKEOVER + BUSY));
    }

    async fn stop_database(&mut self, down: Duration) {
        let database = self.database.expect("only fleets have one");
        let from = now();
        tokio::task::block_in_place(|| database.stop_hard());
        tokio::time::sleep(down).await;
        tokio::task::block_in_place(|| database.start_again());
        self.recorder.history().outages.push(Outage { from, to: now() });
    }

    async fn kill_database(&mut self) {
        let database = self.database.expect("only fleets have one");
        let from = now();
        tokio::task::block_in_place(|| database.kill_children());
        self.answered().await;
        self.recorder.history().outages.push(Outage { from, to: now() });
    }

    fn lost(
        &self,
        incarnation: Option<String>,
        at: innkeeper_domain::Timestamp,
        by: innkeeper_domain::Timestamp,
    ) {
        if let Some(host) = incarnation {
            self.recorder.history().losses.push(Loss { host, at, by });
        }
    }

    /// Who the host is now; none if it can't be learned.
    async fn incarnation(&self, host: usize) -> Option<String> {
        let client = Client::connect(&self.hosts[host].data).await?;
        client.incarnation(&self.hosts[host].name).await
    }

    /// Until one of the hosts answers with what the store says.
    async fn answered(&self) {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(30) {
            for host in self.hosts.iter() {
                if let Some(client) = Client::connect(&host.data).await
                    && client.all_triggers().await.is_ok()
                {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no host answers:\n{}", self.hosts.iter().map(HostProcess::log).collect::<String>());
    }
}
