//! The command line: one file a subcommand, named after the same nouns as everywhere.

mod backup;
mod bench;
mod client;
mod completions;
mod component;
mod demo;
mod hosts;
mod json;
mod r#move;
mod output;
mod parse;
mod restore;
mod run;
mod runs;
mod serve;
mod task;
mod task_diff;
mod transfer;
mod trigger;
mod trigger_next;
mod upload;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use innkeeper_store::StoreError;
use std::error::Error as _;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
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
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,

    /// The host to talk to, such as http://127.0.0.1:7070; without it the one of the data folder [env: INN_HOST]
    #[arg(long, global = true, value_name = "URL")]
    host: Option<String>,

    /// The token to show; without it, and without --token-file, the data folder's admin.token [env: INN_TOKEN]
    #[arg(long, global = true, value_name = "TOKEN")]
    token: Option<String>,

    /// A file with the token
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,

    /// The data folder: a host's own, and where clients on the same machine find its address and token
    /// [env: INN_DATA]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,

    /// The environment's word for `--database-url`; none if `--data` says where the store is.
    #[arg(skip)]
    database_url: Option<String>,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
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
    Task(task::Command),
    #[command(subcommand)]
    Trigger(trigger::Command),
    Run(run::Args),
    #[command(subcommand)]
    Runs(runs::Command),
    #[command(subcommand)]
    Hosts(hosts::Command),
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
    let Cli { global, command } = Cli::parse();
    let global = global.or_environment(|variable| std::env::var_os(variable));
    let result = match command {
        Command::Serve(args) => serve::run(*args, &global).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Component(command) => component::run(command, &global).await,
        Command::Task(command) => task::run(command, &global).await,
        Command::Trigger(command) => trigger::run(command, &global).await,
        Command::Run(args) => run::run(args, &global).await,
        Command::Runs(command) => runs::run(command, &global).await,
        Command::Hosts(command) => hosts::run(command, &global).await,
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
            let label = console::style("error:").for_stderr().red().bold();
            output::note(&format!("{label} {}", describe(&error)));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// An error in words; a status without the protocol's ceremony.
fn describe(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Status>() {
        Some(status) if is_broken_connection(status) => format!(
            "the connection to the host broke ({}); is it an Innkeeper host, and does it still run?",
            status.message()
        ),
        Some(status) => {
            let hint = match status.code() {
                Code::NotFound => {
                    "; `inn task ls`, `inn trigger ls`, `inn runs ls`, `inn component ls` and `inn hosts ls` tell \
                     what there is"
                }
                Code::DeadlineExceeded | Code::Cancelled => "; the host took too long to answer, try again",
                _ => "",
            };
            format!("{}{hint}", status.message())
        }
        None => format!("{error:#}"),
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
        self.host = self.host.or_else(|| text("INN_HOST"));
        if self.token_file.is_none() {
            self.token = self.token.or_else(|| text("INN_TOKEN"));
        }
        self.database_url = if self.data.is_none() { text("INN_DATABASE_URL") } else { None };
        self.data = self.data.or_else(|| variable("INN_DATA").map(PathBuf::from));
        self
    }

    /// The data folder: the one given, else the user's.
    pub fn data_folder(&self) -> Result<PathBuf> {
        if let Some(data) = &self.data {
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
        let none = parse(&[], "");
        assert_eq!((none.host, none.token, none.data), (None, None, None));
        let all = parse(&[], "x");
        assert_eq!((all.host.as_deref(), all.token.as_deref()), (Some("x"), Some("x")));
        assert_eq!(parse(&["--host", "h", "--token", "t"], "x").token.as_deref(), Some("t"));
        assert_eq!(parse(&["--token-file", "f"], "x").token, None);
        assert_eq!(
            (all.database_url.as_deref(), parse(&["--data", "d"], "x").database_url),
            (Some("x"), None)
        );
    }

    #[test]
    fn without_arguments_there_is_help() {
        let error = Cli::try_parse_from(["inn"]).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    }
}
