//! `inn trigger`.

use super::client::{Client, call};
use super::output::{self, Column, number, text};
use super::trigger_rule::RuleOptions;
use super::{
    Format, Global, Usage, Verdict, backfill, component, json, parse, runs_many, task, trigger_next,
    trigger_rule,
};
use crate::host::now;
use anyhow::Result;
use innkeeper_api::proto::{
    CreateTriggerRequest, DeleteTriggerRequest, GetTriggerRequest, ListSkipsRequest, ListTriggersRequest,
    PauseTriggerRequest, ResumeTriggerRequest, Skip, Trigger,
};
use serde_json::Value;
use std::num::NonZeroU64;
use std::time::Duration;

/// Skips that `show` shows.
const SKIPS_SHOWN: u32 = 20;

/// Create, pause and delete triggers
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a trigger of a task, and show it
    #[command(after_help = "Examples:
  inn trigger create report --cron '0 3 * * *' --tz Europe/Berlin
  inn trigger create check --every 30s --input '{\"url\": \"http://api.example.com/\"}'
  inn trigger create report --at 2030-01-31T09:00:00Z --input @january.json
  inn trigger create report --at 'in 10m'
  inn trigger create ship --on-event 'orders.*' --filter 'data.total > 100'
  inn trigger create index --on-event 'pages.**' --debounce 5s --max-wait 1m
  inn trigger create invoice --after ship
  inn trigger create deploy --webhook github --webhook-secret hook")]
    Create {
        task: String,
        #[command(flatten)]
        rule: Box<RuleOptions>,
        /// Its name; the task's and a number if not given
        #[arg(long)]
        name: Option<String>,
        /// The input of its runs: the text itself, @FILE, or - for stdin
        #[arg(long, value_name = "TEXT|@FILE|-", allow_hyphen_values = true)]
        input: Option<String>,
        /// The input's media type; after its looks if not given
        #[arg(long, value_name = "TYPE")]
        content_type: Option<String>,
        /// What happens when it is due while a run of it is unfinished: skip, buffer-one (one waits), buffer-all (they wait
        /// in order), cancel-other (the new one begins when the others have ended) or allow-all [default: skip of schedules,
        /// allow-all of others]
        #[arg(long, value_name = "POLICY")]
        overlap: Option<String>,
        /// Priority of its runs, 0 to 9 [default: the task's]
        #[arg(long, value_name = "0..9", value_parser = clap::value_parser!(u32).range(0..=9))]
        priority: Option<u32>,
        /// Which of the times that were missed run: latest, all or none
        #[arg(long, value_name = "MODE", default_value = "latest")]
        catch_up: String,
        /// How long after its time one that was missed may still run
        #[arg(long, value_name = "DURATION", value_parser = parse::duration, default_value = "24h")]
        catch_up_window: Duration,
        #[command(flatten)]
        bounds: Box<Bounds>,
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
    /// Pause a trigger: it creates no runs until it is resumed; those that there are go on
    #[command(after_help = "Examples:
  inn trigger pause report-1 --note 'the source is down'
  inn trigger pause report-1 --cancel-queued          and cancel its runs that have not begun")]
    Pause {
        name: String,
        /// Cancel its runs that have not begun, its backfills' included
        #[arg(long)]
        cancel_queued: bool,
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
    /// A label of its runs, beside its task's; can be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse::pair)]
    labels: Vec<(String, String)>,
}

pub async fn run(command: Command, global: &Global) -> Result<Verdict> {
    let format = global.output;
    match command {
        Command::Backfill(args) => return backfill::create(args, global).await,
        Command::Next(args) => trigger_next::run(args, global).await?,
        Command::Create {
            task,
            rule,
            name,
            input,
            content_type,
            overlap,
            priority,
            catch_up,
            catch_up_window,
            bounds,
        } => {
            if rule.gives_input() && input.is_some() {
                let why =
                    "a run's input is what starts it: leave out --input, or say --input-from for events";
                return Err(Usage(why.into()).into());
            }
            let mut request = CreateTriggerRequest {
                task,
                name: name.unwrap_or_default(),
                input: Some(parse::input(input.as_deref(), content_type.as_deref())?),
                overlap: overlap.unwrap_or_default(),
                priority,
                catch_up,
                catch_up_window: Some(task::wire(catch_up_window)?),
                not_before: bounds.not_before.as_deref().map(wire_instant).transpose()?,
                not_after: bounds.not_after.as_deref().map(wire_instant).transpose()?,
                max_runs: bounds.max_runs.map(NonZeroU64::get).unwrap_or_default(),
                jitter: bounds.jitter.map(task::wire).transpose()?,
                exclude: bounds.exclude,
                labels: runs_many::texts(&bounds.labels),
                ..CreateTriggerRequest::default()
            };
            rule.write(&mut request)?;
            let client = Client::connect(global).await?;
            show(format, &client, client.triggers().create_trigger(call(request)).await?.into_inner(), &[])?;
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
            show(format, &client, trigger.into_inner(), &skips)?;
        }
        Command::Pause { name, note, cancel_queued } => {
            let client = Client::connect(global).await?;
            let request = PauseTriggerRequest { name, note, cancel_queued };
            let trigger = client.triggers().pause_trigger(call(request)).await?;
            show(format, &client, trigger.into_inner(), &[])?;
        }
        Command::Resume { name } => {
            let client = Client::connect(global).await?;
            let trigger = client.triggers().resume_trigger(call(ResumeTriggerRequest { name })).await?;
            show(format, &client, trigger.into_inner(), &[])?;
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
        triggers.extend(page.triggers.into_iter().map(|trigger| with_url(client, trigger)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    const COLUMNS: &[Column] = &[
        text("name"),
        text("task"),
        text("rule"),
        text("state"),
        text("next"),
        number("started"),
        number("skipped"),
    ];
    let rows = triggers.iter().map(|trigger| {
        vec![
            trigger.name.clone(),
            trigger.task.clone(),
            trigger_rule::words(trigger),
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

fn show(format: Format, client: &Client, trigger: Trigger, skips: &[Skip]) -> Result<()> {
    let trigger = &with_url(client, trigger);
    let lines = |lines: Vec<String>| lines.join("\n");
    let none = prost_types::Duration::default();
    let mut facts = vec![
        ("name", trigger.name.clone()),
        ("task", trigger.task.clone()),
        ("rule", trigger_rule::words(trigger)),
        ("in words", trigger.description.clone()),
    ];
    facts.extend(trigger_rule::facts(trigger));
    let has_times = trigger.schedule.is_some();
    facts.extend([
        ("state", json::trigger_state(trigger).into()),
        ("note", trigger.pause_note.clone()),
        ("not before", output::instant(trigger.not_before)),
        ("not after", output::instant(trigger.not_after)),
        ("at most", if trigger.max_runs == 0 { String::new() } else { format!("{} runs", trigger.max_runs) }),
        (
            "jitter",
            trigger.jitter.filter(|j| *j != none).map_or_else(String::new, |j| trigger_rule::time(Some(j))),
        ),
        ("excludes", trigger.exclude.join(", ")),
        ("labels", trigger.labels.join(" ")),
        ("overlap", trigger.overlap.clone()),
        ("priority", trigger.priority.map_or_else(|| "the task's".into(), |priority| priority.to_string())),
        (
            "catch-up",
            if has_times {
                format!("{}, up to {}", trigger.catch_up, trigger_rule::time(trigger.catch_up_window))
            } else {
                String::new()
            },
        ),
        (
            "next start",
            output::instant(trigger.next_start_at.filter(|start| Some(start) != trigger.next_times.first())),
        ),
        ("next", lines(trigger.next_times.iter().map(|at| output::instant(Some(*at))).collect())),
        ("last", output::instant(trigger.last_nominal_at)),
        ("started", trigger.started.to_string()),
        ("skipped", skipped(trigger)),
        ("skips", lines(skips.iter().map(skip).collect())),
    ]);
    output::facts(format, &facts, || {
        let mut value = json::trigger(trigger);
        if let Value::Object(fields) = &mut value {
            fields.insert("skips".into(), skips.iter().map(json::skip).collect());
        }
        value
    })
}

/// Its webhook's path as the URL that requests go to.
fn with_url(client: &Client, mut trigger: Trigger) -> Trigger {
    if let Some(webhook) = &mut trigger.webhook {
        webhook.path = client.url_of(&webhook.path);
    }
    trigger
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
