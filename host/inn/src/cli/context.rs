//! `inn context`.

use super::output::{self, text};
use super::target::is_same_host;
use super::{Format, Global, Usage, Verdict};
use crate::contexts::{Context, Contexts, NoContext, config_folder};
use anyhow::{Context as _, Result};
use innkeeper_domain::name::Name;
use serde_json::{Value, json};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tonic::transport::Uri;

/// Bytes that a token on stdin may have.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// Name hosts, tenants and tokens, and choose between them
///
/// Contexts are kept in `contexts.json` in $INN_CONFIG, else in the user's config folder; only you can read it.
/// A flag goes before the environment, that before the context, that before the data folder. What a context holds
/// is for its host alone: with another --host nothing of it is used.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a context, or change it: what isn't given stays
    ///
    /// Takes --host, --tenant, --token-file, --ca, --cert, --key and --insecure-plain-text, of which it keeps what
    /// is given. Of files it keeps where they are. With another host than before, token and certificate are
    /// forgotten unless they are given anew.
    #[command(after_help = "Examples:
  inn context set prod --host https://inn.example.com:7070 --tenant acme --token-file ~/acme.token
  pass acme | inn context set prod --token-stdin
  inn context set ci --host https://inn.example.com:7070 --ca ca.pem --cert ci.pem --key ci.key
  inn context use prod")]
    Set {
        name: Name,
        /// Keep the token that comes from stdin
        #[arg(long, conflicts_with_all = ["token", "token_file"])]
        token_stdin: bool,
    },
    /// Use a context from now on
    #[command(after_help = "Examples:
  inn context use prod
  inn context use --none     the data folder's host again")]
    Use {
        #[arg(required_unless_present = "none")]
        name: Option<String>,
        /// Use none from now on
        #[arg(long, conflicts_with = "name")]
        none: bool,
    },
    /// List contexts
    Ls,
    /// Show a context, the current one if none is named; never its token
    Show { name: Option<String> },
    /// Forget a context
    Rm { name: String },
}

pub fn run(command: Command, global: &Global) -> Result<Verdict> {
    let folder = config_folder(|variable| std::env::var_os(variable)).ok_or_else(|| {
        Usage("there is no home folder; say where contexts are to be kept (INN_CONFIG)".into())
    })?;
    let mut contexts = Contexts::load(&folder)?;
    let format = global.output;
    match command {
        Command::Set { name, token_stdin } => {
            let name = name.to_string();
            let stdin = token_stdin.then(token_of_stdin).transpose()?;
            let before = contexts.contexts.get(&name).cloned().unwrap_or_default();
            let context = changed(before, global, stdin)?;
            contexts.contexts.insert(name.clone(), context);
            contexts.save(&folder)?;
            if contexts.current.as_ref() != Some(&name) {
                output::note(&format!("`inn context use {name}` makes it the current one"));
            }
            show(format, &name, &contexts)?;
        }
        Command::Use { name, .. } => {
            if let Some(name) = &name {
                contexts.get(name)?;
            }
            contexts.current = name;
            contexts.save(&folder)?;
            output::note(&match &contexts.current {
                Some(name) => format!("the current context is `{name}`"),
                None => "there is no current context; the data folder's host is used".into(),
            });
        }
        Command::Ls => {
            let columns = &[text("name"), text("current"), text("host"), text("tenant"), text("shows")];
            let rows = contexts.contexts.iter().map(|(name, context)| {
                vec![
                    name.clone(),
                    if contexts.current.as_ref() == Some(name) { "*".into() } else { String::new() },
                    context.host.clone().unwrap_or_else(|| "the data folder's".into()),
                    context.tenant.clone().unwrap_or_default(),
                    shows(context),
                ]
            });
            let all = || contexts.contexts.keys().map(|name| json(name, &contexts)).collect();
            output::rows(format, columns, rows.collect(), || Value::Array(all()))?;
        }
        Command::Show { name } => {
            let name = name.or_else(|| contexts.current.clone()).ok_or_else(|| {
                Usage("there is no current context; name one, or `inn context use` one".into())
            })?;
            show(format, &name, &contexts)?;
        }
        Command::Rm { name } => {
            contexts.contexts.remove(&name).ok_or_else(|| NoContext(name.clone()))?;
            if contexts.current.as_ref() == Some(&name) {
                contexts.current = None;
                output::note("it was the current one; now there is none");
            }
            contexts.save(&folder)?;
        }
    }
    Ok(Verdict::Succeeded)
}

/// The context with what the flags say.
fn changed(mut context: Context, global: &Global, stdin: Option<String>) -> Result<Context> {
    let flags = global.flags()?;
    let absolute = |path: &Path| {
        std::path::absolute(path).with_context(|| format!("{} can't be made absolute", path.display()))
    };
    let absolute = |path: Option<PathBuf>| path.map(|path| absolute(&path)).transpose();
    if let Some(host) = flags.host {
        let host = if host.contains("://") {
            host
        } else if flags.ca.is_some() || flags.cert.is_some() {
            format!("https://{host}")
        } else {
            format!("http://{host}")
        };
        let uri = host.parse::<Uri>().ok().filter(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        });
        if uri.is_none() {
            return Err(Usage(format!("`{host}` is not a host's URL; write https://HOST:PORT")).into());
        }
        if !context.host.as_ref().is_some_and(|before| is_same_host(before, &host)) {
            let held = context.token.is_some() || context.token_file.is_some() || context.cert.is_some();
            if held && flags.token.is_none() && flags.token_file.is_none() && stdin.is_none() {
                output::note("its token and certificate were another host's, and are forgotten");
            }
            context = Context { tenant: context.tenant, ..Context::default() };
        }
        context.host = Some(host);
    }
    context.tenant = flags.tenant.or(context.tenant);
    if let Some(token) = flags.token.or(stdin) {
        (context.token, context.token_file) = (Some(token), None);
    } else if let Some(file) = absolute(flags.token_file)? {
        (context.token, context.token_file) = (None, Some(file));
    }
    context.ca = absolute(flags.ca)?.or(context.ca);
    if let Some((cert, key)) = flags.cert {
        (context.cert, context.key) = (absolute(Some(cert))?, absolute(Some(key))?);
    }
    context.insecure_plain_text |= flags.insecure_plain_text;
    Ok(context)
}

fn token_of_stdin() -> Result<String> {
    let mut token = String::new();
    let read = io::stdin().lock().take(TOKEN_BYTES_MAX).read_to_string(&mut token);
    read.context("can't read the token from stdin")?;
    let token = token.trim();
    if token.is_empty() || token.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Usage("what came from stdin is no token".into()).into());
    }
    Ok(token.into())
}

/// What it shows to the host, in words that don't tell it.
fn shows(context: &Context) -> String {
    let token = match (&context.token, &context.token_file) {
        (Some(_), _) => Some("a token".to_string()),
        (None, Some(file)) => Some(format!("the token in {}", file.display())),
        (None, None) => None,
    };
    let cert = context.cert.as_ref().map(|cert| format!("the certificate {}", cert.display()));
    let shown: Vec<String> = token.into_iter().chain(cert).collect();
    if shown.is_empty() { "the data folder's token".into() } else { shown.join(" and ") }
}

fn show(format: Format, name: &str, contexts: &Contexts) -> Result<()> {
    let context = contexts.get(name)?;
    let path =
        |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let facts = [
        ("name", name.to_string()),
        ("current", if contexts.current.as_deref() == Some(name) { "yes" } else { "no" }.into()),
        ("host", context.host.clone().unwrap_or_else(|| "the data folder's".into())),
        ("tenant", context.tenant.clone().unwrap_or_default()),
        ("shows", shows(context)),
        ("ca", path(&context.ca)),
        ("key", path(&context.key)),
        ("plain text", if context.insecure_plain_text { "allowed".into() } else { String::new() }),
    ];
    output::facts(format, &facts, || json(name, contexts))
}

fn json(name: &str, contexts: &Contexts) -> Value {
    let context = contexts.contexts.get(name).cloned().unwrap_or_default();
    json!({
        "name": name,
        "current": contexts.current.as_deref() == Some(name),
        "host": context.host,
        "tenant": context.tenant,
        "has_token": context.token.is_some() || context.token_file.is_some(),
        "token_file": context.token_file,
        "ca": context.ca,
        "cert": context.cert,
        "key": context.key,
        "insecure_plain_text": context.insecure_plain_text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prod() -> Context {
        Context {
            host: Some("https://inn.example.com".into()),
            tenant: Some("acme".into()),
            token: Some("inn_secret".into()),
            ca: Some("/ca.pem".into()),
            ..Context::default()
        }
    }

    fn with(host: &str) -> Global {
        Global { host: Some(host.into()), ..Global::default() }
    }

    #[test]
    fn what_is_not_given_stays_but_no_token_moves_to_another_host() {
        let tenant = Global { tenant: Some("other".into()), ..Global::default() };
        let context = changed(prod(), &tenant, None).unwrap();
        assert_eq!(
            (context.tenant.as_deref(), context.token.as_deref()),
            (Some("other"), Some("inn_secret"))
        );
        let context = changed(prod(), &with("https://evil.example.com"), None).unwrap();
        assert_eq!((context.token, context.ca, context.tenant.as_deref()), (None, None, Some("acme")));
        let context = changed(prod(), &with("https://INN.example.com:443"), None).unwrap();
        assert_eq!(context.token.as_deref(), Some("inn_secret"));
        let context = changed(prod(), &with("inn.example.com:443"), Some("inn_new".into())).unwrap();
        assert_eq!(context.host.as_deref(), Some("http://inn.example.com:443"));
        assert_eq!(context.token.as_deref(), Some("inn_new"));
        for bad in ["ftp://x", "https://", "https://a@b", "http://a b"] {
            assert!(changed(prod(), &with(bad), None).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_kept_absolute_and_tokens_not_shown() {
        let global = Global {
            token_file: Some("t".into()),
            cert: Some("c".into()),
            key: Some("/k".into()),
            ..Global::default()
        };
        let context = changed(prod(), &global, None).unwrap();
        assert_eq!(context.token, None);
        for path in [&context.token_file, &context.cert, &context.key] {
            assert!(path.as_ref().is_some_and(|path| path.is_absolute()));
        }
        let contexts = Contexts { current: None, contexts: [("prod".into(), prod())].into() };
        let shown = format!("{} {}", json("prod", &contexts), shows(&prod()));
        assert!(!shown.contains("inn_secret") && shown.contains("\"has_token\":true"), "{shown}");
    }
}
