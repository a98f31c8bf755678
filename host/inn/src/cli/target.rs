//! Whom a command talks to, and what it shows: from flags, the environment, a context and the data folder, in this
//! order. A credential goes only to the host that it is for.

use super::tls::Trust;
use super::{Global, Usage, output};
use crate::contexts::{Context, Contexts, config_folder};
use crate::data_folder::{ADDRESS_FILE, ADMIN_TOKEN_FILE, is_open};
use anyhow::{Context as _, Result};
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use tonic::Status;
use tonic::transport::Uri;

/// Where a host listens that was told nothing.
const HOST_DEFAULT: &str = "http://127.0.0.1:7070";

/// A host, and what to show to it.
pub struct Target {
    pub url: String,
    pub tenant: Option<String>,
    /// None if a certificate is shown instead.
    pub token: Option<String>,
    pub tls: Option<Trust>,
}

/// Flags, or the environment's word for them.
#[derive(Debug, Clone, Default)]
pub struct Said {
    pub host: Option<String>,
    pub tenant: Option<String>,
    pub token: Option<String>,
    pub token_file: Option<PathBuf>,
    pub context: Option<String>,
    pub data: Option<PathBuf>,
    pub ca: Option<PathBuf>,
    pub cert: Option<(PathBuf, PathBuf)>,
    pub insecure_plain_text: bool,
}

impl Target {
    /// Reads the contexts, the data folder and whatever files are named.
    pub fn of(global: &Global) -> Result<Self> {
        let contexts = match config_folder(|variable| std::env::var_os(variable)) {
            Some(folder) => Contexts::load(&folder)?,
            None => Contexts::default(),
        };
        Self::choose(&global.flags()?, &global.environment, &contexts, global.data_folder())
    }

    fn choose(flags: &Said, environment: &Said, contexts: &Contexts, data: Result<PathBuf>) -> Result<Self> {
        let context = context(flags, environment, contexts)?;
        let local = data.as_ref().ok().map_or_else(|| HOST_DEFAULT.into(), |data| local_host(data));
        // What names a host before the context does; a context that a flag names goes before the environment.
        let named = match (&flags.host, &flags.context) {
            (None, None) => environment.host.as_ref(),
            (host, _) => host.as_ref(),
        };
        let own = context.and_then(|context| context.host.as_ref()).unwrap_or(&local);
        let tls_wanted = flags.ca.is_some() || flags.cert.is_some();
        let url = with_scheme(named.unwrap_or(own), tls_wanted);
        // A context is about its host. For another one nothing of it is used, its token least of all.
        let context = context.filter(|_| is_same_host(&url, &with_scheme(own, tls_wanted)));
        // Under a context that a flag names, the environment only fills what that leaves open.
        let said = if flags.context.is_some() {
            [Some(flags.clone()), context.map(said), Some(environment.clone())]
        } else {
            [Some(flags.clone()), Some(environment.clone()), context.map(said)]
        };
        let said: Vec<Said> = said.into_iter().flatten().collect();
        let cert = said.iter().find_map(|said| said.cert.clone());
        let ca = said.iter().find_map(|said| said.ca.clone());
        let token = match said.iter().find(|said| said.token.is_some() || said.token_file.is_some()) {
            Some(said) => Some(token(said)?),
            // A certificate is enough, and the admin's token would be more than it.
            None if cert.is_some() => None,
            None => Some(admin_token(&url, &local, &data?)?),
        };
        let is_secret = url.starts_with("https://");
        if !is_secret && (ca.is_some() || cert.is_some()) {
            return Err(Usage(format!("certificates are for https://, and {url} is not")).into());
        }
        let insecure = said.iter().any(|said| said.insecure_plain_text);
        if !is_secret && token.is_some() && !is_loopback(&url) && !insecure {
            return Err(Usage(format!(
                "{url} is another machine, and without TLS anybody in between could read the token; use https://, \
                 or a tunnel, or say --insecure-plain-text if the network is yours alone"
            ))
            .into());
        }
        let tls = is_secret.then(|| Trust::read(ca.as_deref(), cert.as_ref())).transpose()?;
        let tenant = said.iter().find_map(|said| said.tenant.clone());
        Ok(Self { url, tenant, token, tls })
    }
}

/// The context that is meant. One that is merely current gives way to a data folder that is named.
fn context<'a>(flags: &Said, environment: &Said, contexts: &'a Contexts) -> Result<Option<&'a Context>> {
    let name = match flags {
        Said { context: Some(name), .. } => Some(name),
        Said { data: Some(_), .. } => None,
        _ if environment.context.is_some() => environment.context.as_ref(),
        _ if environment.data.is_some() => None,
        _ => contexts.current.as_ref(),
    };
    Ok(name.map(|name| contexts.get(name)).transpose()?)
}

fn said(context: &Context) -> Said {
    let Context { host: _, tenant, token, token_file, ca, cert, key, insecure_plain_text } = context.clone();
    Said { tenant, token, token_file, ca, cert: cert.zip(key), insecure_plain_text, ..Said::default() }
}

/// The host of the data folder, as it told; where one listens that was told nothing, if it didn't.
fn local_host(data: &Path) -> String {
    let told = fs::read_to_string(data.join(ADDRESS_FILE));
    told.map_or_else(|_| HOST_DEFAULT.into(), |url| url.trim().to_string())
}

fn with_scheme(url: &str, tls_wanted: bool) -> String {
    match (url.contains("://"), tls_wanted) {
        (true, _) => url.into(),
        (false, true) => format!("https://{url}"),
        (false, false) => format!("http://{url}"),
    }
}

/// Whether both URLs reach the same host in the same way.
pub fn is_same_host(one: &str, other: &str) -> bool {
    let place = |url: &str| {
        let uri: Uri = url.parse().ok()?;
        let port = uri.port_u16().or(match uri.scheme_str()? {
            "https" => Some(443),
            _ => Some(80),
        });
        Some((uri.scheme_str()?.to_lowercase(), uri.host()?.to_lowercase(), port))
    };
    place(one).is_some_and(|one| place(other) == Some(one))
}

fn is_loopback(url: &str) -> bool {
    let Some(uri) = url.parse::<Uri>().ok() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    // Whoever connects to 0.0.0.0 or [::] gets to this machine.
    let is_own = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_own)
}

fn token(said: &Said) -> Result<String> {
    match (&said.token, &said.token_file) {
        (Some(token), _) => Ok(token.clone()),
        (None, file) => {
            let file = file.clone().unwrap_or_default();
            if is_open(&file) {
                output::note(&format!(
                    "others than its owner can read the token in {0}; `chmod 600 {0}`",
                    file.display()
                ));
            }
            fs::read_to_string(&file).with_context(|| format!("can't read the token from {}", file.display()))
        }
    }
}

/// The data folder's, for its own host or another one on this machine.
fn admin_token(url: &str, local: &str, data: &Path) -> Result<String> {
    let file = data.join(ADMIN_TOKEN_FILE);
    if !is_same_host(url, local) && !is_loopback(url) {
        return Err(Status::unauthenticated(format!(
            "there is no token for {url}: give one (--token, --token-file, INN_TOKEN, `inn context set`), or a \
             certificate (--cert, --key); {} is this machine's and goes nowhere else",
            file.display()
        ))
        .into());
    }
    match fs::read_to_string(&file) {
        Ok(token) => Ok(token),
        Err(e) if e.kind() == ErrorKind::NotFound => Err(Status::unauthenticated(format!(
            "there is no token: give one (--token, --token-file, INN_TOKEN, `inn context set`), or the host's data \
             folder (--data); {} isn't there",
            file.display()
        ))
        .into()),
        Err(e) => Err(e).with_context(|| format!("can't read the token from {}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn data() -> TempDir {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join(ADDRESS_FILE), "http://127.0.0.1:7171\n").unwrap();
        fs::write(data.path().join(ADMIN_TOKEN_FILE), "inn_admin\n").unwrap();
        data
    }

    fn contexts() -> Contexts {
        let work = Context {
            host: Some("https://work.example.com:7070".into()),
            tenant: Some("acme".into()),
            token: Some("inn_work".into()),
            ..Context::default()
        };
        let here = Context { tenant: Some("here".into()), ..Context::default() };
        let contexts = [("work".to_string(), work), ("here".to_string(), here)].into();
        Contexts { current: Some("work".into()), contexts }
    }

    fn host(host: &str) -> Said {
        Said { host: Some(host.into()), ..Said::default() }
    }

    fn choose(flags: &Said, environment: &Said, contexts: &Contexts) -> Result<(String, String, String)> {
        let data = data();
        let target = Target::choose(flags, environment, contexts, Ok(data.path().into()))?;
        let shown = |text: Option<String>| text.unwrap_or_default().trim().to_string();
        Ok((target.url, shown(target.tenant), shown(target.token)))
    }

    fn chosen(flags: &Said, environment: &Said) -> [String; 3] {
        choose(flags, environment, &contexts()).unwrap().into()
    }

    #[test]
    fn flags_then_environment_then_context_then_data_folder() {
        let none = Said::default();
        let work = "https://work.example.com:7070";
        assert_eq!(chosen(&none, &none), [work, "acme", "inn_work"]);
        let bare = choose(&none, &none, &Contexts::default()).unwrap();
        assert_eq!(<[String; 3]>::from(bare), ["http://127.0.0.1:7171", "", "inn_admin"]);
        let flags = Said { tenant: Some("flag".into()), ..none.clone() };
        let environment = Said { tenant: Some("env".into()), token: Some("inn_env".into()), ..none.clone() };
        assert_eq!(chosen(&flags, &environment), [work, "flag", "inn_env"]);
        assert_eq!(chosen(&none, &environment), [work, "env", "inn_env"]);
        // A context without a host is the data folder's; a data folder that is named goes before the current one.
        let here = Said { context: Some("here".into()), ..none.clone() };
        assert_eq!(chosen(&here, &none), ["http://127.0.0.1:7171", "here", "inn_admin"]);
        assert_eq!(chosen(&none, &here), ["http://127.0.0.1:7171", "here", "inn_admin"]);
        let named = Said { data: Some("d".into()), ..none.clone() };
        assert_eq!(chosen(&named, &none), ["http://127.0.0.1:7171", "", "inn_admin"]);
        assert_eq!(chosen(&none, &named), ["http://127.0.0.1:7171", "", "inn_admin"]);
        // What a flag names, the environment doesn't redirect or rename.
        let work_flag = Said { context: Some("work".into()), ..none.clone() };
        let environment = Said { host: Some("http://127.0.0.1:1".into()), ..environment };
        assert_eq!(chosen(&work_flag, &environment), [work, "acme", "inn_work"]);
        let unknown = Said { context: Some("no".into()), ..none.clone() };
        assert!(choose(&unknown, &none, &contexts()).is_err());
    }

    #[test]
    fn a_credential_goes_to_no_other_host() {
        let none = Said::default();
        // To another one on this machine goes this machine's token, not the context's.
        let other = [host("http://127.0.0.1:9"), host("localhost:7070"), host("http://[::1]:9")];
        for other in other {
            let [_, tenant, token] = chosen(&other, &none);
            assert_eq!([tenant, token], ["", "inn_admin"], "{other:?}");
            assert_eq!(chosen(&none, &other)[2], "inn_admin");
        }
        for other in [
            "https://evil.example.com:7070",
            "https://work.example.com:7071",
            "https://work.example.com",
            "https://work.example.com.evil.org:7070",
            "https://127.0.0.1.evil.org",
            "https://localhost.evil.org",
            "https://inn:work.example.com:7070@evil.org",
            "https://10.0.0.1",
        ] {
            let error = choose(&host(other), &none, &contexts()).unwrap_err().to_string();
            assert!(error.contains("there is no token for"), "{error}");
        }
        // Nor to the same one unencrypted.
        assert!(choose(&host("http://work.example.com:7070"), &none, &contexts()).is_err());
        let same = host("https://Work.example.com:7070");
        assert_eq!(chosen(&same, &none)[1..], ["acme", "inn_work"]);
    }

    #[test]
    fn without_a_home_folder_what_is_given_is_enough() {
        let given = Said { token: Some("inn_t".into()), ..host("127.0.0.1:9") };
        let of = |flags: &Said| {
            let data = Err(anyhow::anyhow!("there is no home folder"));
            Target::choose(flags, &Said::default(), &Contexts::default(), data)
        };
        assert_eq!(of(&given).ok().map(|target| target.url), Some("http://127.0.0.1:9".into()));
        assert!(of(&host("127.0.0.1:9")).is_err());
    }

    #[test]
    fn a_token_is_not_sent_where_others_can_read_it() {
        let token = |url: &str| Said { token: Some("inn_t".into()), ..host(url) };
        let none = Said::default();
        let error = choose(&token("http://10.0.0.1:7070"), &none, &contexts()).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("--insecure-plain-text"), "{error}");
        assert!(choose(&token("10.0.0.1:7070"), &none, &contexts()).is_err());
        let insecure = Said { insecure_plain_text: true, ..token("http://10.0.0.1:7070") };
        assert_eq!(chosen(&insecure, &none)[2], "inn_t");
        assert_eq!(chosen(&token("https://10.0.0.1:7070"), &none)[2], "inn_t");
        let cert = Some(("c".into(), "k".into()));
        let error = choose(&Said { cert, ..host("http://127.0.0.1:1") }, &none, &contexts()).unwrap_err();
        assert!(error.to_string().contains("https://"), "{error}");
    }
}
