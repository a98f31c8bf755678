//! PostgreSQL clusters of the tests' own, from the system's package, each in a temporary folder and on a port
//! of its own.
//!
//! A small shell, the guardian, is the parent of the server. It takes orders over a pipe, and when the pipe
//! closes, because the cluster was dropped or the test process ended in whatever way, it stops the server and
//! removes the folder: nothing stays behind. A missing PostgreSQL fails the tests, it never skips them.

#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The cluster's superuser; anybody on this machine is trusted to be it.
const USER: &str = "innkeeper";
const CONNECTIONS_MAX: u32 = 400;
/// How long a server may take to start, crash recovery included.
const START_MAX: Duration = Duration::from_secs(60);
/// Below the ports that the kernel gives to outgoing connections: one of those must not take the port while
/// the server is down.
const PORTS: std::ops::Range<u32> = 20_000..32_000;

/// `$1` is the folder of the programs, `$2` the cluster's; the rest is for initdb.
const GUARDIAN: &str = r#"
programs=$1 folder=$2 server=
shift 2
# Whoever gave the orders may be gone when they are carried out.
trap '' PIPE
stop() { [ -z "$server" ] || { kill -QUIT "$server" 2>/dev/null; wait "$server"; server=; }; }
while read -r order; do
  case "$order" in
    initialise) "$programs/initdb" "$@" </dev/null >>"$folder/log" 2>&1; echo "$?" ;;
    start) "$programs/postgres" -D "$folder/data" </dev/null >>"$folder/log" 2>&1 & server=$!; echo "$server" ;;
    stop) stop; echo stopped ;;
  esac
done
stop
cd / && rm -rf "$folder"
"#;

/// Whether commits wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As in production.
    Fsync,
    /// For suites where durability isn't the question: many times faster.
    None,
}

/// A running cluster. Stopped and removed when dropped, or when the process ends.
pub struct Cluster {
    folder: PathBuf,
    programs: PathBuf,
    port: u32,
    databases: AtomicU32,
    guardian: Mutex<Guardian>,
}

struct Guardian {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// The server's process, while it is meant to be running.
    server: Option<u32>,
}

/// A new and empty database of a cluster without fsync that the whole test binary shares: its URL.
pub fn database() -> String {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start(Durability::None)).database()
}

impl Cluster {
    /// Makes a cluster and starts it.
    pub fn start(durability: Durability) -> Self {
        let programs = programs();
        let (locale, account) = (locale(&programs), account());
        let folder = folder(account);
        let guardian = Mutex::new(guardian(&programs, &folder, locale, account));
        let mut cluster = Self { folder, programs, port: 0, databases: AtomicU32::new(0), guardian };
        let made = cluster.guardian().order("initialise");
        assert_eq!(made, "0", "initdb:\n{}", cluster.log());
        for _ in 0..10 {
            cluster.port = free_port();
            cluster.configure(durability, account);
            match cluster.try_start_again() {
                Ok(()) => return cluster,
                // Somebody else was quicker.
                Err(log) if log.contains("could not bind") => {}
                Err(log) => panic!("PostgreSQL doesn't start:\n{log}"),
            }
        }
        panic!("ten ports in a row were taken; PostgreSQL can't start");
    }

    /// A new and empty database: its URL.
    pub fn database(&self) -> String {
        let name = format!("innkeeper_{}", self.databases.fetch_add(1, Ordering::Relaxed) + 1);
        let created = Command::new(self.programs.join("createdb"))
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", USER, &name])
            .output()
            .expect("createdb runs");
        assert!(created.status.success(), "createdb: {}", String::from_utf8_lossy(&created.stderr));
        format!("postgres://{USER}@127.0.0.1:{}/{name}", self.port)
    }

    /// Stops the server as a crash would: at once, no connection is ended in order, and no checkpoint is made.
    pub fn stop_hard(&self) {
        let mut guardian = self.guardian();
        guardian.server = None;
        assert_eq!(guardian.order("stop"), "stopped");
    }

    /// kill -9 of every process that serves a connection or works in the background. The server finds them
    /// dead, recovers as after a crash, and goes on by itself.
    pub fn kill_children(&self) {
        let server = self.guardian().server.expect("the server runs");
        let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children"));
        let children = children.expect("the server runs");
        // Some may have ended meanwhile.
        let _ = Command::new("kill").arg("-KILL").args(children.split_whitespace()).output();
    }

    /// Starts the server again after [`Cluster::stop_hard`], on the same port; it recovers first.
    pub fn start_again(&self) {
        if let Err(log) = self.try_start_again() {
            panic!("PostgreSQL doesn't start again:\n{log}");
        }
    }

    /// Where everything of it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn try_start_again(&self) -> Result<(), String> {
        let mut guardian = self.guardian();
        let server: u32 = guardian.order("start").parse().expect("a process id");
        let begun = Instant::now();
        while !self.is_ready(server) {
            let alive = Path::new(&format!("/proc/{server}/exe")).read_link().is_ok();
            if !alive || begun.elapsed() > START_MAX {
                return Err(self.log());
            }
            sleep(Duration::from_millis(10));
        }
        guardian.server = Some(server);
        Ok(())
    }

    /// Whether the server says so, in its eighth line.
    fn is_ready(&self, server: u32) -> bool {
        let told = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default();
        let mut lines = told.lines();
        lines.next() == Some(&server.to_string()) && lines.nth(6).is_some_and(|line| line.trim() == "ready")
    }

    fn configure(&self, durability: Durability, account: Option<(u32, u32)>) {
        let mut settings = format!(
            "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n\
             max_connections = {CONNECTIONS_MAX}\ndynamic_shared_memory_type = mmap\nmax_wal_size = 2GB\n",
            self.port
        );
        if durability == Durability::None {
            settings += "fsync = off\nfull_page_writes = off\nsynchronous_commit = off\n";
        }
        let path = self.folder.join("data/postgresql.auto.conf");
        fs::write(&path, settings).expect("the cluster's settings");
        if let Some((user, group)) = account {
            chown(&path, Some(user), Some(group)).expect("root gives the file away");
        }
    }

    fn guardian(&self) -> MutexGuard<'_, Guardian> {
        self.guardian.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guardian {
    fn order(&mut self, order: &str) -> String {
        let orders = self.orders.as_mut().expect("the cluster isn't dropped");
        writeln!(orders, "{order}").expect("the guardian listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the guardian answers");
        answer.trim_end().to_string()
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.process.wait();
    }
}

/// Where the server's programs are: as `pg_config` says, where Debian has them (the newest), or in PATH.
fn programs() -> PathBuf {
    let told = Command::new("pg_config").arg("--bindir").output().ok();
    let told = told.map(|told| PathBuf::from(String::from_utf8_lossy(&told.stdout).trim()));
    let version =
        |path: &PathBuf| path.parent()?.file_name()?.to_str()?.split('.').next()?.parse::<u32>().ok();
    let mut debian: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|version| version.path().join("bin")).collect())
        .unwrap_or_default();
    debian.sort_by_key(|path| std::cmp::Reverse(version(path)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = told.into_iter().chain(debian).chain(std::env::split_paths(&path)).find(|folder| {
        ["initdb", "postgres", "createdb"].iter().all(|program| folder.join(program).is_file())
    });
    found.expect("PostgreSQL is needed for the tests, its server included: apt-get install postgresql")
}

/// Whom the server runs as where we are root, which it refuses to.
fn account() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").expect("/proc").uid() != 0 {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let ids = |name: &str| {
        let fields = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let found = fields.into_iter().find(|fields| fields.len() > 3 && fields[0] == name)?;
        Some((found[2].parse().ok()?, found[3].parse().ok()?))
    };
    let found = ids("postgres").or_else(|| ids("nobody"));
    Some(found.expect("PostgreSQL doesn't run as root, and there is neither a user postgres nor nobody"))
}

/// An empty folder of the account's. The guardian removes it.
fn folder(account: Option<(u32, u32)>) -> PathBuf {
    // A folder that root has chosen may be one where nobody else can go.
    let root = if account.is_some() { PathBuf::from("/tmp") } else { std::env::temp_dir() };
    let folder = tempfile::Builder::new().prefix("innkeeper-postgres-").tempdir_in(root);
    let folder = folder.expect("a temporary folder").keep();
    if let Some((user, group)) = account {
        chown(&folder, Some(user), Some(group)).expect("root gives the folder away");
    }
    folder
}

/// Where a locale can have an order of its own, queries that forget to ask for the order of bytes are found.
fn locale(programs: &Path) -> &'static [&'static str] {
    let help = Command::new(programs.join("initdb")).arg("--help").output().expect("initdb runs");
    if String::from_utf8_lossy(&help.stdout).contains("--icu-locale") {
        &["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"]
    } else {
        &["--locale=C.UTF-8"]
    }
}

fn guardian(programs: &Path, folder: &Path, locale: &[&str], account: Option<(u32, u32)>) -> Guardian {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", GUARDIAN, "guardian"]).arg(programs).arg(folder).args(locale);
    command.args(["--auth=trust", "--encoding=UTF8", "--no-sync", "--no-instructions", "-U", USER, "-D"]);
    command.arg(folder.join("data"));
    if let Some((user, group)) = account {
        command.uid(user).gid(group);
    }
    // A Ctrl-C is for the tests, not for what clears away after them.
    command.current_dir(folder).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = command.spawn().expect("a shell can be started");
    let orders = process.stdin.take();
    let answers = BufReader::new(process.stdout.take().expect("piped"));
    Guardian { process, orders, answers, server: None }
}

fn free_port() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let size = PORTS.end - PORTS.start;
    // From another place in every process, so that test binaries side by side seldom meet.
    let place = std::process::id().wrapping_mul(7_919);
    let ports =
        (0..size).map(|_| NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(place) % size + PORTS.start);
    let is_free =
        |port: &u32| u16::try_from(*port).is_ok_and(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    ports.into_iter().find(is_free).expect("a free port")
}
