//! The command line: one file a subcommand, named after the same nouns as everywhere.

mod audit;
mod backfill;
mod backup;
mod bench;
mod client;
mod completions;
mod component;
mod context;
mod demo;
mod event;
mod forecast;
mod holidays;
mod hosts;
mod json;
mod r#move;
mod output;
mod parse;
mod quota;
mod restore;
mod run;
mod runs;
mod runs_many;
mod secret;
mod serve;
mod serve_access;
mod target;
mod task;
mod task_diff;
mod task_facts;
mod task_grants;
mod task_limits;
mod task_list;
mod tenant;
mod tls;
mod token;
mod token_recover;
mod transfer;
mod trigger;
mod trigger_next;
mod trigger_rule;
mod upload;
mod usage;
mod whoami;

use crate::contexts::NoContext;
use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use innkeeper_store::StoreError;
use std::error::Error as _;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use target::Said;
use tonic::{Code, Status};

/// Innkeeper: runs other people's code on time, each task in a WebAssembly sandbox.
#[derive(Debug, Parser)]
#[command(name = "inn", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Five minutes:
  inn serve &                                        start a host
  inn task create hello --component hello.wasm       upload a task
  inn run hello --input '{\"name\": \"you\"}' --wait     run it
  inn trigger create hello --every 5s                and again every 5 seconds
  inn runs ls                                        see what it did

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 denied, 5 unavailable.")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,

    /// The host to talk to, such as https://inn.example.com:7070; without it the context's, else that of the data
    /// folder [env: INN_HOST]
    #[arg(long, global = true, value_name = "URL")]
    host: Option<String>,

    /// The tenant to speak for; without it the token's own, or `default` [env: INN_TENANT]
    #[arg(long, global = true, value_name = "NAME")]
    tenant: Option<String>,

    /// The token to show; without it, and without --token-file, the context's, else the data folder's admin.token
    /// [env: INN_TOKEN]
    #[arg(long, global = true, value_name = "TOKEN")]
    token: Option<String>,

    /// A file with the token
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,

    /// The context with host, tenant and token; without it the current one (`inn context`) [env: INN_CONTEXT]
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,

    /// The data folder: a host's own, and where clients on the same machine find its address and token
    /// [env: INN_DATA]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,

    /// A PEM file with the CA to trust for https://, instead of those that browsers trust
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// A PEM file with a certificate to show to the host; with it no token is needed
    #[arg(long, global = true, value_name = "FILE")]
    cert: Option<PathBuf>,

    /// A PEM file with the certificate's private key
    #[arg(long, global = true, value_name = "FILE")]
    key: Option<PathBuf>,

    /// Send the token to another machine without TLS, where anybody in between can read it
    #[arg(long, global = true)]
    insecure_plain_text: bool,

    /// The environment's words for these.
    #[arg(skip)]
    environment: Said,

    /// The environment's word for `--database-url`; none if `--data` says where the store is.
    #[arg(skip)]
    database_url: Option<String>,
}

/// How to print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Args>),
    Demo(demo::Args),
    #[command(subcommand)]
    Component(component::Command),
    #[command(subcommand)]
    Task(Box<task::Command>),
    #[command(subcommand)]
    Trigger(trigger::Command),
    #[command(subcommand)]
    Backfill(backfill::Command),
    #[command(subcommand)]
    Holidays(holidays::Command),
    #[command(subcommand)]
    Event(event::Command),
    Forecast(forecast::Args),
    Run(run::Args),
    #[command(subcommand)]
    Runs(runs::Command),
    #[command(subcommand)]
    Secret(secret::Command),
    #[command(subcommand)]
    Hosts(hosts::Command),
    #[command(subcommand)]
    Tenant(tenant::Command),
    #[command(subcommand)]
    Token(token::Command),
    #[command(subcommand)]
    Quota(quota::Command),
    Usage(usage::Args),
    #[command(subcommand)]
    Audit(audit::Command),
    Whoami(whoami::Args),
    #[command(subcommand)]
    Context(context::Command),
    Backup(backup::Args),
    Restore(restore::Args),
    Move(r#move::Args),
    Bench(bench::Args),
    Completions(completions::Args),
}

/// How a command ended that did what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Succeeded,
    /// The thing that it was asked about failed: a run, say.
    Failed,
}

/// The user asked for something that makes no sense: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Runs the command that the program was started with.
pub async fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse_from(event::with_payload(Cli::command, std::env::args_os()));
    let global = global.or_environment(|variable| std::env::var_os(variable));
    let result = match command {
        Command::Serve(args) => serve::run(*args, &global).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Component(command) => component::run(command, &global).await,
        Command::Task(command) => task::run(*command, &global).await,
        Command::Trigger(command) => trigger::run(command, &global).await,
        Command::Holidays(command) => holidays::run(command, &global).await,
        Command::Event(command) => event::run(command, &global).await,
        Command::Forecast(args) => forecast::run(args, &global).await,
        Command::Backfill(command) => backfill::run(command, &global).await,
        Command::Run(args) => run::run(args, &global).await,
        Command::Runs(command) => runs::run(command, &global).await,
        Command::Secret(command) => secret::run(command, &global).await,
        Command::Hosts(command) => hosts::run(command, &global).await,
        Command::Tenant(command) => tenant::run(command, &global).await,
        Command::Token(command) => token::run(command, &global).await,
        Command::Quota(command) => quota::run(command, &global).await,
        Command::Usage(args) => usage::run(args, &global).await,
        Command::Audit(command) => audit::run(command, &global).await,
        Command::Whoami(args) => whoami::run(args, &global).await,
        Command::Context(command) => context::run(command, &global),
        Command::Backup(args) => backup::run(args, &global).await,
        Command::Restore(args) => restore::run(args, &global).await,
        Command::Move(args) => r#move::run(args, &global).await,
        Command::Bench(args) => bench::run(args, &global).await,
        Command::Completions(args) => completions::run(&args, &mut Cli::command()),
    };
    match result {
        Ok(Verdict::Succeeded) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::from(1),
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&describe(&error));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// An error in words; a status without the protocol's ceremony.
fn describe(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Status>() {
        Some(status) if is_broken_connection(status) => {
            let cause = tls::root_cause(status);
            let advice = tls::advice(&cause).unwrap_or("is it an Innkeeper host, and does it still run?");
            format!("the connection to the host broke ({cause}); {advice}")
        }
        Some(status) => {
            let hint = match status.code() {
                Code::NotFound => hint(status.message()),
                Code::DeadlineExceeded | Code::Cancelled => "; the host took too long to answer, try again",
                _ => "",
            };
            format!("{}{hint}", status.message())
        }
        None => format!("{error:#}"),
    }
}

/// What tells what there is. By nothing but the kind of thing that isn't there: the same for a name that doesn't
/// exist and for another tenant's.
fn hint(message: &str) -> &'static str {
    let is_no = |kind: &str| message.starts_with(&format!("there is no {kind} "));
    if is_no("tenant") {
        "; `inn whoami` tells which tenant is yours, and `inn tenant ls` an admin which there are"
    } else if is_no("token") {
        "; `inn token ls` tells what there is"
    } else if is_no("backfill") {
        "; `inn backfill ls` tells what there is"
    } else if is_no("secret") {
        "; `inn secret ls` tells what there is"
    } else if is_no("holiday calendar") {
        "; `inn holidays ls` tells what there is, and `inn holidays put` makes one"
    } else {
        "; `inn task ls`, `inn trigger ls`, `inn runs ls`, `inn component ls` and `inn hosts ls` tell what there is"
    }
}

/// Whether the status is not the host's word but the connection's end: only those have a source.
fn is_broken_connection(status: &Status) -> bool {
    matches!(status.code(), Code::Unknown | Code::Internal | Code::Unavailable) && status.source().is_some()
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<Usage>() {
        return 2;
    }
    if error.is::<NoContext>() {
        return 3;
    }
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::NotFound(_)) => return 3,
        Some(StoreError::Unavailable(_)) => return 5,
        _ => {}
    }
    let status = error.downcast_ref::<Status>();
    match status.map(Status::code) {
        Some(Code::NotFound) => 3,
        Some(Code::Unauthenticated | Code::PermissionDenied) => 4,
        // A call that this end gave up after its deadline is cancelled.
        Some(Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled) => 5,
        _ if status.is_some_and(is_broken_connection) => 5,
        _ if error.is::<client::Unreachable>() => 5,
        _ => 1,
    }
}

impl Global {
    /// With the environment's word for what no flag says; an empty variable says nothing. Not left to clap,
    /// for which a variable would be a flag: in conflict with others, and enough to not print the help.
    fn or_environment(mut self, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
        self.database_url = if self.data.is_none() { text("INN_DATABASE_URL") } else { None };
        self.environment = Said {
            host: text("INN_HOST"),
            tenant: text("INN_TENANT"),
            token: text("INN_TOKEN"),
            context: text("INN_CONTEXT"),
            data: variable("INN_DATA").map(PathBuf::from),
            ..Said::default()
        };
        self
    }

    /// What the flags say.
    fn flags(&self) -> Result<Said> {
        let cert = match (self.cert.clone(), self.key.clone()) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((cert, key)),
            _ => return Err(Usage("a certificate and its key go together (--cert, --key)".into()).into()),
        };
        Ok(Said {
            host: self.host.clone(),
            tenant: self.tenant.clone(),
            token: self.token.clone(),
            token_file: self.token_file.clone(),
            context: self.context.clone(),
            data: self.data.clone(),
            ca: self.ca.clone(),
            cert,
            insecure_plain_text: self.insecure_plain_text,
        })
    }

    /// The data folder: the one given, else the user's.
    pub fn data_folder(&self) -> Result<PathBuf> {
        if let Some(data) = self.data.as_ref().or(self.environment.data.as_ref()) {
            return Ok(data.clone());
        }
        let from =
            |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        let base = from("XDG_DATA_HOME").or_else(|| from("HOME").map(|home| home.join(".local/share")));
        match base {
            Some(base) => Ok(base.join("innkeeper")),
            None => {
                Err(Usage("there is no home folder; say where the data folder is (--data)".into()).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exit_codes() {
        let of = |code| exit_code(&Status::new(code, "").into());
        assert_eq!(
            [Code::NotFound, Code::Unauthenticated, Code::Unavailable, Code::InvalidArgument].map(of),
            [3, 4, 5, 1]
        );
        assert_eq!(exit_code(&Usage("x".into()).into()), 2);
        assert_eq!(exit_code(&NoContext("x".into()).into()), 3);
        assert_eq!([Code::PermissionDenied, Code::ResourceExhausted].map(of), [4, 1]);
        assert_eq!([Code::DeadlineExceeded, Code::Cancelled, Code::Internal].map(of), [5, 5, 1]);
        let broken = Status::from_error(Box::new(std::io::Error::other("reset")));
        assert_eq!(exit_code(&broken.into()), 5);
        let of = |error: StoreError| exit_code(&error.into());
        assert_eq!(of(StoreError::NotFound("x".into())), 3);
        assert_eq!((of(StoreError::Unavailable("x".into())), of(StoreError::Conflict("x".into()))), (5, 1));
    }

    #[test]
    fn flags_go_before_the_environment_and_empty_variables_say_nothing() {
        let parse = |arguments: &[&str], value: &'static str| {
            let cli = Cli::try_parse_from([&["inn"], arguments, &["task", "ls"]].concat()).unwrap();
            cli.global.or_environment(|_| Some(value.into()))
        };
        let none = parse(&[], "").environment;
        assert_eq!((none.host, none.token, none.data), (None, None, None));
        let all = parse(&[], "x");
        let Said { host, tenant, token, context, .. } = &all.environment;
        assert!([host, tenant, token, context].into_iter().all(|said| said.as_deref() == Some("x")));
        assert_eq!(all.data_folder().unwrap(), PathBuf::from("x"));
        assert_eq!(all.flags().unwrap().host, None);
        assert_eq!(parse(&["--data", "d"], "x").data_folder().unwrap(), PathBuf::from("d"));
        assert_eq!(
            (all.database_url.as_deref(), parse(&["--data", "d"], "x").database_url),
            (Some("x"), None)
        );
        assert!(parse(&["--cert", "c"], "").flags().is_err());
    }

    #[test]
    fn without_arguments_there_is_help() {
        let error = Cli::try_parse_from(["inn"]).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    }
}
