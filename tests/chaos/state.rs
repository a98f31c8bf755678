//! What there is in the end, as the API tells it.

use crate::client::{Client, instant};
use futures::StreamExt;
use innkeeper_api::proto;
use innkeeper_domain::Timestamp;
use innkeeper_domain::ids::RunId;
use innkeeper_domain::run::RunState;
use std::time::Duration;
use tonic::Status;

/// Runs that are read at one time.
const READS: usize = 32;

#[derive(Debug, Clone)]
pub struct RunSeen {
    pub id: RunId,
    pub task: String,
    pub trigger: Option<String>,
    pub key: Option<String>,
    /// That its input names.
    pub customer: Option<String>,
    pub nominal_at: Timestamp,
    pub created_at: Timestamp,
    pub state: RunState,
    pub attempt: u32,
    pub output: Option<String>,
    pub attempts: Vec<AttemptSeen>,
}

#[derive(Debug, Clone)]
pub struct AttemptSeen {
    pub number: u32,
    /// The incarnation.
    pub host: String,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    /// The failure's kind; none when it succeeded.
    pub failure: Option<String>,
    pub wall: Duration,
}

#[derive(Debug, Clone)]
pub struct TriggerSeen {
    pub name: String,
    pub created_at: Timestamp,
    pub skips: Vec<SkipSeen>,
}

#[derive(Debug, Clone, Copy)]
pub struct SkipSeen {
    pub from: Timestamp,
    pub to: Timestamp,
    pub count: u64,
}

#[derive(Debug, Clone, Default)]
pub struct State {
    pub runs: Vec<RunSeen>,
    pub triggers: Vec<TriggerSeen>,
    /// What the bills say.
    pub billed: Billed,
}

/// Sums of all bills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Billed {
    pub runs: u64,
    pub attempts: u64,
    pub wall: Duration,
}

impl Billed {
    /// What they are to say when these runs are all that there ever were.
    pub fn of(runs: &[RunSeen]) -> Self {
        let attempts = runs.iter().flat_map(|run| &run.attempts);
        let attempts = attempts.filter(|attempt| attempt.failure.as_deref() != Some("host-lost"));
        let mut billed =
            Self { runs: runs.iter().filter(|run| run.state.is_final()).count() as u64, ..Self::default() };
        for attempt in attempts {
            billed.attempts += 1;
            billed.wall += attempt.wall;
        }
        billed
    }
}

impl State {
    pub async fn read(client: &Client) -> Result<Self, Status> {
        let ids: Vec<String> = client.all_runs(&[]).await?.into_iter().map(|run| run.id).collect();
        let reads = ids.into_iter().map(|id| client.run(id));
        let runs: Vec<_> = futures::stream::iter(reads).buffer_unordered(READS).collect().await;
        let runs = runs.into_iter().map(|run| run.map(run_seen)).collect::<Result<_, _>>()?;
        let mut triggers = Vec::new();
        for trigger in client.all_triggers().await? {
            let skips = client.all_skips(&trigger.name).await?;
            let skips = skips.into_iter().map(|skip| SkipSeen {
                from: instant(skip.from),
                to: instant(skip.to),
                count: skip.count,
            });
            triggers.push(TriggerSeen {
                skips: skips.collect(),
                created_at: instant(trigger.created_at),
                name: trigger.name,
            });
        }
        let mut billed = Billed::default();
        for line in client.all_usage().await? {
            billed.runs += line.runs;
            billed.attempts += line.attempts;
            billed.wall += Duration::try_from(line.wall.unwrap_or_default()).unwrap_or_default();
        }
        Ok(Self { runs, triggers, billed })
    }
}

fn run_seen(run: proto::Run) -> RunSeen {
    use proto::run::State;
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    RunSeen {
        state: match run.state() {
            State::Unspecified => panic!("a run without a state: {run:?}"),
            State::Queued => RunState::Queued,
            State::Running => RunState::Running,
            State::Waiting => RunState::Waiting,
            State::Succeeded => RunState::Succeeded,
            State::Failed => RunState::Failed,
            State::Cancelled => RunState::Cancelled,
        },
        id: run.id.parse().expect("a run's id"),
        task: run.task,
        trigger: some(run.trigger),
        key: some(run.idempotency_key),
        customer: run.input.and_then(|input| customer(&input.bytes)),
        nominal_at: instant(run.nominal_at),
        created_at: instant(run.created_at),
        attempt: run.attempt,
        output: run.output.map(|output| String::from_utf8_lossy(&output.bytes).into_owned()),
        attempts: run.attempts.into_iter().map(attempt_seen).collect(),
    }
}

fn customer(input: &[u8]) -> Option<String> {
    let input: serde_json::Value = serde_json::from_slice(input).ok()?;
    input.get("customer")?.as_str().map(Into::into)
}

fn attempt_seen(attempt: proto::Attempt) -> AttemptSeen {
    AttemptSeen {
        number: attempt.number,
        host: attempt.host,
        started_at: instant(attempt.started_at),
        finished_at: instant(attempt.finished_at),
        failure: attempt.failure.map(|failure| failure.kind),
        wall: attempt.wall.unwrap_or_default().try_into().unwrap_or_default(),
    }
}
