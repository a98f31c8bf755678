//! `inn backup`.

use super::transfer::{Database, Progress, show};
use super::{Global, Usage, Verdict, output};
use crate::host::now;
use anyhow::{Context, Result, bail};
use innkeeper_store::transfer::{self, Place, Seen, Summary};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Writes the whole store into one file, while hosts use it
///
/// The backup is of one moment: all that was acknowledged before it began is in it. It has tenants, tokens (their
/// hashes), components, tasks with every revision, triggers with their next times, runs with attempts and logs. It
/// doesn't have what is beside the store: keys, token files, compiled components. It can be restored into a data
/// folder or a PostgreSQL database, whichever it was made of.
///
/// Whoever has the file has the inputs and outputs of every run; only you can read it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  inn backup monday.innkeeper
  inn backup - | zstd > monday.innkeeper.zst
  inn backup monday.innkeeper --database-url postgres://inn:secret@db.example.com/inn")]
pub struct Args {
    /// The file to write, or - for stdout
    file: String,

    /// Replace the file if there is one
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    database: Database,
}

pub async fn run(args: Args, global: &Global) -> Result<Verdict> {
    let from = args.database.place(global)?;
    let (progress, seen) = Progress::new("writing the backup")?;
    if args.file == "-" {
        if console::Term::stdout().is_term() {
            return Err(
                Usage("a backup is nothing for a terminal; send it to a file or a program".into()).into()
            );
        }
        let summary = transfer::backup(&from, now(), io::stdout(), seen).await?;
        drop(progress);
        let rows: u64 = summary.rows.iter().map(|(_, count)| count).sum();
        let seal = summary.seal.context("a file has a size")?;
        let (size, digest) = (output::bytes(seal.bytes), hex::encode(seal.sha256));
        output::note(&format!("{rows} rows of {from}, {size}, sha256 {digest}"));
        return Ok(Verdict::Succeeded);
    }
    let write = write(Path::new(&args.file), args.force, &from, seen);
    let summary = tokio::select! {
        summary = write => summary?,
        _ = tokio::signal::ctrl_c() => bail!("interrupted; there is no backup"),
    };
    drop(progress);
    show(global.output, &from.to_string(), &args.file, &summary)?;
    Ok(Verdict::Succeeded)
}

/// Writes the file under another name first: under its own it is whole and on disk, or not there.
async fn write(path: &Path, force: bool, from: &Place, seen: Seen) -> Result<Summary> {
    let there = || format!("{} is there already; --force replaces it", path.display());
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => bail!("{} is there already, and is no file", path.display()),
        Ok(_) if !force => bail!(there()),
        _ => {}
    }
    let unwritten = || format!("can't write {}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::Builder::new().prefix(".inn-backup-").tempfile_in(folder).with_context(unwritten)?;
    let summary = transfer::backup(from, now(), file.reopen().with_context(unwritten)?, seen).await?;
    file.as_file().sync_all().with_context(unwritten)?;
    let kept = if force { file.persist(path) } else { file.persist_noclobber(path) };
    match kept {
        Err(e) if e.error.kind() == ErrorKind::AlreadyExists => bail!(there()),
        kept => kept.map_err(|e| e.error).with_context(unwritten)?,
    };
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(unwritten)?;
    Ok(summary)
}
