//! `inn move`.

use super::transfer::{Database, Progress, prepare, show};
use super::{Global, Verdict, output, parse};
use crate::host::now;
use anyhow::Result;
use innkeeper_store::transfer::{self, Place};

/// Moves the whole store elsewhere: from the data folder to PostgreSQL, say
///
/// Stop the hosts first; it is refused while one has the store. What is moved is what `inn backup` has, and is all
/// there or nothing of it. The old store stays as it is, but is marked: `inn serve` refuses it from then on, and says
/// whither it was moved and how to undo that. Tokens stay valid, so `inn serve --database-url URL` on the same data
/// folder goes on as before.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  inn move --to postgres://inn:secret@db.example.com/inn
  inn move --data ./data --to ./elsewhere
  inn move --database-url postgres://inn:secret@db.example.com/inn --to ./data")]
pub struct Args {
    /// Where the store goes, a PostgreSQL database or a folder, which has none yet
    #[arg(long, value_name = "URL|DIR")]
    to: String,

    #[command(flatten)]
    database: Database,
}

pub async fn run(args: Args, global: &Global) -> Result<Verdict> {
    let from = args.database.place(global)?;
    let to = parse::place(&args.to)?;
    prepare(&to)?;
    let (progress, seen) = Progress::new("moving the store")?;
    let summary = transfer::move_store(&from, &to, now(), seen).await?;
    drop(progress);
    let serve = match &to {
        Place::Folder(folder) => format!("inn serve --data {}", folder.display()),
        Place::Database(_) => "inn serve --database-url URL".into(),
    };
    output::note(&format!("{from} is marked as moved; go on with `{serve}`"));
    show(global.output, &from.to_string(), &to.to_string(), &summary)?;
    Ok(Verdict::Succeeded)
}
