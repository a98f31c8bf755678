//! Hosts as processes: started, killed, frozen. None outlives the tests, however those end.

use crate::history::now;
use innkeeper_domain::Timestamp;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a host may take to start.
const START_MAX: Duration = Duration::from_secs(40);

/// Kills what is still running when its pipe closes.
const KEEPER: &str = r#"
all=
while read -r what pid; do
  case "$what" in
    begun) all="$all $pid" ;;
    ended) rest=; for one in $all; do [ "$one" = "$pid" ] || rest="$rest $one"; done; all=$rest ;;
  esac
done
[ -z "$all" ] || kill -KILL $all 2>/dev/null
"#;

/// Sees to it that no process is left over.
pub struct Keeper(Mutex<Child>);

impl Keeper {
    pub fn start() -> Self {
        let keeper = Command::new("/bin/sh")
            .args(["-c", KEEPER])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        Self(Mutex::new(keeper.expect("a shell can be started")))
    }

    fn tell(&self, what: &str, process: u32) {
        let mut keeper = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pipe = keeper.stdin.as_mut().expect("a pipe");
        writeln!(pipe, "{what} {process}").expect("the keeper listens");
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let keeper = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(keeper.stdin.take());
        let _ = keeper.wait();
    }
}

/// What a host is made of.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// `inn` itself, or this program with a bug built in.
    pub bug: Option<&'static str>,
    pub database: Option<String>,
    pub lease: Duration,
}

/// A host, whether it runs or not.
pub struct HostProcess<'a> {
    pub name: String,
    pub data: PathBuf,
    recipe: Recipe,
    keeper: &'a Keeper,
    process: Option<Child>,
}

impl<'a> HostProcess<'a> {
    pub fn new(name: &str, folder: &Path, recipe: Recipe, keeper: &'a Keeper) -> Self {
        Self { name: name.into(), data: folder.join(name), recipe, keeper, process: None }
    }

    /// Starts it, and waits until it listens: when that was.
    pub async fn start(&mut self) -> Timestamp {
        fs::create_dir_all(&self.data).expect("a folder");
        let address = self.data.join("address");
        let _ = fs::remove_file(&address);
        let process = self.command().spawn().expect("the host can be started");
        self.keeper.tell("begun", process.id());
        let process = self.process.insert(process);
        let begun = Instant::now();
        while !address.is_file() {
            let ended = process.try_wait().expect("it is ours");
            if ended.is_some() || begun.elapsed() > START_MAX {
                panic!("host {} doesn't start ({ended:?}):\n{}", self.name, self.log());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        now()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.kill().expect("it is ours");
        process.wait().expect("it is ours");
        self.keeper.tell("ended", process.id());
    }

    /// It stands still until it is thawed.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([signal, &process]).status().expect("kill runs");
        assert!(sent.success(), "kill {signal} {process}");
    }

    fn command(&self) -> Command {
        let mut command = match self.recipe.bug {
            None => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_inn"));
                command.args(["serve", "--listen", "127.0.0.1:0", "--name", &self.name]);
                command.arg("--lease").arg(format!("{}ms", self.recipe.lease.as_millis()));
                command.arg("--data").arg(&self.data);
                if let Some(database) = &self.recipe.database {
                    command.args(["--database-url", database]);
                }
                command
            }
            Some(bug) => {
                let mut command = Command::new(std::env::current_exe().expect("this program"));
                command.env(crate::buggy_host::BUG, bug).arg(&self.name).arg(&self.data);
                command.arg(self.recipe.lease.as_millis().to_string()).args(&self.recipe.database);
                command
            }
        };
        let log = File::options().create(true).append(true).open(self.data.with_extension("log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("a log"));
        // A Ctrl-C is for the tests.
        command.env("RUST_LOG", "warn").env("NO_COLOR", "1").process_group(0);
        for unwanted in ["INN_DATA", "INN_HOST", "INN_TOKEN", "INN_KEY", "INN_DATABASE_URL"] {
            command.env_remove(unwanted);
        }
        command
    }
}

impl Drop for HostProcess<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}
