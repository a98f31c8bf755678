//! Between the protocol's runs and the domain's.

use crate::convert::{from_duration, from_instant, from_labels, from_payload};
use crate::proto::{self, log_line::Level, run::State};
use crate::status::invalid;
use innkeeper_domain::failure::Failure;
use innkeeper_domain::gate::{Gate, GateKind, GateTerms, Hold, WaitsFor};
use innkeeper_domain::run::{Attempt, LogLevel, LogLine, Run, RunState};
use tonic::Status;

pub(crate) fn state(state: State) -> Result<RunState, Status> {
    match state {
        State::Unspecified => Err(invalid("a state to filter by is unspecified")),
        State::Queued => Ok(RunState::Queued),
        State::Running => Ok(RunState::Running),
        State::Waiting => Ok(RunState::Waiting),
        State::Succeeded => Ok(RunState::Succeeded),
        State::Failed => Ok(RunState::Failed),
        State::Cancelled => Ok(RunState::Cancelled),
    }
}

fn from_state(state: RunState) -> State {
    match state {
        RunState::Queued => State::Queued,
        RunState::Running => State::Running,
        RunState::Waiting => State::Waiting,
        RunState::Succeeded => State::Succeeded,
        RunState::Failed => State::Failed,
        RunState::Cancelled => State::Cancelled,
    }
}

/// A concurrency key for people: a text is told apart from a number by the sign before it.
fn shown_key(key: &str) -> &str {
    key.trim_start_matches('"')
}

/// What a run waits for, with its key's name.
fn waits_for_words(waits_for: WaitsFor, key: Option<&str>) -> String {
    match (waits_for, key) {
        (
            WaitsFor::Gate(GateKind::Key, Gate { terms: GateTerms { most: Some(most), .. }, taken, .. }),
            Some(key),
        ) if taken >= u64::from(most) => {
            format!("the concurrency of its key `{}`, {taken} of {most}", shown_key(key))
        }
        _ => waits_for.to_string(),
    }
}

pub(crate) fn from_run(run: Run) -> proto::Run {
    let waits_for = match (run.waits_for, run.passage.hold) {
        (Some(waits_for), _) => waits_for_words(waits_for, run.concurrency_key.as_deref()),
        (None, Hold::Free) => String::new(),
        (None, Hold::At(kind)) => kind.to_string(),
        (None, Hold::ByHand) => "paused".into(),
    };
    proto::Run {
        priority: run.priority.into(),
        concurrency_key: run.concurrency_key.as_deref().map(shown_key).unwrap_or_default().into(),
        paused: run.passage.hold == Hold::ByHand,
        waits_for,
        id: run.id.to_string(),
        task: run.task.to_string(),
        revision: run.revision,
        trigger: run.trigger.map(|name| name.to_string()).unwrap_or_default(),
        backfill: run.backfill.map(|id| id.to_string()).unwrap_or_default(),
        nominal_at: Some(from_instant(run.nominal_at)),
        state: from_state(run.state).into(),
        attempt: run.attempt,
        idempotency_key: run.idempotency_key.unwrap_or_default(),
        input: Some(from_payload(run.input)),
        output: run.output.map(from_payload),
        failure: run.failure.map(from_failure),
        progress: run.progress.map(|p| proto::Progress { done: p.done, total: p.total, note: p.note }),
        cancel_requested: run.cancel_requested,
        created_at: Some(from_instant(run.created_at)),
        available_at: Some(from_instant(run.available_at)),
        started_at: run.started_at.map(from_instant),
        finished_at: run.finished_at.map(from_instant),
        start_by: run.start_by.map(from_instant),
        end_by: run.end_by.map(from_instant),
        reopened_at: run.reopened_at.map(from_instant),
        labels: from_labels(&run.labels),
        attempts: run.attempts.into_iter().map(from_attempt).collect(),
    }
}

fn from_attempt(attempt: Attempt) -> proto::Attempt {
    proto::Attempt {
        number: attempt.number,
        host: attempt.host.to_string(),
        started_at: Some(from_instant(attempt.started_at)),
        finished_at: Some(from_instant(attempt.finished_at)),
        failure: attempt.failure.map(from_failure),
        wall: Some(from_duration(attempt.usage.wall)),
        peak_memory_bytes: attempt.usage.peak_memory,
        cpu: Some(from_duration(attempt.usage.cpu)),
    }
}

fn from_failure(failure: Failure) -> proto::Failure {
    proto::Failure { kind: failure.kind.to_string(), code: failure.code, message: failure.message }
}

pub(crate) fn from_line(line: LogLine) -> proto::LogLine {
    let level = match line.level {
        LogLevel::Trace => Level::Trace,
        LogLevel::Debug => Level::Debug,
        LogLevel::Info => Level::Info,
        LogLevel::Warn => Level::Warn,
        LogLevel::Error => Level::Error,
    };
    proto::LogLine {
        attempt: line.attempt,
        sequence: line.sequence,
        at: Some(from_instant(line.at)),
        level: level.into(),
        text: line.text,
    }
}
