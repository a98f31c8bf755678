//! `inn trigger`.

use super::client::{Client, call};
use super::output::{self, Column, number, text};
use super::trigger_next::{self, ScheduleOptions};
use super::{Format, Global, Verdict, backfill, component, json, parse, task};
use crate::host::now;
use anyhow::Result;
use innkeeper_api::proto::schedule::Kind;
use innkeeper_api::proto::{
    CreateTriggerRequest, DeleteTriggerRequest, GetTriggerRequest, ListSkipsRequest, ListTriggersRequest,
    PauseTriggerRequest, ResumeTriggerRequest, Schedule, Skip, Trigger,
};
use serde_json::Value;
use std::num::NonZeroU64;
use std::time::Duration;

/// Skips that `show` shows.
const SKIPS_SHOWN: u32 = 20;

/// Create, pause and delete triggers
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a trigger of a task, and show its next times
    #[command(after_help = "Examples:
  inn trigger create report --cron '0 3 * * *' --tz Europe/Berlin
  inn trigger create check --every 30s --input '{\"url\": \"http://api.example.com/\"}'
  inn trigger create report --at 2030-01-31T09:00:00Z --input @january.json
  inn trigger create report --at 'in 10m'")]
    Create {
        task: String,
        #[command(flatten)]
        schedule: ScheduleOptions,
        /// Its name; the task's and a number if not given
        #[arg(long)]
        name: Option<String>,
        /// The input of its runs: the text itself, @FILE, or - for stdin
        #[arg(long, value_name = "TEXT|@FILE|-", allow_hyphen_values = true)]
        input: Option<String>,
        /// The input's media type; after its looks if not given
        #[arg(long, value_name = "TYPE")]
        content_type: Option<String>,
        /// What happens when it is due while a run of it is unfinished: skip or allow-all
        #[arg(long, value_name = "POLICY", default_value = "skip")]
        overlap: String,
        /// Which of the times that were missed run: latest, all or none
        #[arg(long, value_name = "MODE", default_value = "latest")]
        catch_up: String,
        /// How long after its time one that was missed may still run
        #[arg(long, value_name = "DURATION", value_parser = parse::duration, default_value = "24h")]
        catch_up_window: Duration,
        #[command(flatten)]
        bounds: Bounds,
    },
    /// List triggers
    Ls {
        /// Only those of this task
        #[arg(long)]
        task: Option<String>,
    },
    /// Show a trigger, and the times that have no run
    Show {
        name: String,
    },
    /// Print the next times of a trigger, or of a schedule (which needs no host)
    #[command(after_help = "Examples:
  inn trigger next report-1
  inn trigger next --cron '0 3 * * *' --tz America/New_York --count 5
  inn trigger next --cron '30 2 * * *' --tz Europe/Berlin --from 2026-03-28T00:00:00Z --count 3 -o json")]
    Next(trigger_next::Args),
    /// Pause a trigger: it creates no runs until it is resumed
    Pause {
        name: String,
        /// Why, for people
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Resume a paused trigger; times that passed are skipped, on record
    Resume {
        name: String,
    },
    Backfill(backfill::Args),
    /// Delete a trigger; its runs that have not begun are cancelled
    Rm {
        name: String,
    },
}

/// What a trigger keeps to, beside its schedule.
#[derive(Debug, clap::Args)]
pub struct Bounds {
    /// Its first time is no earlier than this instant
    #[arg(long, value_name = "INSTANT")]
    not_before: Option<String>,
    /// Its last time is no later than this instant
    #[arg(long, value_name = "INSTANT")]
    not_after: Option<String>,
    /// After so many runs it has finished
    #[arg(long, value_name = "N")]
    max_runs: Option<NonZeroU64>,
    /// Start each run later than its time by less than this; how much is drawn from the trigger and the time
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    jitter: Option<Duration>,
    /// Skip its times on the dates of this holiday calendar; several times for several
    #[arg(long, value_name = "NAME")]
    exclude: Vec<String>,
}

pub async fn run(command: Command, global: &Global) -> Result<Verdict> {
    let format = global.output;
    match command {
        Command::Backfill(args) => return backfill::create(args, global).await,
        Command::Next(args) => trigger_next::run(args, global).await?,
        Command::Create {
            task,
            schedule,
            name,
            input,
            content_type,
            overlap,
            catch_up,
            catch_up_window,
            bounds,
        } => {
            let request = CreateTriggerRequest {
                task,
                name: name.unwrap_or_default(),
                schedule: Some(schedule.wire()?),
                input: Some(parse::input(input.as_deref(), content_type.as_deref())?),
                overlap,
                catch_up,
                catch_up_window: Some(task::wire(catch_up_window)?),
                not_before: bounds.not_before.as_deref().map(wire_instant).transpose()?,
                not_after: bounds.not_after.as_deref().map(wire_instant).transpose()?,
                max_runs: bounds.max_runs.map(NonZeroU64::get).unwrap_or_default(),
                jitter: bounds.jitter.map(task::wire).transpose()?,
                exclude: bounds.exclude,
            };
            let client = Client::connect(global).await?;
            show(format, client.triggers().create_trigger(call(request)).await?.get_ref(), &[])?;
        }
        Command::Ls { task } => {
            list(format, &Client::connect(global).await?, task.unwrap_or_default()).await?
        }
        Command::Show { name } => {
            let client = Client::connect(global).await?;
            let trigger =
                client.triggers().get_trigger(call(GetTriggerRequest { name: name.clone() })).await?;
            let skips = ListSkipsRequest { trigger: name, page_size: SKIPS_SHOWN, page_token: String::new() };
            let skips = client.triggers().list_skips(call(skips)).await?.into_inner().skips;
            show(format, trigger.get_ref(), &skips)?;
        }
        Command::Pause { name, note } => {
            let client = Client::connect(global).await?;
            let trigger = client.triggers().pause_trigger(call(PauseTriggerRequest { name, note })).await?;
            show(format, trigger.get_ref(), &[])?;
        }
        Command::Resume { name } => {
            let client = Client::connect(global).await?;
            let trigger = client.triggers().resume_trigger(call(ResumeTriggerRequest { name })).await?;
            show(format, trigger.get_ref(), &[])?;
        }
        Command::Rm { name } => {
            let client = Client::connect(global).await?;
            let request = DeleteTriggerRequest { name: name.clone() };
            let deleted = client.triggers().delete_trigger(call(request)).await?;
            component::deleted(format, &name, deleted.get_ref().cancelled_runs)?;
        }
    }
    Ok(Verdict::Succeeded)
}

fn wire_instant(text: &str) -> Result<prost_types::Timestamp> {
    Ok(output::wire_instant(parse::instant(text, now())?))
}

async fn list(format: Format, client: &Client, task: String) -> Result<()> {
    let (mut triggers, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListTriggersRequest { task: task.clone(), page_size: 0, page_token };
        let page = client.triggers().list_triggers(call(request)).await?.into_inner();
        triggers.extend(page.triggers);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    const COLUMNS: &[Column] = &[
        text("name"),
        text("task"),
        text("schedule"),
        text("state"),
        text("next"),
        number("started"),
        number("skipped"),
    ];
    let rows = triggers.iter().map(|trigger| {
        vec![
            trigger.name.clone(),
            trigger.task.clone(),
            schedule(trigger.schedule.as_ref()),
            json::trigger_state(trigger).into(),
            output::instant(trigger.next_times.first().copied()),
            trigger.started.to_string(),
            trigger.skipped.to_string(),
        ]
    });
    output::rows(format, COLUMNS, rows.collect(), || {
        Value::Array(triggers.iter().map(json::trigger).collect())
    })
}

/// A schedule as people write it.
fn schedule(schedule: Option<&Schedule>) -> String {
    match schedule.and_then(|schedule| schedule.kind.as_ref()) {
        Some(Kind::Cron(cron)) if cron.dialect == "crontab" => {
            format!("cron {} {}", cron.expression, cron.time_zone)
        }
        Some(Kind::Cron(cron)) => format!("cron {} {} ({})", cron.expression, cron.time_zone, cron.dialect),
        Some(Kind::Interval(interval)) => format!("every {}", every(interval.every)),
        Some(Kind::FixedDelay(fixed)) => format!("{} after each run", every(fixed.delay)),
        Some(Kind::Once(at)) => format!("at {}", output::instant(Some(*at))),
        None => String::new(),
    }
}

fn every(every: Option<prost_types::Duration>) -> String {
    trigger_next::every(every.and_then(|every| Duration::try_from(every).ok()).unwrap_or_default())
}

fn show(format: Format, trigger: &Trigger, skips: &[Skip]) -> Result<()> {
    let lines = |lines: Vec<String>| lines.join("\n");
    let none = prost_types::Duration::default();
    let facts = [
        ("name", trigger.name.clone()),
        ("task", trigger.task.clone()),
        ("schedule", schedule(trigger.schedule.as_ref())),
        ("in words", trigger.description.clone()),
        ("state", json::trigger_state(trigger).into()),
        ("note", trigger.pause_note.clone()),
        ("not before", output::instant(trigger.not_before)),
        ("not after", output::instant(trigger.not_after)),
        ("at most", if trigger.max_runs == 0 { String::new() } else { format!("{} runs", trigger.max_runs) }),
        ("jitter", trigger.jitter.filter(|j| *j != none).map_or_else(String::new, |j| every(Some(j)))),
        ("excludes", trigger.exclude.join(", ")),
        ("overlap", trigger.overlap.clone()),
        ("catch-up", format!("{}, up to {}", trigger.catch_up, every(trigger.catch_up_window))),
        (
            "next start",
            output::instant(trigger.next_start_at.filter(|start| Some(start) != trigger.next_times.first())),
        ),
        ("next", lines(trigger.next_times.iter().map(|at| output::instant(Some(*at))).collect())),
        ("last", output::instant(trigger.last_nominal_at)),
        ("started", trigger.started.to_string()),
        ("skipped", skipped(trigger)),
        ("skips", lines(skips.iter().map(skip).collect())),
    ];
    output::facts(format, &facts, || {
        let mut value = json::trigger(trigger);
        if let Value::Object(fields) = &mut value {
            fields.insert("skips".into(), skips.iter().map(json::skip).collect());
        }
        value
    })
}

/// How many times have no run, and why, as far as that is on record still.
fn skipped(trigger: &Trigger) -> String {
    let reasons: Vec<String> =
        trigger.skips_by_reason.iter().map(|skips| format!("{} {}", skips.count, skips.reason)).collect();
    match reasons.as_slice() {
        [] => trigger.skipped.to_string(),
        reasons => format!("{} ({})", trigger.skipped, reasons.join(", ")),
    }
}

fn skip(skip: &Skip) -> String {
    let (from, to) = (output::instant(skip.from), output::instant(skip.to));
    if skip.count == 1 {
        format!("{from}  {}", skip.reason)
    } else {
        format!("{from} to {to}  {} times  {}", skip.count, skip.reason)
    }
}
