//! `inn task`.

use super::client::{Client, call};
use super::task_grants::{Accept, Decision};
use super::{
    Format, Global, Usage, Verdict, component, json, output, parse, runs_many, task_diff, task_facts,
    task_grants, task_limits, task_list,
};
use anyhow::Result;
use innkeeper_api::proto::{
    CreateTaskRequest, DeleteTaskRequest, GetTaskRequest, ListRevisionsRequest, PauseTaskRequest,
    ResumeTaskRequest, RetryPolicy, Revision, RollbackTaskRequest, Task, TaskSpec, UpdateTaskRequest,
};
use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

/// Create, change and delete tasks
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a task
    #[command(after_help = "Examples:
  inn task create hello --component hello.wasm
  inn task create report --component sha256:4ec8... --timeout 2s --memory 64MiB --config REGION=eu
  inn task create convert --component convert.wasm --memory 128MiB --scratch 32MiB
  inn task create check --component http-check.wasm --allow-http api.example.com --attempts 3 --backoff 1s
  inn task create train --component train.wasm --require gpu=a100
  inn task create quote --component quote.wasm --start-deadline 1m --deadline 10m --label team=sales
  inn task create sync --component sync.wasm --secret api-token --secret TLS_KEY=tls-key
  inn task create mail --component mail.wasm --concurrency 4 --rate 100/m --priority 7
  inn task create bill --component bill.wasm --concurrency-key input.customer")]
    Create {
        name: String,
        #[command(flatten)]
        options: Options,
    },
    /// Change a task: a new revision, with what is given changed and the rest as it was
    ///
    /// One that is granted more than the current one, hosts or secrets, must be accepted.
    #[command(after_help = "Examples:
  inn task update hello --component hello.wasm
  inn task update report --config REGION=us --unset-config DEBUG
  inn task update check --allow-http www.example.com --accept-permissions")]
    Update {
        name: String,
        #[command(flatten)]
        options: Options,
        /// Remove a config entry; can be repeated
        #[arg(long, value_name = "KEY")]
        unset_config: Vec<String>,
        /// Show it the secret under this key no more; can be repeated
        #[arg(long, value_name = "KEY")]
        unset_secret: Vec<String>,
        /// Grant no hosts any more (those of --allow-http are granted anew)
        #[arg(long)]
        clear_allow_http: bool,
        /// Require nothing of hosts any more (labels of --require are required anew)
        #[arg(long)]
        clear_requires: bool,
        /// Label its runs with nothing any more (labels of --label are given anew)
        #[arg(long)]
        clear_labels: bool,
        /// Pass no arguments any more (those of --arg are passed anew)
        #[arg(long)]
        clear_args: bool,
        #[command(flatten)]
        clear: task_limits::Clear,
        #[command(flatten)]
        accept: Accept,
    },
    /// Let nothing of a task begin until it is resumed; what executes goes on
    #[command(after_help = "Examples:
  inn task pause report --note 'the warehouse is being moved'
  inn task pause report --cancel-queued")]
    Pause {
        name: String,
        /// Why
        #[arg(long, default_value = "")]
        note: String,
        /// Cancel the runs that have not begun; otherwise they wait
        #[arg(long)]
        cancel_queued: bool,
    },
    /// Let a paused task go on
    Resume { name: String },
    /// List tasks
    Ls {
        /// Only those with this label; can be repeated, for those with all of them
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse::pair)]
        labels: Vec<(String, String)>,
    },
    /// Show a task
    Show {
        name: String,
        /// All its revisions, the newest first
        #[arg(long)]
        revisions: bool,
    },
    /// Show what changed between two revisions
    #[command(after_help = "Examples:
  inn task diff hello        the newest two
  inn task diff hello 3      revision 3 and the newest
  inn task diff hello 3 5")]
    Diff { name: String, from: Option<u32>, to: Option<u32> },
    /// Make a new revision that repeats an older one
    ///
    /// One that was granted more than the current one is, hosts or secrets, must be accepted.
    Rollback {
        name: String,
        revision: u32,
        #[command(flatten)]
        accept: Accept,
    },
    /// Delete a task with its triggers; its runs that have not begun are cancelled
    Rm {
        name: String,
        /// Don't ask; it is asked only on a terminal
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// A WebAssembly file, which is uploaded, or the digest of an uploaded component
    #[arg(long, value_name = "FILE|DIGEST")]
    component: Option<String>,
    /// How long one attempt may take [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    timeout: Option<Duration>,
    /// Memory of one attempt [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    memory: Option<u64>,
    /// Files of one attempt, in a directory `/` that is empty at its beginning and gone at its end; their bytes count
    /// as memory. 0 for none [default: none]
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    scratch: Option<u64>,
    /// A config entry: wasi:config for handlers, the environment for commands; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::pair)]
    config: Vec<(String, String)>,
    /// A secret (`inn secret set`) that it is shown like config, under a key or its own name; can be repeated
    #[arg(long = "secret", value_name = "[KEY=]NAME", value_parser = secret)]
    secrets: Vec<(String, String)>,
    /// An argument of a command; can be repeated
    #[arg(long = "arg", value_name = "ARG", allow_hyphen_values = true)]
    arguments: Vec<String>,
    /// A host that it may speak HTTP with: api.example.com, `*.example.com` for all names below, `*` for any; with :PORT,
    /// :8000-8099 or `:*` unless that is 80 or 443; can be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    allow_http: Vec<String>,
    /// A label that a host must have to execute it (`inn serve --label`); can be repeated
    #[arg(long = "require", value_name = "KEY=VALUE", value_parser = parse::pair)]
    requires: Vec<(String, String)>,
    /// Fail a run unless its first attempt begins within this of when it is due; 0s for any time [default: any time]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    start_deadline: Option<Duration>,
    /// Fail a run unless it is over within this of when it is due, retries included; 0s for any time [default: any time]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    deadline: Option<Duration>,
    /// How long a cancelled attempt may take to end by itself [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    cancel_grace: Option<Duration>,
    /// A label of its runs; can be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse::pair)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    limits: task_limits::Limits,
    /// How often a run is tried in all [default: 1]
    #[arg(long, value_name = "N")]
    attempts: Option<u32>,
    /// The wait after the first failed attempt [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    backoff: Option<Duration>,
    /// What the wait is multiplied by each time [default: 2]
    #[arg(long, value_name = "N")]
    backoff_factor: Option<u32>,
    /// The longest wait [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    backoff_max: Option<Duration>,
    /// How much of a wait may be taken off at random, in percent [default: 10]
    #[arg(long, value_name = "PERCENT")]
    backoff_jitter: Option<u32>,
    /// The kinds of failure that are tried again: guest, exit, trap, timeout, memory, output-too-large,
    /// internal, quota, secret [default: all but the last two]
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    retry_on: Vec<String>,
    /// Whether runs are recorded. Not available yet: `always` warns, and nothing is recorded
    #[arg(long, value_enum, default_value_t = Record::Never)]
    record: Record,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Record {
    #[default]
    Never,
    Always,
}

impl Options {
    /// Whether anything was given that a definition holds.
    fn change_anything(&self) -> bool {
        self.component.is_some()
            || self.timeout.is_some()
            || self.memory.is_some()
            || self.scratch.is_some()
            || !self.config.is_empty()
            || !self.secrets.is_empty()
            || !self.arguments.is_empty()
            || !self.allow_http.is_empty()
            || !self.requires.is_empty()
            || self.start_deadline.is_some()
            || self.deadline.is_some()
            || self.cancel_grace.is_some()
            || !self.labels.is_empty()
            || self.limits.change_anything()
            || self.change_retry()
    }

    fn change_retry(&self) -> bool {
        self.attempts.is_some()
            || self.backoff.is_some()
            || self.backoff_factor.is_some()
            || self.backoff_max.is_some()
            || self.backoff_jitter.is_some()
            || !self.retry_on.is_empty()
    }

    /// Puts what was given into a definition, the component aside: that one is uploaded when all else is known.
    fn apply(self, spec: &mut TaskSpec) -> Result<()> {
        let change_retry = self.change_retry();
        if self.record == Record::Always {
            output::note("warning: runs can't be recorded yet; nothing will be (--record always)");
        }
        if let Some(timeout) = self.timeout {
            spec.timeout = Some(wire(timeout)?);
        }
        if let Some(memory) = self.memory {
            if memory == 0 {
                return Err(Usage("no task can do with 0 bytes of memory".into()).into());
            }
            spec.memory_bytes = memory;
        }
        spec.scratch_bytes = self.scratch.unwrap_or(spec.scratch_bytes);
        spec.config.extend(self.config);
        spec.secrets.extend(self.secrets);
        spec.arguments.extend(self.arguments);
        for host in self.allow_http {
            if !spec.allow_http.contains(&host) {
                spec.allow_http.push(host);
            }
        }
        label(&mut spec.requires, self.requires);
        label(&mut spec.labels, self.labels);
        if let Some(deadline) = self.start_deadline {
            spec.start_deadline = (!deadline.is_zero()).then(|| wire(deadline)).transpose()?;
        }
        if let Some(deadline) = self.deadline {
            spec.deadline = (!deadline.is_zero()).then(|| wire(deadline)).transpose()?;
        }
        if let Some(grace) = self.cancel_grace {
            spec.cancel_grace = Some(wire(grace)?);
        }
        self.limits.apply(spec);
        if change_retry {
            let retry =
                spec.retry.get_or_insert_with(|| RetryPolicy { max_attempts: 1, ..RetryPolicy::default() });
            retry.max_attempts = self.attempts.unwrap_or(retry.max_attempts);
            retry.initial_backoff = self.backoff.map(wire).transpose()?.or(retry.initial_backoff);
            retry.backoff_factor = self.backoff_factor.unwrap_or(retry.backoff_factor);
            retry.max_backoff = self.backoff_max.map(wire).transpose()?.or(retry.max_backoff);
            retry.jitter_percent = self.backoff_jitter.or(retry.jitter_percent);
            if !self.retry_on.is_empty() {
                retry.on = self.retry_on;
            }
        }
        Ok(())
    }
}

/// Puts labels in place of those with the same keys.
fn label(labels: &mut Vec<String>, new: Vec<(String, String)>) {
    for (key, value) in new {
        labels.retain(|label| label.split_once('=').is_none_or(|(of, _)| of != key));
        labels.push(format!("{key}={value}"));
    }
}

/// `KEY=NAME`, or a name that is the key as well.
fn secret(text: &str) -> Result<(String, String), String> {
    if text.contains('=') { parse::pair(text) } else { Ok((text.into(), text.into())) }
}

/// Whether there is somebody to ask.
pub fn on_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// What the person at the terminal answers; none without one.
pub fn answer(question: &str) -> Result<Option<String>> {
    if !on_terminal() {
        return Ok(None);
    }
    write!(io::stderr().lock(), "{question} [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(Some(answer))
}

pub fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// Whether the person at the terminal says yes; without one, nobody is asked.
pub fn agreed(question: &str) -> Result<bool> {
    Ok(answer(question)?.is_none_or(|answer| is_yes(&answer)))
}

/// A duration as the protocol has it.
pub fn wire(duration: Duration) -> Result<prost_types::Duration> {
    duration.try_into().map_err(|_| Usage("that duration is too long".into()).into())
}

pub async fn run(command: Command, global: &Global) -> Result<Verdict> {
    let client = Client::connect(global).await?;
    match command {
        Command::Create { name, mut options } => {
            let Some(component) = options.component.take() else {
                return Err(Usage("a task needs a component (--component FILE|DIGEST)".into()).into());
            };
            let mut spec = TaskSpec::default();
            options.apply(&mut spec)?;
            spec.component = component::resolve(&client, &component).await?;
            let task = client.tasks().create_task(call(CreateTaskRequest { name, spec: Some(spec) })).await?;
            show(global.output, task.get_ref())?;
            task_grants::tell(&client, task.get_ref()).await;
        }
        Command::Update {
            name,
            mut options,
            unset_config,
            unset_secret,
            clear_allow_http,
            clear_requires,
            clear_labels,
            clear_args,
            clear,
            accept,
        } => {
            let clears = clear_allow_http || clear_requires || clear_labels || clear_args || clear.anything();
            let unsets = !unset_config.is_empty() || !unset_secret.is_empty();
            if !unsets && !clears && !options.change_anything() {
                return Err(
                    Usage("say what is to change; `inn task update --help` lists what can".into()).into()
                );
            }
            let task = get(&client, &name).await?;
            let old = task.spec.unwrap_or_default();
            let mut spec = old.clone();
            for key in unset_config {
                if spec.config.remove(&key).is_none() {
                    return Err(Usage(format!("the task has no config entry `{key}`")).into());
                }
            }
            for key in unset_secret {
                if spec.secrets.remove(&key).is_none() {
                    return Err(Usage(format!("the task has no secret under the key `{key}`")).into());
                }
            }
            if clear_allow_http {
                spec.allow_http.clear();
            }
            if clear_requires {
                spec.requires.clear();
            }
            if clear_labels {
                spec.labels.clear();
            }
            if clear_args {
                spec.arguments.clear();
            }
            clear.apply(&mut spec);
            let component = options.component.take();
            options.apply(&mut spec)?;
            let Decision::Send(accept_permissions) = accept.decide(&name, &old, &spec)? else {
                return Ok(declined());
            };
            if let Some(component) = component {
                spec.component = component::resolve(&client, &component).await?;
            }
            let expected_revision = task.revision;
            let request = UpdateTaskRequest { name, spec: Some(spec), expected_revision, accept_permissions };
            let task = client.tasks().update_task(call(request)).await?;
            show(global.output, task.get_ref())?;
            task_grants::tell(&client, task.get_ref()).await;
        }
        Command::Pause { name, note, cancel_queued } => {
            let request = PauseTaskRequest { name, note, cancel_queued };
            let paused = client.tasks().pause_task(call(request)).await?.into_inner();
            if cancel_queued {
                output::note(&output::cancelled(paused.cancelled_runs));
            }
            show(global.output, &paused.task.unwrap_or_default())?;
        }
        Command::Resume { name } => {
            let task = client.tasks().resume_task(call(ResumeTaskRequest { name })).await?;
            show(global.output, task.get_ref())?;
        }
        Command::Ls { labels } => task_list::tasks(global.output, &client, runs_many::texts(&labels)).await?,
        Command::Show { name, revisions: false } => show(global.output, &get(&client, &name).await?)?,
        Command::Show { name, revisions: true } => {
            task_list::revisions(global.output, &client, &name).await?
        }
        Command::Diff { name, from, to } => task_diff::run(global.output, &client, &name, from, to).await?,
        Command::Rollback { name, revision, accept } => {
            let (decision, expected_revision) = accept.decide_rollback(&client, &name, revision).await?;
            let Decision::Send(accept_permissions) = decision else { return Ok(declined()) };
            let request = RollbackTaskRequest { name, revision, expected_revision, accept_permissions };
            let task = client.tasks().rollback_task(call(request)).await?;
            show(global.output, task.get_ref())?;
            task_grants::tell(&client, task.get_ref()).await;
        }
        Command::Rm { name, yes } => {
            if !yes && !agreed(&format!("delete task `{name}` with its triggers and queued runs?"))? {
                output::note("nothing was deleted");
                return Ok(Verdict::Failed);
            }
            let deleted = client.tasks().delete_task(call(DeleteTaskRequest { name: name.clone() })).await?;
            component::deleted(global.output, &name, deleted.get_ref().cancelled_runs)?;
        }
    }
    Ok(Verdict::Succeeded)
}

/// Of a change whose grants were not accepted.
fn declined() -> Verdict {
    output::note("nothing was changed");
    Verdict::Failed
}

async fn get(client: &Client, name: &str) -> Result<Task> {
    Ok(client.tasks().get_task(call(GetTaskRequest { name: name.into() })).await?.into_inner())
}

fn show(format: Format, task: &Task) -> Result<()> {
    let spec = task.spec.clone().unwrap_or_default();
    let mut facts = vec![("name", task.name.clone()), ("revision", task.revision.to_string())];
    if task.paused_at.is_some() {
        let since = output::instant(task.paused_at);
        facts.push(("paused", format!("since {since} {}", task.pause_note)));
    }
    facts.extend(task_facts::spec_facts(&spec));
    facts.extend([
        ("created", output::instant(task.created_at)),
        ("updated", output::instant(task.updated_at)),
    ]);
    output::facts(format, &facts, || json::task(task))
}

/// All revisions, the newest first.
pub async fn revisions(client: &Client, name: &str) -> Result<Vec<Revision>> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListRevisionsRequest { name: name.into(), page_size: 0, page_token };
        let page = client.tasks().list_revisions(call(request)).await?.into_inner();
        all.extend(page.revisions);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}
