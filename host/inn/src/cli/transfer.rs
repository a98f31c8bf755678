//! What `inn backup`, `inn restore` and `inn move` have in common: where the store is, progress, the summary.

use super::output;
use super::{Format, Global, Usage};
use crate::data_folder::private_folder;
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use innkeeper_store::postgres::DatabaseUrl;
use innkeeper_store::transfer::{Place, Seen, Summary};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Which store is meant.
#[derive(Debug, clap::Args)]
pub struct Database {
    /// The store of a fleet, postgres://USER:PASSWORD@HOST/NAME, instead of the data folder's
    /// [env: INN_DATABASE_URL, unless --data is given]
    #[arg(long, value_name = "URL")]
    database_url: Option<DatabaseUrl>,
}

impl Database {
    /// The store that the flags and the environment name.
    pub fn place(self, global: &Global) -> Result<Place> {
        match (self.database_url, &global.database_url) {
            (Some(url), _) => Ok(Place::Database(Box::new(url))),
            (None, Some(url)) => {
                let url = url.parse().map_err(|e| Usage(format!("INN_DATABASE_URL: {e}")))?;
                Ok(Place::Database(Box::new(url)))
            }
            (None, None) => Ok(Place::Folder(global.data_folder()?)),
        }
    }
}

/// Sees to it that a folder that is to have a store is there, and nobody else can look into it.
pub fn prepare(to: &Place) -> Result<()> {
    match to {
        Place::Folder(folder) => private_folder(folder),
        Place::Database(_) => Ok(()),
    }
}

/// Progress on stderr, if that is a terminal; gone when it is dropped.
pub struct Progress(ProgressBar);

impl Progress {
    pub fn new(doing: &'static str) -> Result<(Self, Seen)> {
        let bar = ProgressBar::new_spinner().with_message(doing);
        bar.set_style(ProgressStyle::with_template("{spinner} {msg} {human_pos} rows {elapsed}")?);
        bar.enable_steady_tick(Duration::from_millis(100));
        let counted = bar.clone();
        Ok((Self(bar), Box::new(move |rows| counted.set_position(rows))))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Prints what was transferred, from where and whither.
pub fn show(format: Format, from: &str, to: &str, summary: &Summary) -> Result<()> {
    let width = summary.rows.iter().map(|(_, count)| count.to_string().len()).max().unwrap_or(0);
    let rows = summary.rows.iter().map(|(table, count)| format!("{count:>width$} {table}"));
    let header = &summary.header;
    let facts = [
        ("from", from.to_string()),
        ("to", to.to_string()),
        ("of", format!("{:.0}, by Innkeeper {}", header.created_at, header.version)),
        ("rows", rows.collect::<Vec<_>>().join("\n")),
        ("size", summary.seal.map(|seal| output::bytes(seal.bytes)).unwrap_or_default()),
        ("sha256", summary.seal.map(|seal| hex::encode(seal.sha256)).unwrap_or_default()),
    ];
    output::facts(format, &facts, || json(from, to, summary))
}

fn json(from: &str, to: &str, summary: &Summary) -> Value {
    let rows: Map<String, Value> =
        summary.rows.iter().map(|(table, count)| (table.clone(), json!(count))).collect();
    json!({
        "from": from,
        "to": to,
        "created_at": summary.header.created_at.to_string(),
        "version": summary.header.version,
        "schema": summary.header.schema,
        "rows": rows,
        "bytes": summary.seal.map(|seal| seal.bytes),
        "sha256": summary.seal.map(|seal| hex::encode(seal.sha256)),
    })
}
