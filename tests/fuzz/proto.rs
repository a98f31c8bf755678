//! Requests of an admin to real services over a real connection: any bytes to any call. Whatever they say, the answer
//! blames the request and not the host, and what was taken reads the same when it is given back.

use crate::cel::value;
use crate::engine::{Input, Seen, Target, plain_words, same};
use crate::host::{Host, Who, name, request};
use crate::message::{Call, Known, Protocol};
use crate::random::Random;
use bytes::{Buf, BufMut};
use innkeeper_api::proto::{CreateTaskRequest, CreateTriggerRequest, Task, Trigger};
use innkeeper_domain::access::Role;
use innkeeper_domain::backfill::Again;
use innkeeper_domain::calendar::{Fold, Gap};
use innkeeper_domain::failure::FailureKind;
use innkeeper_domain::quota::Quota;
use innkeeper_domain::rule::When;
use innkeeper_domain::trigger::{CatchUp, OverlapPolicy};
use innkeeper_domain::webhook::Scheme;
use prost::Message;
use std::time::Duration;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Status};

pub struct Requests {
    protocol: Protocol,
    runtime: tokio::runtime::Runtime,
}

/// Requests of one seed.
const REQUESTS: u64 = 60;
/// The calls that say most.
const RICHEST: [&str; 3] =
    ["TaskService/CreateTask", "TaskService/UpdateTask", "TriggerService/CreateTrigger"];
/// How long a stream may wait for its first message, which may never come.
const FIRST_MESSAGE: Duration = Duration::from_millis(20);
/// A call that takes longer hangs.
const CALL: Duration = Duration::from_secs(60);

impl Requests {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Self { protocol: Protocol::new(), runtime: runtime.unwrap() }
    }
}

impl Target for Requests {
    /// Requests, each a call's path, a line's end, and the message.
    fn make(&mut self, random: &mut Random) -> Input {
        // Some seeds are about few calls only, so that one follows another that matters to it.
        let mut few: Vec<usize> =
            (0..4).map(|_| random.below(self.protocol.calls.len() as u64) as usize).collect();
        let is_rich = |call: &Call| RICHEST.contains(&call.path.as_str());
        few.extend(
            self.protocol.calls.iter().enumerate().filter(|(_, call)| is_rich(call)).map(|(place, _)| place),
        );
        let only_few = random.chance(50);
        let request = |random: &mut Random| {
            let any = random.below(self.protocol.calls.len() as u64) as usize;
            let place = if only_few { random.pick(&few).unwrap_or(any) } else { any };
            let call = &self.protocol.calls[place];
            let message = self.protocol.message(random, call, &Words);
            [call.path.as_bytes(), b"\n", &message].concat()
        };
        (0..1 + random.below(REQUESTS)).map(|_| request(random)).collect()
    }

    fn check(&mut self, input: &[Vec<u8>]) -> Result<Seen, String> {
        self.runtime.block_on(all(&self.protocol, input))
    }
}

/// All requests, to a new host.
async fn all(protocol: &Protocol, input: &[Vec<u8>]) -> Result<Seen, String> {
    let host = Host::start().await;
    let channel = host.connect_from(1).await;
    let ids = ids(&host).await;
    let mut seen = Seen::Refused;
    for (number, piece) in input.iter().enumerate() {
        let Some(end) = piece.iter().position(|byte| *byte == b'\n') else { continue };
        let path = String::from_utf8_lossy(&piece[..end]).into_owned();
        let Some(call) = protocol.calls.iter().find(|call| call.path == path) else { continue };
        let message = with_ids(&ids, &piece[end + 1..]);
        let answer = send(&channel, &path, message, call.streams).await;
        let answered = match answer {
            Ok(answer) => {
                seen = Seen::Taken;
                given_back(&channel, &path, &answer, number).await
            }
            Err(status) => blames_the_request(&path, &status),
        };
        answered.map_err(|why| format!("request {number}, {path}: {why}"))?;
    }
    let lists = send(&channel, "TenantService/ListTenants", Vec::new(), false).await;
    lists.map_err(|status| format!("the host isn't well afterwards: {status}"))?;
    host.stop().await;
    Ok(seen)
}

/// Whether a refusal is one that a mistaken request can have.
fn blames_the_request(path: &str, status: &Status) -> Result<(), String> {
    let is_fault = match status.code() {
        // By gRPC's own rules, of bytes that are no message.
        Code::Internal => !status.message().contains("failed to decode Protobuf message"),
        // Nothing is inspected here, and an upload's chunks need not come.
        Code::Unavailable | Code::DataLoss => path != "ComponentService/PushComponent",
        Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition => false,
        Code::ResourceExhausted | Code::OutOfRange => false,
        _ => true,
    };
    if is_fault {
        return Err(format!("{:?}: {}", status.code(), status.message()));
    }
    plain_words(status.message())
}

/// Gives a task or trigger that was made back as a request: it must be taken again, and be the same.
async fn given_back(channel: &Channel, path: &str, answer: &[u8], number: usize) -> Result<(), String> {
    let name = format!("again-{number}");
    match path {
        "TaskService/CreateTask" | "TaskService/UpdateTask" => {
            let task = Task::decode(answer).map_err(|error| error.to_string())?;
            let again = CreateTaskRequest { name, spec: task.spec.clone() };
            let Some(made) = made(channel, "TaskService/CreateTask", again.encode_to_vec()).await? else {
                return Ok(());
            };
            let made = Task::decode(made.as_slice()).map_err(|error| error.to_string())?;
            same("the task, given back", &task.spec, &made.spec)
        }
        "TriggerService/CreateTrigger" => {
            let trigger = Trigger::decode(answer).map_err(|error| error.to_string())?;
            let asked = as_request(trigger);
            let again = CreateTriggerRequest { name, ..asked.clone() };
            let Some(made) = made(channel, path, again.encode_to_vec()).await? else { return Ok(()) };
            let made = as_request(Trigger::decode(made.as_slice()).map_err(|error| error.to_string())?);
            same(
                "the trigger, given back",
                &asked,
                &CreateTriggerRequest { name: asked.name.clone(), ..made },
            )
        }
        _ => Ok(()),
    }
}

/// What was made; none if there is no room for another, or its task is gone.
async fn made(channel: &Channel, path: &str, message: Vec<u8>) -> Result<Option<Vec<u8>>, String> {
    match send(channel, path, message, false).await {
        Ok(made) => Ok(Some(made)),
        Err(status) if status.code() == Code::ResourceExhausted => Ok(None),
        Err(status) => Err(format!("given back, it is refused: {status}")),
    }
}

fn as_request(trigger: Trigger) -> CreateTriggerRequest {
    let webhook =
        trigger.webhook.map(|webhook| innkeeper_api::proto::WebhookRule { path: String::new(), ..webhook });
    CreateTriggerRequest {
        task: trigger.task,
        name: trigger.name,
        schedule: trigger.schedule,
        input: trigger.input,
        overlap: trigger.overlap,
        catch_up: trigger.catch_up,
        catch_up_window: trigger.catch_up_window,
        not_before: trigger.not_before,
        not_after: trigger.not_after,
        max_runs: trigger.max_runs,
        jitter: trigger.jitter,
        exclude: trigger.exclude,
        event: trigger.event,
        after: trigger.after,
        webhook,
        labels: trigger.labels,
        priority: trigger.priority,
    }
}

/// The first message of an answer; an empty one if a stream has none yet.
async fn send(channel: &Channel, path: &str, message: Vec<u8>, streams: bool) -> Result<Vec<u8>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let mut request = request((), Who::Is(Role::Admin).token().as_deref(), Some("a"));
    request.set_timeout(CALL);
    let request = request.map(|()| futures::stream::iter([message]));
    let path = format!("/innkeeper.v1.{path}").parse().unwrap();
    let first = async {
        let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
        Ok(answers.message().await?.unwrap_or_default())
    };
    if streams {
        tokio::time::timeout(FIRST_MESSAGE, first).await.unwrap_or(Ok(Vec::new()))
    } else {
        first.await
    }
}

/// Messages as the bytes that they are.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).into()))
    }
}

/// What stands for an id in a message until there is a host: as long as an id is.
fn place_of(id: &str) -> String {
    format!("@{id:@<35}")
}

const IDS: [&str; 6] = ["run-mine", "run-other", "run-of-b", "token", "trigger", "backfill"];

/// What these are of a host.
async fn ids(host: &Host) -> [String; IDS.len()] {
    let trigger = host.store.trigger_get(host.a.tenant, &name("mine-hourly")).await.unwrap();
    [
        host.a.runs[0].to_string(),
        host.a.runs[1].to_string(),
        host.b.runs[0].to_string(),
        host.a.token.to_string(),
        trigger.id.to_string(),
        host.backfill("mine-hourly").await,
    ]
}

/// A message with a host's own ids in it.
fn with_ids(ids: &[String; IDS.len()], message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    for (id, real) in IDS.iter().zip(ids) {
        let place = place_of(id);
        while let Some(at) = message.windows(place.len()).position(|window| window == place.as_bytes()) {
            message[at..at + place.len()].copy_from_slice(real.as_bytes());
        }
    }
    message
}

/// One of a kind, or nothing, which stands for the usual one.
fn or_usual<T: Clone + ToString>(random: &mut Random, all: &[T]) -> Option<String> {
    if random.chance(20) { Some(String::new()) } else { any(random, all) }
}

fn any<T: Clone + ToString>(random: &mut Random, all: &[T]) -> Option<String> {
    random.pick(all).map(|one| one.to_string())
}

/// Hosts to allow.
const GRANTS: [&str; 11] = [
    "example.com",
    "EXAMPLE.org.",
    "[::1]:8080",
    "192.0.2.1:1",
    "example.com:5-5",
    "[2001:db8::1]:8000-8099",
    "*.example.com",
    "*.example.com:1-9",
    "example.com:*",
    "*",
    "*:*",
];

/// What texts of a field may mean.
struct Words;

impl Known for Words {
    fn text(&self, random: &mut Random, field: &str) -> Option<String> {
        let one_of = |random: &mut Random, words: &[&str]| random.pick(words).map(Into::into);
        match field {
            "id" => random.pick(&IDS).map(place_of),
            "name" | "key" if random.chance(50) => one_of(random, &["new", "third", "k1", "k2"]),
            "name" if random.chance(30) => any(random, Quota::ALL),
            "name" => one_of(random, &["mine", "mine-hourly", "other", "closed-a", "a", "b"]),
            "task" => one_of(random, &["mine", "mine", "other", ""]),
            "trigger" => one_of(random, &["mine-hourly", "other-hourly", ""]),
            "component" | "digest" => one_of(random, &[COMPONENT, COMPONENT, "sha256:01"]),
            "expression" => one_of(
                random,
                &[
                    "0 3 * * *",
                    "*/5 * * * *",
                    "0 0 9 ? * MON#1",
                    "0 0 29 2 *",
                    "* * * * * *",
                    "@daily",
                    "0 0 31 2 *",
                ],
            ),
            "time_zone" => one_of(random, &["", "UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia"]),
            "dialect" => one_of(random, &["", "", "crontab", "quartz", "rust"]),
            "gap" => or_usual(random, Gap::ALL),
            "fold" => or_usual(random, Fold::ALL),
            "overlap" => or_usual(random, OverlapPolicy::ALL),
            "catch_up" => or_usual(random, CatchUp::ALL),
            "pattern" | "topic" => {
                one_of(random, &["orders.new", "orders.*", "**", "innkeeper.run.failed", "a"])
            }
            "filter" | "input_from" => {
                one_of(random, &["", "data.total > 1", "true", "{'a': data}", "events", "data.a.b"])
            }
            "concurrency_key" => one_of(random, &["", "input.customer", "input", "1/0", "string(input.id)"]),
            "when" => or_usual(random, When::ALL),
            "scheme" => or_usual(random, Scheme::ALL),
            "rate" => one_of(random, &["", "1/s", "100/m", "100000/d"]),
            "secret" | "value" => one_of(random, &["signing", "hunter2!", "x", "1"]),
            "labels" | "requires" | "label" => one_of(random, &["zone=eu", "gpu=a100", "a/b=c", "x=1"]),
            "allow_http" => one_of(random, &GRANTS),
            "on" | "failure_kinds" => any(random, &FailureKind::ALL),
            "exclude" | "holiday" => one_of(random, &["closed-a", "closed-b"]),
            "role" => any(random, Role::ALL),
            "again" => or_usual(random, Again::ALL),
            "content_type" => one_of(random, &["", "application/json", "text/plain"]),
            "file" | "content" => {
                one_of(random, &["2026-12-25 Christmas\n", "BEGIN:VCALENDAR\nEND:VCALENDAR\n"])
            }
            "bytes" | "data" => Some(value(random, 3).to_string()),
            "page_token" | "note" => one_of(random, &["", "", "x", "mine"]),
            "tasks" => one_of(random, &["mine", "other"]),
            "code" | "arguments" => one_of(random, &["x", "--flag"]),
            _ => None,
        }
    }

    fn number(&self, random: &mut Random, field: &str) -> u64 {
        match field {
            "memory_bytes" => 1 << 20,
            _ => 1 + random.below(5),
        }
    }

    fn percent(&self, field: &str) -> u64 {
        match field {
            "name" | "task" | "trigger" | "id" | "component" | "spec" | "expression" | "max_attempts"
            | "pattern" | "secret" | "topic" | "events" | "starts" | "key" | "value" | "role" | "file"
            | "from" | "every" | "delay" | "digest" | "text" | "data" | "bytes" | "filter"
            | "accept_permissions" => 97,
            "schedule" | "allow_http" => 60,
            "event" | "after" | "webhook" => 20,
            _ => 12,
        }
    }
}

/// The digest of the component that every tenant's tasks have.
const COMPONENT: &str = "sha256:80f93e8c7d0e1e083e6aab0b073011d858d092951eb4bb2d595cd43173e04704";
