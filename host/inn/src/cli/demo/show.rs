//! What the demo shows: each run as it ends, and a summary.

use super::super::client::{Client, call};
use super::super::output::{self, number, text};
use super::super::run::{failure, is_final};
use super::super::runs::{between, fetch, log_line, span};
use super::super::{Format, Verdict, json};
use anyhow::Result;
use innkeeper_api::proto::{GetRunRequest, ListRunsRequest, Run, StreamLogsRequest, run::State};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// How often the host is asked for runs that have ended.
const LOOK: Duration = Duration::from_millis(250);
/// Runs that one look goes back.
const LOOK_BACK: usize = 200;

pub struct Show {
    client: Client,
    shown: HashSet<String>,
    ended: Vec<Run>,
}

impl Show {
    pub fn new(client: Client) -> Self {
        Self { client, shown: HashSet::new(), ended: Vec::new() }
    }

    /// Shows runs as they end, for ever.
    pub async fn follow(&mut self) -> Result<()> {
        loop {
            self.look().await?;
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(&mut self) -> Result<()> {
        let runs = fetch(&self.client, ListRunsRequest::default(), LOOK_BACK).await?;
        for run in runs.into_iter().rev().filter(is_final) {
            if self.shown.insert(run.id.clone()) {
                let run = self.client.runs().get_run(call(GetRunRequest { id: run.id })).await?.into_inner();
                show(&run)?;
                self.ended.push(run);
            }
        }
        Ok(())
    }

    /// Sums up; the verdict is whether any run succeeded.
    pub async fn summary(mut self) -> Result<Verdict> {
        self.look().await?;
        let mut by_trigger: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
        for run in &self.ended {
            by_trigger.entry(&run.trigger).or_default().push(run);
        }
        output::line("\nsummary")?;
        let rows = by_trigger.iter().map(|(trigger, runs)| {
            let succeeded = runs.iter().filter(|run| run.state() == State::Succeeded).count();
            let retried = runs.iter().filter(|run| run.attempt > 1).count();
            let mut took: Vec<_> =
                runs.iter().filter_map(|run| between(run.started_at, run.finished_at)).collect();
            took.sort_unstable();
            let median = took.get(took.len() / 2).copied().map(output::duration).unwrap_or_default();
            let cells =
                [runs.len(), succeeded, runs.len() - succeeded, retried].map(|count| count.to_string());
            [vec![(*trigger).to_string()], cells.to_vec(), vec![median]].concat()
        });
        let columns = [
            text("trigger"),
            number("runs"),
            number("succeeded"),
            number("failed"),
            number("retried"),
            number("median"),
        ];
        output::rows(Format::Table, &columns, rows.collect(), || Value::Null)?;

        let last_of = |trigger: &str| self.ended.iter().rev().find(|run| run.trigger == trigger);
        if let Some(run) = last_of("report").filter(|run| run.state() == State::Succeeded) {
            output::line(&format!("\nthe output of run {} (access-log)", run.id))?;
            output::json(&json::payload(run.output.as_ref()))?;
        }
        for trigger in ["flaky-page", "report"] {
            if let Some(run) = last_of(trigger) {
                output::line(&format!("\nthe log of run {} ({}, trigger {trigger})", run.id, run.task))?;
                self.log(&run.id).await?;
            }
        }
        output::note("\nnext: `inn serve`, and README's five minutes to a task of your own");
        let any = self.ended.iter().any(|run| run.state() == State::Succeeded);
        Ok(if any { Verdict::Succeeded } else { Verdict::Failed })
    }

    async fn log(&self, id: &str) -> Result<()> {
        let request = StreamLogsRequest { id: id.into(), follow: false };
        let mut log = self.client.runs().stream_logs(call(request)).await?.into_inner();
        while let Some(lines) = log.message().await? {
            lines.lines.iter().try_for_each(|line| output::line(&log_line(line)))?;
        }
        Ok(())
    }
}

fn show(run: &Run) -> Result<()> {
    let mark = match run.state() {
        State::Succeeded => console::style("✓").green(),
        _ => console::style("✗").red(),
    };
    let end = match &run.failure {
        Some(failed) if run.state() != State::Succeeded => failure(failed),
        _ => output::harmless(&brief(&json::payload(run.output.as_ref()))),
    };
    let late = if run.attempt == 1 {
        format!("late {:>7}", span(run.nominal_at, run.started_at))
    } else {
        format!("attempt {:>4}", run.attempt)
    };
    let took = span(run.started_at, run.finished_at);
    let at = output::instant(run.nominal_at);
    let time = at.get(11..19).unwrap_or_default();
    output::line(&format!("{mark} {time}  {:11}  {late}  took {took:>7}  {end}", run.trigger))
}

/// An output in a few words.
fn brief(output: &Value) -> String {
    let Value::Object(fields) = output else { return output.to_string().chars().take(60).collect() };
    let simple =
        fields.iter().filter(|(_, value)| value.is_number() || value.is_boolean() || value.is_string());
    let words: Vec<String> =
        simple.map(|(name, value)| format!("{name}={}", value.to_string().trim_matches('"'))).collect();
    let words = words.join(" ");
    if words.chars().count() <= 72 { words } else { words.chars().take(71).chain(['…']).collect() }
}
