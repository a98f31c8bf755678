//! `inn token`.

use super::client::{Client, call, pages};
use super::output::{self, Column, text};
use super::{Format, Global, Usage, Verdict, json, parse, token_recover};
use crate::host::now;
use anyhow::Result;
use innkeeper_api::proto::{CreateTokenRequest, ListTokensRequest, RevokeTokenRequest, Token};
use innkeeper_domain::access::Role;
use serde_json::{Value, json};

/// Create and revoke tokens: who may call, and what they may do
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a token of the tenant (--tenant), and print its text, which is shown this once
    ///
    /// viewer looks at everything but secrets and the audit log; operator also starts and cancels runs, pauses and
    /// resumes triggers; owner does everything in the tenant; admin everything in every tenant.
    #[command(after_help = "Examples:
  inn token create --tenant acme --role owner > acme.token
  inn token create --tenant acme --role operator --task report --expires 30d --note 'the nightly job'
  inn token create --tenant acme --role operator --certificate DNS:ci.acme.example
  inn token create --role admin --note 'Ada'")]
    Create(Create),
    /// List tokens of the tenant, the newest first, with those that are void; never their text
    Ls {
        /// Those of every tenant, and the admins'
        #[arg(long)]
        all: bool,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Make a token worth nothing, at once and on every host
    Revoke {
        id: String,
    },
    Recover(token_recover::Args),
}

#[derive(Debug, clap::Args)]
pub struct Create {
    /// viewer, operator, owner or admin
    #[arg(long)]
    role: Role,
    /// The only task that it may see and touch; can be repeated
    #[arg(long = "task", value_name = "NAME")]
    tasks: Vec<String>,
    /// When it ends: after a duration such as 30d, or at an instant; never if not given
    #[arg(long, value_name = "DURATION|INSTANT")]
    expires: Option<String>,
    /// What it is for, for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// Give the role to a client certificate's name instead: DNS:NAME, URI:URI or CN:NAME
    #[arg(long, value_name = "NAME", conflicts_with = "subject")]
    certificate: Option<String>,
    /// Give the role to a subject of the host's identity provider instead
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
}

pub async fn run(command: Command, global: &Global) -> Result<Verdict> {
    let format = global.output;
    match command {
        Command::Create(create) => {
            let request = create.request(global)?;
            let client = Client::connect(global).await?;
            let created = client.tokens().create_token(call(request)).await?.into_inner();
            let token = created.token.unwrap_or_default();
            match format {
                Format::Table if created.text.is_empty() => output::line(&token.id)?,
                Format::Table => {
                    output::note(&format!("token {}; its text is shown only now", token.id));
                    output::line(&created.text)?;
                }
                Format::Json => {
                    let mut value = json(&token);
                    if let Value::Object(fields) = &mut value {
                        fields
                            .insert("text".into(), (!created.text.is_empty()).then_some(created.text).into());
                    }
                    output::json(&value)?;
                }
            }
        }
        Command::Ls { all, limit } => {
            let client = Client::connect(global).await?;
            let tokens = pages(limit, async |page_size, page_token| {
                let request = ListTokensRequest { page_size, page_token, all };
                let page = client.tokens().list_tokens(call(request)).await?.into_inner();
                Ok((page.tokens, page.next_page_token))
            });
            list(format, &tokens.await?)?;
        }
        Command::Revoke { id } => {
            let client = Client::connect(global).await?;
            let token = client.tokens().revoke_token(call(RevokeTokenRequest { id })).await?.into_inner();
            match format {
                Format::Json => output::json(&json(&token))?,
                Format::Table => output::note(&format!("token {} is revoked", token.id)),
            }
        }
        Command::Recover(args) => token_recover::run(args, global).await?,
    }
    Ok(Verdict::Succeeded)
}

impl Create {
    fn request(self, global: &Global) -> Result<CreateTokenRequest> {
        if self.role == Role::Admin && global.flags()?.tenant.is_some() {
            let problem =
                "a token of role `admin` speaks for every tenant; leave --tenant out, or use role `owner`";
            return Err(Usage(problem.into()).into());
        }
        let expires_at = self.expires.map(|text| parse::until(&text, now())).transpose()?;
        Ok(CreateTokenRequest {
            role: self.role.to_string(),
            tasks: self.tasks,
            certificate: self.certificate.unwrap_or_default(),
            subject: self.subject.unwrap_or_default(),
            note: self.note,
            expires_at: expires_at.map(output::wire_instant),
        })
    }
}

fn list(format: Format, tokens: &[Token]) -> Result<()> {
    const COLUMNS: &[Column] = &[
        text("id"),
        text("tenant"),
        text("role"),
        text("tasks"),
        text("shown as"),
        text("state"),
        text("expires"),
        text("created"),
        text("note"),
    ];
    let rows = tokens.iter().map(|token| {
        vec![
            token.id.clone(),
            if token.tenant.is_empty() { "every".into() } else { token.tenant.clone() },
            token.role.clone(),
            tasks(token),
            proof(token),
            state(token).into(),
            expires(token),
            output::instant(token.created_at),
            token.note.clone(),
        ]
    });
    output::rows(format, COLUMNS, rows.collect(), || Value::Array(tokens.iter().map(json).collect()))
}

/// The tasks that it may touch.
pub fn tasks(token: &Token) -> String {
    if token.tasks.is_empty() { "all".into() } else { token.tasks.join(",") }
}

/// How its holder shows who it is.
pub fn proof(token: &Token) -> String {
    match (token.certificate.as_str(), token.subject.as_str()) {
        ("", "") => "token".into(),
        (certificate, "") => format!("certificate {certificate}"),
        (_, subject) => format!("subject {subject}"),
    }
}

/// When it ends.
pub fn expires(token: &Token) -> String {
    if token.expires_at.is_none() { "never".into() } else { output::instant(token.expires_at) }
}

fn state(token: &Token) -> &'static str {
    let is_over = |at: Option<_>| at.and_then(output::domain_instant).is_some_and(|at| at <= now());
    if token.revoked_at.is_some() {
        "revoked"
    } else if is_over(token.expires_at) {
        "expired"
    } else {
        "good"
    }
}

pub fn json(token: &Token) -> Value {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_string());
    json!({
        "id": token.id,
        "tenant": some(&token.tenant),
        "role": token.role,
        "tasks": (!token.tasks.is_empty()).then_some(&token.tasks),
        "certificate": some(&token.certificate),
        "subject": some(&token.subject),
        "note": some(&token.note),
        "created_at": json::instant(token.created_at),
        "expires_at": json::instant(token.expires_at),
        "revoked_at": json::instant(token.revoked_at),
    })
}
