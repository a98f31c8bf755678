//! `inn secret`.

use super::client::{Client, call};
use super::output::{self, Column, text};
use super::{Format, Global, Usage, Verdict, json};
use anyhow::{Context, Result};
use console::Term;
use innkeeper_api::proto::{
    DeleteSecretRequest, ListSecretsRequest, RotateSecretsRequest, Secret, SetSecretRequest,
};
use innkeeper_domain::limits::SECRET_BYTES_MAX;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// How long a rotation may take: it goes through every tenant's secrets.
const ROTATION_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(600);

/// Set secrets, which tasks are shown and nobody can read
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Set a secret; attempts that begin afterwards have it
    ///
    /// Its text is read from stdin, or asked for on a terminal; a line's end after it is taken off. It is never an
    /// argument: others on the machine could see it there.
    #[command(after_help = "Examples:
  inn secret set api-token
  inn secret set api-token < token.txt
  inn secret set tls-key --from-file key.pem
  inn task update report --secret api-token --secret TLS_KEY=tls-key --accept-permissions")]
    Set {
        name: String,
        /// Read the text from this file
        #[arg(long, value_name = "FILE")]
        from_file: Option<PathBuf>,
    },
    /// List secrets, with the tasks that name them; not their texts, which no call returns
    Ls,
    /// Delete a secret that no task names
    Rm { name: String },
    /// Encrypt every tenant's secrets with the host's current key; with one that it makes for it, if its keys are its own
    ///
    /// A host with --key-file, or INN_KEY: put the new key before the old one, on a line of its own, start the host
    /// again, and rotate; then the old one can go. On several hosts, add the new key after the old one on all of them
    /// first, so that each can read what another encrypts with it.
    Rotate,
}

pub async fn run(command: Command, global: &Global) -> Result<Verdict> {
    match command {
        Command::Set { name, from_file } => {
            let mut text = read(&name, from_file)?;
            let client = Client::connect(global).await?;
            let request = SetSecretRequest { name, text: std::mem::take(&mut *text) };
            let secret = client.secrets().set_secret(call(request)).await?.into_inner();
            let facts = [
                ("name", secret.name.clone()),
                ("key", secret.key_id.clone()),
                ("created", output::instant(secret.created_at)),
                ("updated", output::instant(secret.updated_at)),
            ];
            output::facts(global.output, &facts, || secret_json(&secret))?;
        }
        Command::Ls => list(global.output, &Client::connect(global).await?).await?,
        Command::Rm { name } => {
            let client = Client::connect(global).await?;
            client.secrets().delete_secret(call(DeleteSecretRequest { name: name.clone() })).await?;
            if global.output == Format::Json {
                output::json(&json!({"deleted": name}))?;
            }
        }
        Command::Rotate => {
            let client = Client::connect(global).await?;
            let mut request = call(RotateSecretsRequest {});
            request.set_timeout(ROTATION_TIMEOUT);
            let rotated = client.secrets().rotate_secrets(request).await?.into_inner();
            let facts = [("key", rotated.key_id.clone()), ("encrypted anew", rotated.rotated.to_string())];
            let value = || json!({"key_id": rotated.key_id, "rotated": rotated.rotated});
            output::facts(global.output, &facts, value)?;
        }
    }
    Ok(Verdict::Succeeded)
}

/// A secret's text from where it was said to be.
fn read(name: &str, file: Option<PathBuf>) -> Result<Zeroizing<String>> {
    let bytes = match file {
        Some(path) => {
            let file = File::open(&path).with_context(|| format!("can't open {}", path.display()))?;
            bounded(file).with_context(|| format!("can't read {}", path.display()))?
        }
        None if io::stdin().is_terminal() => {
            let terminal = Term::stderr();
            terminal.write_str(&format!("{name}: ")).context("can't ask on the terminal")?;
            let text = terminal.read_secure_line().context("can't read from the terminal")?;
            return Ok(Zeroizing::new(text));
        }
        None => bounded(io::stdin().lock()).context("can't read stdin")?,
    };
    Ok(text_of(&bytes)?)
}

/// No more than a secret may have, with a line's end after it, and one byte more, which the host refuses.
fn bounded(from: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    from.take(SECRET_BYTES_MAX as u64 + 3).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text, without one line's end after it.
fn text_of(bytes: &[u8]) -> Result<Zeroizing<String>, Usage> {
    let text = std::str::from_utf8(bytes);
    let text =
        text.map_err(|_| Usage("a secret is text, and this is not UTF-8; encode it, by base64 say".into()))?;
    let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(Zeroizing::new(text.into()))
}

async fn list(format: Format, client: &Client) -> Result<()> {
    let (mut secrets, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListSecretsRequest { page_size: 0, page_token };
        let page = client.secrets().list_secrets(call(request)).await?.into_inner();
        secrets.extend(page.secrets);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    const COLUMNS: &[Column] = &[text("name"), text("key"), text("tasks"), text("updated")];
    let rows = secrets.iter().map(|secret| {
        let tasks = secret.tasks.join(", ");
        vec![secret.name.clone(), secret.key_id.clone(), tasks, output::instant(secret.updated_at)]
    });
    output::rows(format, COLUMNS, rows.collect(), || secrets.iter().map(with_tasks).collect())
}

/// As a list knows it.
fn with_tasks(secret: &Secret) -> Value {
    let mut value = secret_json(secret);
    value["tasks"] = json!(secret.tasks);
    value
}

fn secret_json(secret: &Secret) -> Value {
    json!({
        "name": secret.name,
        "key_id": secret.key_id,
        "created_at": json::instant(secret.created_at),
        "updated_at": json::instant(secret.updated_at),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lines_end_is_no_part_of_it() {
        let of = |bytes: &[u8]| text_of(bytes).unwrap().to_string();
        assert_eq!([of(b"abc\n"), of(b"abc\r\n"), of(b"abc")], ["abc", "abc", "abc"]);
        assert_eq!([of(b"abc\n\n"), of(b" a\nb "), of(b"abc\r")], ["abc\n", " a\nb ", "abc\r"]);
        assert!(text_of(b"\xff").is_err());
    }
}
