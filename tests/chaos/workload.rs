//! Many clients at once, who ask for all sorts of things and keep a record of what they were told.

use crate::client::{Client, instant};
use crate::history::{Answer, Asked, Call, Recorder, Start, now};
use crate::limits;
use crate::random::Random;
use innkeeper_api::proto::{self, start_runs_response::result};
use innkeeper_domain::calendar::{CronSchedule, Dialect, Schedule};
use innkeeper_domain::ids::RunId;
use innkeeper_domain::{Timestamp, time};
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};

/// Clients that start runs.
const CLIENTS: u64 = 12;
/// A client waits up to so long between two calls: the hosts are to be busy, and not to queue up work.
const PAUSE_MAX: u64 = 250;
/// Triggers there are from the beginning, and may come to be.
const TRIGGERS: usize = 24;
const TRIGGERS_MAX: usize = 40;

/// A command that ends at once.
const QUICK: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;
/// One that takes 700 ms.
const SLOW: &str = r#"(module
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const 700000000))
        (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))"#;
/// One that fails, each time.
const FAILING: &str = r#"(module (memory (export "memory") 1) (func (export "_start") unreachable))"#;

/// Makes the tasks that the clients use.
pub async fn create_tasks(client: &Client) -> Result<(), Status> {
    let attempts = |max_attempts| {
        let initial_backoff = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
        let retry = proto::RetryPolicy { max_attempts, initial_backoff, ..proto::RetryPolicy::default() };
        proto::TaskSpec { retry: Some(retry), ..proto::TaskSpec::default() }
    };
    let shared = proto::TaskSpec { concurrency: limits::SHARED_MOST, ..attempts(1) };
    let keyed = proto::TaskSpec {
        concurrency_key: limits::KEY.into(),
        key_concurrency: limits::KEYED_MOST,
        ..attempts(1)
    };
    for (name, text, spec) in [
        ("quick", QUICK, attempts(1)),
        ("slow", SLOW, attempts(1)),
        ("failing", FAILING, attempts(3)),
        (limits::SHARED, SLOW, shared),
        (limits::KEYED, SLOW, keyed),
    ] {
        client.create_task(name, wat::parse_str(text).expect("good WAT"), spec).await?;
    }
    Ok(())
}

/// The clients. They go on until they are stopped.
pub struct Workload {
    /// The hosts' data folders.
    hosts: Vec<PathBuf>,
    recorder: Recorder,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What a client is told by an error.
fn refused_or_unknown<T>(status: &Status) -> Answer<T> {
    let words = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::AlreadyExists
        | Code::NotFound
        | Code::FailedPrecondition
        | Code::InvalidArgument
        | Code::ResourceExhausted => Answer::Refused(words),
        _ => Answer::Unknown(words),
    }
}

impl Workload {
    pub fn new(hosts: Vec<PathBuf>, recorder: Recorder) -> Self {
        Self { hosts, recorder, tasks: TaskTracker::new(), stop: CancellationToken::new() }
    }

    pub fn begin(&self, random: &mut Random) {
        for number in 0..CLIENTS {
            let client = Starter { asks: self.asks(random.number()), number, begun: 0, recent: Vec::new() };
            self.tasks.spawn(client.work());
        }
        let triggers = Triggers { asks: self.asks(random.number()), created: 0 };
        self.tasks.spawn(triggers.work());
    }

    /// Until every client has its last answer.
    pub async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn asks(&self, seed: u64) -> Asks {
        Asks {
            hosts: self.hosts.clone(),
            recorder: self.recorder.clone(),
            stop: self.stop.clone(),
            random: Random::new(seed),
            client: None,
        }
    }
}

/// A client's connection, to one of the hosts at a time.
struct Asks {
    hosts: Vec<PathBuf>,
    recorder: Recorder,
    stop: CancellationToken,
    random: Random,
    client: Option<Client>,
}

impl Asks {
    /// A connection; none when it is time to stop.
    async fn client(&mut self) -> Option<Client> {
        while !self.stop.is_cancelled() {
            if self.client.is_none() || self.random.chance(2) {
                let host = self.random.pick(&self.hosts).expect("hosts");
                self.client = Client::connect(&host).await;
            }
            if let Some(client) = &self.client {
                return Some(client.clone());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }

    async fn rest(&mut self, max: u64) {
        let rest = Duration::from_millis(self.random.below(max));
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn answer<T>(&mut self, answer: Result<T, Status>) -> Answer<T> {
        match answer {
            Ok(answer) => Answer::Acknowledged(answer),
            Err(status) => {
                let answer = refused_or_unknown(&status);
                if matches!(answer, Answer::Unknown(_)) {
                    self.client = None;
                }
                answer
            }
        }
    }
}

/// Starts runs, and cancels some.
struct Starter {
    asks: Asks,
    number: u64,
    begun: u64,
    recent: Vec<(Start, Option<RunId>)>,
}

impl Starter {
    async fn work(mut self) {
        while let Some(client) = self.asks.client().await {
            match self.asks.random.below(100) {
                0..8 => self.cancel(&client).await,
                8..20 => {
                    let starts = (0..=self.asks.random.below(8)).map(|_| self.next()).collect();
                    self.start_many(&client, starts).await;
                }
                20..22 => {
                    let starts = self.limited();
                    self.start_many(&client, starts).await;
                }
                _ => self.start(&client).await,
            }
            self.asks.rest(PAUSE_MAX).await;
        }
    }

    /// A new start, or one of before again: most often with the same input.
    fn next(&mut self) -> Start {
        let random = &mut self.asks.random;
        if random.chance(25)
            && let Some((mut start, _)) = random.pick(&self.recent)
        {
            if random.chance(10) {
                start.input.push(' ');
            }
            return start;
        }
        self.begun += 1;
        let task = random.pick(&["quick", "quick", "quick", "quick", "slow", "failing"]).expect("tasks");
        let key = format!("{}-{}", self.number, self.begun);
        let input = format!("{{\"number\":{}}}", random.number());
        Start { task: task.into(), key, input }
    }

    /// Several of a task of which not all may execute at one time.
    fn limited(&mut self) -> Vec<Start> {
        let random = &mut self.asks.random;
        let task = random.pick(&[limits::SHARED, limits::KEYED]).expect("tasks");
        let customer = random.below(3);
        let starts = (0..=random.below(4)).map(|_| {
            self.begun += 1;
            let key = format!("{}-{}", self.number, self.begun);
            let input = format!("{{\"customer\":\"c{customer}\",\"number\":{}}}", random.number());
            Start { task: task.into(), key, input }
        });
        starts.collect()
    }

    fn record(&mut self, start: Start, asked_at: Timestamp, answer: Answer<RunId>) {
        let id = match &answer {
            Answer::Acknowledged(id) => Some(*id),
            _ => None,
        };
        // A refusal of another input says nothing of the start with the first one.
        if !matches!(answer, Answer::Refused(_)) {
            self.recent.push((start.clone(), id));
            let surplus = self.recent.len().saturating_sub(20);
            self.recent.drain(..surplus);
        }
        let call = Call { asked: start, asked_at, answered_at: now(), answer };
        self.asks.recorder.history().starts.push(call);
    }

    async fn start(&mut self, client: &Client) {
        let start = self.next();
        let asked_at = now();
        let answer = client.runs().start_run(request(&start)).await;
        let answer = answer.map(|answer| {
            let run = answer.into_inner().run.expect("a run");
            run.id.parse().expect("a run's id")
        });
        let answer = self.asks.answer(answer);
        self.record(start, asked_at, answer);
    }

    async fn start_many(&mut self, client: &Client, starts: Vec<Start>) {
        let asked_at = now();
        let request = proto::StartRunsRequest { starts: starts.iter().map(request).collect() };
        let answer = client.runs().start_runs(request).await;
        let answers: Vec<Answer<RunId>> = match self.asks.answer(answer) {
            Answer::Acknowledged(answer) => {
                answer.into_inner().results.into_iter().map(|one| of_result(one.result)).collect()
            }
            Answer::Refused(words) => starts.iter().map(|_| Answer::Refused(words.clone())).collect(),
            Answer::Unknown(words) => starts.iter().map(|_| Answer::Unknown(words.clone())).collect(),
        };
        assert_eq!(answers.len(), starts.len(), "an answer for each start");
        for (start, answer) in starts.into_iter().zip(answers) {
            self.record(start, asked_at, answer);
        }
    }

    async fn cancel(&mut self, client: &Client) {
        let Some((_, Some(id))) = self.asks.random.pick(&self.recent) else { return };
        let asked_at = now();
        let answer = client.runs().cancel_run(proto::CancelRunRequest { id: id.to_string() }).await;
        let answer = answer.map(|answer| answer.into_inner().state() == proto::run::State::Cancelled);
        let answer = self.asks.answer(answer);
        self.asks.recorder.history().cancels.push(Call { asked: id, asked_at, answered_at: now(), answer });
    }
}

fn request(start: &Start) -> proto::StartRunRequest {
    let input = proto::Payload { content_type: "application/json".into(), bytes: start.input.clone().into() };
    proto::StartRunRequest {
        task: start.task.clone(),
        input: Some(input),
        idempotency_key: start.key.clone(),
        ..proto::StartRunRequest::default()
    }
}

fn of_result(answer: Option<result::Result>) -> Answer<RunId> {
    match answer.expect("a result") {
        result::Result::Started(started) => Answer::Acknowledged(started.id.parse().expect("a run's id")),
        result::Result::Error(error) => {
            refused_or_unknown(&Status::new(Code::from_i32(error.code), error.message))
        }
    }
}

/// Creates, pauses and resumes triggers.
struct Triggers {
    asks: Asks,
    created: usize,
}

impl Triggers {
    async fn work(mut self) {
        while let Some(client) = self.asks.client().await {
            let new = self.created < TRIGGERS || (self.created < TRIGGERS_MAX && self.asks.random.chance(10));
            if new {
                self.create(&client).await;
                continue;
            }
            let trigger = format!("t{}", self.asks.random.below(self.created as u64));
            let asked = if self.asks.random.chance(50) { Asked::Pause } else { Asked::Resume };
            let call = ask(&client, trigger, asked).await;
            let answer = call.answer.clone();
            self.asks.recorder.history().triggers.push(call);
            if matches!(answer, Answer::Unknown(_)) {
                self.asks.client = None;
            }
            self.asks.rest(2 * PAUSE_MAX).await;
        }
    }

    async fn create(&mut self, client: &Client) {
        let random = &mut self.asks.random;
        let asked_at = now();
        let every = Duration::from_millis(1_000 + random.below(1_000));
        let cron = random.pick(&["* * * * * *", "*/2 * * * * *"]).expect("expressions");
        let schedule = if random.chance(30) {
            Schedule::Cron(CronSchedule::new(cron, Dialect::Crontab, "UTC"))
        } else {
            // So that they don't all fall due at once.
            Schedule::Interval { every, anchor: time::from_micros(time::to_micros(asked_at)) }
        };
        let name = format!("t{}", self.created);
        let request = proto::CreateTriggerRequest {
            task: "quick".into(),
            name: name.clone(),
            schedule: Some(to_proto(&schedule)),
            overlap: random.pick(&["skip", "allow-all"]).expect("two").into(),
            catch_up: random.pick(&["latest", "all", "all", "none"]).expect("modes").into(),
            ..proto::CreateTriggerRequest::default()
        };
        let answer = client.triggers().create_trigger(request).await.map(|_| ());
        let answer = self.asks.answer(answer);
        self.created += 1;
        let call = Call { asked: (name, Asked::Create(schedule)), asked_at, answered_at: now(), answer };
        self.asks.recorder.history().triggers.push(call);
    }
}

/// Asks to pause or to resume.
pub async fn ask(client: &Client, name: String, asked: Asked) -> Call<(String, Asked), ()> {
    let asked_at = now();
    let mut triggers = client.triggers();
    let answer = match asked {
        Asked::Pause => {
            let request = proto::PauseTriggerRequest {
                name: name.clone(),
                note: "chaos".into(),
                ..proto::PauseTriggerRequest::default()
            };
            triggers.pause_trigger(request).await
        }
        _ => triggers.resume_trigger(proto::ResumeTriggerRequest { name: name.clone() }).await,
    };
    let answer = match answer {
        Ok(_) => Answer::Acknowledged(()),
        Err(status) => refused_or_unknown(&status),
    };
    Call { asked: (name, asked), asked_at, answered_at: now(), answer }
}

fn to_proto(schedule: &Schedule) -> proto::Schedule {
    use proto::schedule::{Cron, Interval, Kind};
    let kind = match schedule {
        Schedule::Cron(cron) => Kind::Cron(Cron { expression: cron.expression.clone(), ..Cron::default() }),
        Schedule::Interval { every, anchor } => {
            let anchor =
                prost_types::Timestamp { seconds: anchor.as_second(), nanos: anchor.subsec_nanosecond() };
            let every = prost_types::Duration::try_from(*every).expect("a short time");
            Kind::Interval(Interval { every: Some(every), anchor: Some(anchor) })
        }
        Schedule::Once { .. } | Schedule::FixedDelay { .. } => panic!("no trigger here is like that"),
    };
    proto::Schedule { kind: Some(kind) }
}

/// When the trigger's next time is that isn't accounted for; none while it is paused.
pub fn next_time(trigger: &proto::Trigger) -> Option<Timestamp> {
    trigger.next_times.first().map(|at| instant(Some(*at)))
}
