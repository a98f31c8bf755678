//! A host of the real binary on a temporary folder, and the same binary as its client.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const INN: &str = env!("CARGO_BIN_EXE_inn");
/// How long things may take that take a moment.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a command printed, and its exit code.
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

fn command(arguments: &[&str], data: Option<&Path>) -> Command {
    let mut command = Command::new(INN);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("INN_HOST")
        .env_remove("INN_TOKEN")
        .env_remove("INN_TENANT")
        .env_remove("INN_CONTEXT")
        .env_remove("INN_DATABASE_URL")
        .env("NO_COLOR", "1");
    match data {
        Some(data) => command.env("INN_DATA", data).env("INN_CONFIG", data.join("config")),
        // Whoever runs the tests may have contexts.
        None => command.env_remove("INN_DATA").env("INN_CONFIG", "/nonexistent/innkeeper"),
    };
    command
}

fn run(arguments: &[&str], data: Option<&Path>) -> Done {
    let output = command(arguments, data).output().expect("inn runs");
    Done {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// A command that needs no host.
pub fn run_without_host(arguments: &[&str]) -> Done {
    run(arguments, None)
}

/// A command of a host whose data folder this is.
pub fn run_with(arguments: &[&str], data: &Path) -> Done {
    run(arguments, Some(data))
}

/// The file of a built plugin.
pub fn guest(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../plugins/target/guests/{name}.wasm"));
    assert!(path.is_file(), "{} isn't there: `make guests` builds it", path.display());
    path.to_string_lossy().into_owned()
}

/// A preview-1 command with this body.
pub fn wat_command(body: &str) -> Vec<u8> {
    wat::parse_str(format!(r#"(module (memory (export "memory") 1) (func (export "_start") {body}))"#))
        .expect("good WAT")
}

/// A host that is killed when dropped.
pub struct Host {
    folder: TempDir,
    process: Child,
}

impl Host {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    pub fn start_with(options: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), options)
    }

    pub fn start_in(folder: TempDir, options: &[&str]) -> Self {
        let process = spawn(folder.path(), options);
        Self { folder, process }
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().into()
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process.kill().expect("it was running");
        self.process.wait().expect("it is ours");
        // So that the next one's address is waited for.
        std::fs::remove_file(self.folder.path().join("address")).expect("it told its address");
    }

    pub fn restart(&mut self, options: &[&str]) {
        self.process = spawn(self.folder.path(), options);
    }

    /// The same of a host that answers no calls, so that nobody can tell when it is there.
    pub fn restart_unheard(&mut self, options: &[&str]) {
        self.process = begin(self.folder.path(), options);
    }

    /// SIGTERM, and the end.
    pub fn terminate(&mut self) -> ExitStatus {
        let killed = Command::new("kill").arg(self.process.id().to_string()).status().expect("kill runs");
        assert!(killed.success());
        self.process.wait().expect("it is ours")
    }

    pub fn inn(&self, arguments: &[&str]) -> Done {
        run(arguments, Some(self.folder.path()))
    }

    /// Begins a command, whose output can be read as it comes.
    pub fn begin(&self, arguments: &[&str]) -> Child {
        command(arguments, Some(self.folder.path())).stdout(Stdio::piped()).spawn().expect("inn runs")
    }

    /// A command that succeeds.
    pub fn ok(&self, arguments: &[&str]) -> Done {
        let done = self.inn(arguments);
        assert_eq!(done.code, 0, "inn {}: {}", arguments.join(" "), done.stderr);
        done
    }

    /// What a command prints as JSON that succeeds.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let done = self.ok(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&done.stdout).expect("JSON")
    }

    /// A file in the host's folder.
    pub fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path: PathBuf = self.folder.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path.to_string_lossy().into_owned()
    }

    pub fn push(&self, bytes: &[u8]) -> Done {
        let file = self.file("upload.wasm", bytes);
        self.inn(&["component", "push", &file])
    }

    /// Waits until something is so.
    pub fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < PATIENCE, "it never came about that {what}");
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn begin(data: &Path, options: &[&str]) -> Child {
    let mut command = Command::new(INN);
    command.args(["serve", "--data"]).arg(data).args(options).env("RUST_LOG", "warn");
    if !options.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command.stdin(Stdio::null()).spawn().expect("inn runs")
}

fn spawn(data: &Path, options: &[&str]) -> Child {
    let process = begin(data, options);
    let begun = Instant::now();
    while !data.join("address").is_file() {
        assert!(begun.elapsed() < PATIENCE, "the host tells its address");
        sleep(Duration::from_millis(20));
    }
    process
}
