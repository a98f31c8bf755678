//! A campaign: hosts on a new store, clients, faults for a while, then quiet; and what is to be said of it all.

use crate::checker::{Exactness, HandedBack, Violation, check, takeovers};
use crate::client::Client;
use crate::cluster::Cluster;
use crate::history::{Answer, Asked, History, Recorder, now};
use crate::nemesis::{Done, Menu, Nemesis, TAKEOVER};
use crate::process::{HostProcess, Keeper, Recipe};
use crate::random::Random;
use crate::state::State;
use crate::workload::{Workload, ask, create_tasks, next_time};
use innkeeper_api::proto::run::State as RunState;
use innkeeper_domain::Timestamp;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long everything may take to come to rest.
const SETTLE_MAX: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(2);
const LEASE_ALONE: Duration = Duration::from_secs(1);

/// When it has gone on for long enough.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    Elapsed(Duration),
    Faults(u64),
}

/// What came of it.
pub struct Report {
    pub history: History,
    pub state: State,
    pub done: Done,
    pub violations: Vec<Violation>,
    pub takeovers: Vec<Duration>,
    pub took: Duration,
    /// What the hosts have logged, if there are violations.
    pub logs: String,
}

/// Hosts that share a database, or one alone.
pub struct Campaign<'a> {
    pub bug: Option<&'static str>,
    pub database: Option<&'a Cluster>,
    pub hosts: usize,
    pub menu: Menu,
    pub seed: u64,
}

impl Campaign<'_> {
    pub async fn run(&self, keeper: &Keeper, until: Until) -> Report {
        let begun = Instant::now();
        let folder = TempDir::with_prefix("innkeeper-chaos-").expect("a temporary folder");
        let lease = if self.hosts == 1 { LEASE_ALONE } else { LEASE };
        let url = self.database.map(Cluster::database);
        let recipe = Recipe { bug: self.bug, database: url, lease };
        let names: Vec<String> = (1..=self.hosts).map(|number| format!("host{number}")).collect();
        let mut hosts: Vec<HostProcess> =
            names.iter().map(|name| HostProcess::new(name, folder.path(), recipe.clone(), keeper)).collect();
        for host in &mut hosts {
            host.start().await;
        }
        let client = Client::connect(&hosts[0].data).await.expect("the first host answers");
        create_tasks(&client).await.expect("tasks are created");

        let mut random = Random::new(self.seed);
        let recorder = Recorder::default();
        let data = hosts.iter().map(|host| host.data.clone()).collect();
        let workload = Workload::new(data, recorder.clone());
        workload.begin(&mut random);
        let mut nemesis = Nemesis {
            hosts: &mut hosts,
            database: self.database,
            menu: self.menu,
            lease,
            recorder: recorder.clone(),
            random,
            done: Done::default(),
        };
        while match until {
            Until::Elapsed(time) => begun.elapsed() < time,
            Until::Faults(faults) => nemesis.done.count() < faults,
        } {
            nemesis.strike().await;
        }
        let done = nemesis.done;
        workload.end().await;
        let state = settle(&hosts, &recorder).await;

        let history = recorder.history().clone();
        let alone = self.hosts == 1;
        let exactness = Exactness {
            clocks: Duration::from_millis(if alone { 5 } else { 250 }),
            // A host that was only killed hands nothing back; one that was frozen does, when it wakes up.
            handed_back: if alone && !done.was_frozen() { HandedBack::Never } else { HandedBack::Possible },
            takeover: lease + TAKEOVER + Duration::from_secs(1),
        };
        let violations = check(&history, &state, exactness);
        let logs = if violations.is_empty() { String::new() } else { logs(&hosts) };
        let takeovers = takeovers(&history, &state);
        Report { history, state, done, violations, takeovers, took: begun.elapsed(), logs }
    }
}

fn logs(hosts: &[HostProcess]) -> String {
    let last = |host: &HostProcess| {
        let log = host.log();
        let lines: Vec<&str> = log.lines().collect();
        format!("{}:\n{}\n", host.name, lines[lines.len().saturating_sub(20)..].join("\n"))
    };
    hosts.iter().map(last).collect()
}

/// Lets everything that is due happen and everything that runs end, and reads what there is then.
async fn settle(hosts: &[HostProcess<'_>], recorder: &Recorder) -> State {
    let begun = Instant::now();
    let mut last = String::new();
    while begun.elapsed() < SETTLE_MAX {
        for host in hosts {
            let Some(client) = Client::connect(&host.data).await else { continue };
            match settle_by(&client, recorder, begun).await {
                Ok(Some(state)) => return state,
                Ok(None) => {}
                Err(status) => last = status.to_string(),
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the hosts don't come to rest ({last}):\n{}", logs(hosts));
}

async fn settle_by(
    client: &Client,
    recorder: &Recorder,
    begun: Instant,
) -> Result<Option<State>, tonic::Status> {
    // Every trigger accounts for all that is due.
    all(client, recorder, Asked::Resume).await?;
    let due = now();
    let is_behind = |next: Option<Timestamp>| next.is_none_or(|next| next <= due);
    while client.all_triggers().await?.iter().map(next_time).any(is_behind) {
        if begun.elapsed() > SETTLE_MAX {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    recorder.history().settled_at = due;
    all(client, recorder, Asked::Pause).await?;
    // And every run ends.
    let unfinished = [RunState::Queued, RunState::Running, RunState::Waiting];
    while !client.all_runs(&unfinished).await?.is_empty() {
        if begun.elapsed() > SETTLE_MAX {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    State::read(client).await.map(Some)
}

async fn all(client: &Client, recorder: &Recorder, asked: Asked) -> Result<(), tonic::Status> {
    for trigger in client.all_triggers().await? {
        let call = ask(client, trigger.name, asked.clone()).await;
        let answer = call.answer.clone();
        recorder.history().triggers.push(call);
        if let Answer::Unknown(words) | Answer::Refused(words) = answer {
            return Err(tonic::Status::unavailable(words));
        }
    }
    Ok(())
}
