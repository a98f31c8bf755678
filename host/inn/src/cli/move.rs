//! `inn move`.

use super::transfer::{Database, Progress, prepare, show};
use super::{Global, Verdict, output};
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
    to: Place,

    #[command(flatten)]
    database: Database,
}

pub async fn run(args: Args, global: &Global) -> Result<Verdict> {
    let from = args.database.place(global)?;
    prepare(&args.to)?;
    let (progress, seen) = Progress::new("moving the store")?;
    let summary = transfer::move_store(&from, &args.to, now(), seen).await?;
    drop(progress);
    let serve = match &args.to {
        Place::Folder(folder) => format!("inn serve --data {}", folder.display()),
        Place::Database(_) => "inn serve --database-url URL".into(),
    };
    output::note(&format!("{from} is marked as moved; go on with `{serve}`"));
    show(global.output, &from.to_string(), &args.to.to_string(), &summary)?;
    Ok(Verdict::Succeeded)
}
