//! `inn restore`.

use super::transfer::{Database, Progress, prepare, show};
use super::{Global, Verdict};
use anyhow::{Context, Result};
use innkeeper_store::transfer;
use std::fs::File;
use std::io;

/// Makes a store of a backup, in a data folder or database that has none
///
/// All of the backup is restored, or nothing. A host that is then started there goes on as if it had been stopped at
/// the moment of the backup: runs that were executing are executed again, and what became due since is handled as each
/// trigger's --catch-up says. Tokens stay valid. Stop the old hosts first, if they still run: both would run the tasks.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  inn restore monday.innkeeper --data ./data && inn serve --data ./data
  zstd -dc monday.innkeeper.zst | inn restore -
  inn restore monday.innkeeper --database-url postgres://inn:secret@db.example.com/inn")]
pub struct Args {
    /// The backup, or - for stdin
    file: String,

    #[command(flatten)]
    database: Database,
}

pub async fn run(args: Args, global: &Global) -> Result<Verdict> {
    let to = args.database.place(global)?;
    let (progress, seen) = Progress::new("restoring the backup")?;
    let summary = if args.file == "-" {
        prepare(&to)?;
        transfer::restore(io::stdin(), &to, seen).await?
    } else {
        let file = File::open(&args.file).with_context(|| format!("can't read {}", args.file))?;
        prepare(&to)?;
        transfer::restore(file, &to, seen).await?
    };
    drop(progress);
    let from = if args.file == "-" { "stdin" } else { &args.file };
    show(global.output, from, &to.to_string(), &summary)?;
    Ok(Verdict::Succeeded)
}
