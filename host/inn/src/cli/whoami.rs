//! `inn whoami`.

use super::client::{Client, call};
use super::{Global, Verdict, json, output, tenant, token};
use anyhow::Result;
use innkeeper_api::proto::WhoAmIRequest;
use serde_json::Value;

/// Show whom your calls speak for, and which host answers
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  inn whoami
  inn whoami --context prod
  inn whoami -o json")]
pub struct Args {}

pub async fn run(_args: Args, global: &Global) -> Result<Verdict> {
    let client = Client::connect(global).await?;
    let who = client.tokens().who_am_i(call(WhoAmIRequest {})).await?.into_inner();
    let token = who.token.unwrap_or_default();
    let facts = [
        ("tenant", who.tenant.clone()),
        ("state", if who.tenant_state == "active" { String::new() } else { who.tenant_state.clone() }),
        ("paused", who.tenant_pause.as_ref().map(tenant::paused).unwrap_or_default()),
        ("role", token.role.clone()),
        ("tasks", token::tasks(&token)),
        ("id", token.id.clone()),
        ("shown as", token::proof(&token)),
        ("note", token.note.clone()),
        ("expires", token::expires(&token)),
        ("host", who.host.clone()),
        ("version", who.version.clone()),
    ];
    output::facts(global.output, &facts, || {
        let mut value = token::json(&token);
        if let Value::Object(fields) = &mut value {
            // The tenant of the call: an admin's token has none of its own.
            fields.insert("tenant".into(), who.tenant.clone().into());
            fields.insert("tenant_state".into(), who.tenant_state.clone().into());
            let paused_at = who.tenant_pause.as_ref().and_then(|pause| pause.at);
            fields.insert("tenant_paused_at".into(), json::instant(paused_at));
            fields.insert("host".into(), who.host.clone().into());
            fields.insert("version".into(), who.version.clone().into());
        }
        value
    })?;
    Ok(Verdict::Succeeded)
}
