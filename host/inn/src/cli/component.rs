//! `inn component`.

use super::client::{Client, call};
use super::output::{self, Column, number, text};
use super::{Format, Global, Usage, Verdict, json, task_grants, upload};
use anyhow::{Context, Result};
use innkeeper_api::proto::{Component, DeleteComponentRequest, GetComponentRequest, ListComponentsRequest};
use innkeeper_domain::limits::COMPONENT_BYTES_MAX;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Read};

/// Upload components, and see what was uploaded
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Upload a WebAssembly file
    ///
    /// Accepted are components that export innkeeper:task/handler or wasi:cli/run, and core modules with
    /// `_start` (WASI preview 1) or made by wit-bindgen. The host inspects and compiles it before it answers.
    ///
    /// When the connection breaks it is tried again, from where it broke. Should it be given up, the same command
    /// goes on there too, within a day.
    #[command(after_help = "Examples:
  inn component push target/wasm32-wasip2/release/hello.wasm
  inn component push - < hello.wasm")]
    Push {
        /// The file, or - for stdin
        file: String,
    },
    /// List components, the newest first
    Ls,
    /// Show a component
    Show {
        /// sha256:..., or at least 12 of its digits
        digest: String,
    },
    /// Delete a component that no task uses
    Rm {
        /// sha256:..., or at least 12 of its digits
        digest: String,
    },
}

pub async fn run(command: Command, global: &Global) -> Result<Verdict> {
    match command {
        Command::Push { file } => {
            let bytes = read(&file)?;
            let client = Client::connect(global).await?;
            let pushed = upload::push(&client, bytes).await?;
            let component = pushed.component.unwrap_or_default();
            if pushed.existed {
                output::note("it was there already");
            }
            show(global.output, &component)?;
        }
        Command::Ls => {
            let components = list(&Client::connect(global).await?).await?;
            const COLUMNS: &[Column] =
                &[text("digest"), number("size"), text("shape"), number("imports"), text("created")];
            let rows = components.iter().map(|component| {
                vec![
                    component.digest.chars().take(7 + 12).collect(),
                    output::bytes(component.size),
                    shape(component),
                    component.imports.len().to_string(),
                    output::instant(component.created_at),
                ]
            });
            let value = || Value::Array(components.iter().map(json::component).collect());
            output::rows(global.output, COLUMNS, rows.collect(), value)?;
        }
        Command::Show { digest } => {
            let client = Client::connect(global).await?;
            let component = client.components().get_component(call(GetComponentRequest { digest })).await?;
            show(global.output, component.get_ref())?;
        }
        Command::Rm { digest } => {
            let client = Client::connect(global).await?;
            client.components().delete_component(call(DeleteComponentRequest { digest })).await?;
        }
    }
    Ok(Verdict::Succeeded)
}

fn show(format: Format, component: &Component) -> Result<()> {
    let facts = [
        ("digest", component.digest.clone()),
        ("size", output::bytes(component.size)),
        ("shape", shape(component)),
        ("imports", component.imports.join("\n")),
        ("could ask for", task_grants::could_ask_for(&component.imports).join("\n")),
        ("created", output::instant(component.created_at)),
    ];
    output::facts(format, &facts, || json::component(component))
}

fn shape(component: &Component) -> String {
    let adapted = if component.adapted { " (adapted from a core module)" } else { "" };
    format!("{}{adapted}", json::shape(component))
}

async fn list(client: &Client) -> Result<Vec<Component>> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListComponentsRequest { page_size: 0, page_token };
        let page = client.components().list_components(call(request)).await?.into_inner();
        all.extend(page.components);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

/// Reads a file that is to be uploaded, within its bound.
pub fn read(file: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = COMPONENT_BYTES_MAX + 1;
    let read = if file == "-" {
        io::stdin().lock().take(most).read_to_end(&mut bytes)
    } else {
        File::open(file).and_then(|from| from.take(most).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("can't read {file}"))?;
    if bytes.len() as u64 > COMPONENT_BYTES_MAX {
        let most = output::bytes(COMPONENT_BYTES_MAX);
        return Err(Usage(format!(
            "{file} is larger than {most}, which is the most that a component can have"
        ))
        .into());
    }
    Ok(bytes)
}

/// The digest of the component that `--component` names: a file is uploaded, anything else is a digest.
pub async fn resolve(client: &Client, file_or_digest: &str) -> Result<String> {
    let is_file = file_or_digest == "-"
        || file_or_digest.contains(['/', '\\'])
        || file_or_digest.ends_with(".wasm")
        || std::path::Path::new(file_or_digest).is_file();
    if !is_file {
        return Ok(file_or_digest.into());
    }
    let pushed = upload::push(client, read(file_or_digest)?).await?;
    Ok(pushed.component.unwrap_or_default().digest)
}

/// What is printed of a thing that was deleted.
pub fn deleted(format: Format, name: &str, cancelled_runs: u64) -> Result<()> {
    match format {
        Format::Json => output::json(&json!({"deleted": name, "cancelled_runs": cancelled_runs})),
        Format::Table if cancelled_runs > 0 => {
            output::note(&output::cancelled(cancelled_runs));
            Ok(())
        }
        Format::Table => Ok(()),
    }
}
