//! Who calls, and whether it may. Every call passes [`Auth`], which reads the rules of [`crate::access`]; a call that
//! may not be made reaches no service. This is the one place where that is decided.

use crate::Api;
use crate::access::{Concerns, Does, ForSomeTasks, Path, Rule, of_path};
use crate::caller::{Caller, Known, Shown};
use crate::denials::What;
use crate::gate::Gate;
use crate::intercept::Intercept;
use crate::peer::{IdentityError, Peer};
use crate::status::of_store;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use innkeeper_domain::access::{Proof, Token};
use innkeeper_domain::audit::Actor;
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::limits::NAME_CHARS_MAX;
use innkeeper_domain::name::Name;
use innkeeper_domain::tenant::Tenant;
use innkeeper_store::{Found, StoreError, TokenHash};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::ControlFlow;
use std::sync::Arc;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};

/// The tenant that an admin's calls are for when they name none.
pub const TENANT_DEFAULT: &str = "default";

/// The header that names a call's tenant.
pub const TENANT_HEADER: &str = "innkeeper-tenant";

/// What tokens that hosts make begin with.
pub const TOKEN_PREFIX: &str = "inn_";

/// Characters of a name that was shown, in the audit log and in errors.
const SHOWN_CHARS_MAX: usize = 255;

/// What is stored of a token: the sha-256 of its text.
pub fn token_hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

/// What stands for the name of a client certificate in the place of a token's hash. No token has it, for none has
/// a NUL.
pub fn certificate_hash(name: &str) -> TokenHash {
    token_hash(&format!("certificate\0{name}"))
}

/// The same of an issuer's subject.
pub fn subject_hash(issuer: &str, subject: &str) -> TokenHash {
    token_hash(&format!("subject\0{issuer}\0{subject}"))
}

/// Somebody who was not let through.
struct Refused {
    status: Status,
    /// How it goes on record; without one it doesn't.
    actor: Option<Actor>,
    tenant: Option<(TenantId, Name)>,
}

impl From<Status> for Refused {
    /// The state of things refuses it, and not who calls.
    fn from(status: Status) -> Self {
        Self { status, actor: None, tenant: None }
    }
}

impl Shown {
    /// What a call shows: its token, else its connection's certificate.
    fn of(headers: &HeaderMap, peer: Option<&Peer>) -> Result<Self, Status> {
        if let Some(header) = headers.get(http::header::AUTHORIZATION) {
            let text = header.to_str().ok().and_then(|text| text.split_once(' '));
            let Some((_, token)) = text.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
                return Err(Status::unauthenticated(
                    "the call's `authorization` can't be read; send `Bearer TOKEN`",
                ));
            };
            let token = token.trim();
            let signed = !token.starts_with(TOKEN_PREFIX) && token.matches('.').count() == 2;
            return Ok(if signed { Self::Signed(token.into()) } else { Self::Token(token_hash(token)) });
        }
        match peer.map(|peer| &peer.certificate) {
            Some(names) if !names.is_empty() => Ok(Self::Certificate(names.clone())),
            _ => Err(Status::unauthenticated(
                "the call has no token; send `authorization: Bearer TOKEN` (the first admin's is in admin.token \
                 in the host's data folder)",
            )),
        }
    }

    /// What stands for it where log-ins are limited.
    fn hash(&self) -> TokenHash {
        match self {
            Self::Token(hash) => *hash,
            Self::Signed(text) => token_hash(text),
            Self::Certificate(names) => certificate_hash(&names.join("\0")),
        }
    }
}

impl Api {
    /// Whom what is shown makes known, if it is worth anything now. Otherwise why not, and how who showed it goes on
    /// record.
    pub(crate) async fn find(&self, shown: &Shown) -> Result<Found, (Status, Option<Proven>)> {
        let unknown =
            |why: String, name: String| (Status::unauthenticated(why), Some(Proven { name, found: None }));
        let nobody = || "unknown".to_string();
        let look = async |hash| self.store.token_find(hash).await.map_err(|error| (of_store(error), None));
        let found = match shown {
            Shown::Token(hash) => {
                let why = || unknown("the token is not one of this host's".into(), nobody());
                look(*hash).await?.ok_or_else(why)?
            }
            Shown::Signed(text) => {
                let Some(identity) = &self.identity else {
                    let why = "the token is not one of this host's, which trusts no identity provider";
                    return Err(unknown(why.into(), nobody()));
                };
                let subject = identity.subject(text).await.map_err(|error| match error {
                    IdentityError::Bad(why) => unknown(format!("the token is not good: {why}"), nobody()),
                    // Who shows it may be somebody good: that is no failed log-in.
                    IdentityError::Unavailable(why) => {
                        (Status::unavailable(format!("the token can't be checked now: {why}")), None)
                    }
                })?;
                let shown = cut(&subject);
                let why = || {
                    let why =
                        format!("the subject `{shown}` has no role here; the host's admin can give it one");
                    unknown(why, Proof::Subject(shown.clone()).to_string())
                };
                look(subject_hash(identity.issuer(), &subject)).await?.ok_or_else(why)?
            }
            Shown::Certificate(names) => {
                let mut found = None;
                for name in names {
                    // The first that is known decides, also if it is revoked.
                    if let Some(token) = look(certificate_hash(name)).await? {
                        found = Some(token);
                        break;
                    }
                }
                let shown = cut(&names.join(", "));
                let why = || {
                    let why = format!(
                        "the certificate ({shown}) has no role here; the host's admin can give it one"
                    );
                    unknown(why, Proof::Certificate(shown.clone()).to_string())
                };
                found.ok_or_else(why)?
            }
        };
        let gone = found.token.tenant.is_some() && found.tenant.is_none();
        let void = found.token.void((self.now)()).map(|void| void.to_string());
        match void.or_else(|| gone.then(|| "the token's tenant was deleted".into())) {
            None => Ok(found),
            Some(why) => {
                let name = actor_name(&found.token);
                Err((Status::unauthenticated(why), Some(Proven { name, found: Some(found) })))
            }
        }
    }

    /// Refuses one who was let through before, if what it shows is worth nothing any more, or its tenant is gone;
    /// else the tenant as it is now. For calls that last.
    pub(crate) async fn still(&self, caller: &Caller) -> Result<Tenant, Status> {
        let found = self.find(&caller.known.shown).await.map_err(|(status, _)| status)?;
        if found.token.id != caller.known.token.id {
            return Err(Status::unauthenticated("what the call began with is another's now"));
        }
        let tenant = match found.tenant {
            Some(own) => own,
            None => self.store.tenant_get(&caller.of.name).await.map_err(of_store)?,
        };
        if tenant.id == caller.tenant {
            return Ok(tenant);
        }
        // Another has its name since.
        Err(of_store(StoreError::NotFound(format!("tenant `{}`", caller.of.name))))
    }

    /// The same for a call that changes something, which its tenant may not while it is suspended.
    pub(crate) async fn still_changes(&self, caller: &Caller) -> Result<(), Status> {
        caller.changes(&self.still(caller).await?)
    }

    /// The tenant that a call is for. A name that isn't the caller's own to speak for is answered as one that
    /// doesn't exist.
    async fn tenant(&self, found: Option<Tenant>, headers: &HeaderMap) -> Result<Tenant, Status> {
        let named = match headers.get(TENANT_HEADER).map(|name| name.to_str()) {
            None => None,
            Some(Ok(name)) => Some(name),
            Some(Err(_)) => {
                return Err(Status::invalid_argument(format!("`{TENANT_HEADER}` can't be read")));
            }
        };
        let none = |name: &str| {
            let name: String = name.chars().take(NAME_CHARS_MAX).collect();
            of_store(StoreError::NotFound(format!("tenant `{name}`")))
        };
        match (found, named) {
            (Some(own), None) => Ok(own),
            (Some(own), Some(name)) if own.name.as_str() == name => Ok(own),
            (Some(_), Some(name)) => Err(none(name)),
            (None, named) => {
                let text = named.unwrap_or(TENANT_DEFAULT);
                let name = text.parse::<Name>().map_err(|_| none(text))?;
                self.store.tenant_get(&name).await.map_err(of_store)
            }
        }
    }
}

/// What is on record of somebody who was not let through.
pub(crate) struct Proven {
    name: String,
    found: Option<Found>,
}

fn actor_name(token: &Token) -> String {
    match &token.proof {
        Proof::Token => format!("token {}", token.id),
        proof @ (Proof::Certificate(_) | Proof::Subject(_)) => proof.to_string(),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

/// Lets through who may call.
#[derive(Clone)]
pub(crate) struct Auth {
    pub api: Api,
    pub gate: Arc<Gate>,
}

impl Intercept for Auth {
    async fn intercept(self, request: Request<Body>) -> ControlFlow<Response<Body>, Request<Body>> {
        let (mut parts, body) = request.into_parts();
        match self.admit(&mut parts).await {
            Ok(()) => ControlFlow::Continue(Request::from_parts(parts, body)),
            Err(status) => ControlFlow::Break(status.into_http()),
        }
    }
}

impl Auth {
    /// Lets a request through, with a [`Known`] and, if it concerns a tenant, a [`Caller`].
    async fn admit(&self, request: &mut Parts) -> Result<(), Status> {
        let path = of_path(request.uri.path());
        if path == Path::Open {
            if let Some(peer) = request.extensions.get::<Peer>() {
                peer.standing.asks_health();
            }
            return Ok(());
        }
        let refused = match self.decide(path, request).await {
            Ok((known, caller)) => {
                if let Some(caller) = caller {
                    request.extensions.insert(caller);
                }
                request.extensions.insert(known);
                return Ok(());
            }
            Err(refused) => refused,
        };
        if let Some(actor) = refused.actor {
            self.gate.denied(&Arc::new(actor), What { tenant: refused.tenant, ..What::default() });
        }
        Err(refused.status)
    }

    async fn decide(&self, path: Path, request: &Parts) -> Result<(Known, Option<Caller>), Refused> {
        let peer = request.extensions.get::<Peer>();
        let address = peer_address(request);
        let action = match path {
            Path::Ruled(rule) => rule.call,
            Path::Known(service) => service,
            Path::Open => "Health/Check",
            Path::Unruled => "no such call",
        };
        let actor = |name: String, token: Option<&Token>| Actor {
            name,
            role: token.map(|token| token.role),
            address: address.to_string(),
            action: action.into(),
        };
        let shown = Shown::of(&request.headers, peer).map_err(|status| Refused {
            status,
            actor: Some(actor("unknown".into(), None)),
            tenant: None,
        })?;
        let found = self.log_in(&shown, address).await.map_err(|(status, proven)| {
            let token = proven.as_ref().and_then(|proven| proven.found.as_ref()).map(|found| &found.token);
            let actor = proven.as_ref().map(|proven| actor(proven.name.clone(), token));
            Refused { status, actor, tenant: proven.and_then(|proven| proven.found).and_then(named) }
        })?;
        if let Some(peer) = peer {
            peer.standing.becomes_known();
        }
        let actor = Arc::new(actor(actor_name(&found.token), Some(&found.token)));
        let rule = match path {
            Path::Ruled(rule) => Some(rule),
            Path::Open | Path::Known(_) => None,
            Path::Unruled => return Err(Status::unimplemented("this host has no such call").into()),
        };
        if let Some(status) = rule.and_then(|rule| forbidden(rule, &found.token)) {
            return Err(Refused { status, actor: Some(Actor::clone(&actor)), tenant: named(found) });
        }
        let (token, tenant) = (Arc::new(found.token), found.tenant);
        let known = Known { token, actor, shown, gate: Arc::clone(&self.gate) };
        let Some(rule) = rule.filter(|rule| rule.concerns == Concerns::Tenant) else {
            return Ok((known, None));
        };
        let own = tenant.as_ref().map(|tenant| (tenant.id, tenant.name.clone()));
        let tenant = match self.api.tenant(tenant, &request.headers).await {
            // Whoever has a tenant of its own has named another's.
            Err(status) if own.is_some() && status.code() == Code::NotFound => {
                return Err(Refused { status, actor: Some(Actor::clone(&known.actor)), tenant: own });
            }
            found => found?,
        };
        let caller = Caller { tenant: tenant.id, of: Arc::new(tenant), known: known.clone() };
        if rule.does == Does::Changes {
            caller.changes(&caller.of)?;
        }
        Ok((known, Some(caller)))
    }

    /// [`Api::find`], as often as an address may fail.
    async fn log_in(&self, shown: &Shown, address: IpAddr) -> Result<Found, (Status, Option<Proven>)> {
        let hash = shown.hash();
        if let Err(wait) = self.gate.admit(address, &hash) {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let status = Status::unauthenticated(format!(
                "too many log-ins from {address} have failed, so of what is new here only one is looked at now and \
                 then; try again in {seconds} s"
            ));
            return Err((status, Some(Proven { name: "unknown".into(), found: None })));
        }
        let found = self.api.find(shown).await;
        match &found {
            Ok(_) => self.gate.good(hash),
            Err((status, _)) if status.code() == Code::Unauthenticated => self.gate.failed(address, &hash),
            Err(_) => {}
        }
        found
    }
}

/// Why a token may not make a call, by its rule alone.
fn forbidden(rule: &Rule, token: &Token) -> Option<Status> {
    let Rule { call, least, .. } = rule;
    if token.role < *least {
        let role = token.role;
        return Some(Status::permission_denied(format!(
            "{call} needs the role `{least}`; yours is `{role}`"
        )));
    }
    (token.tasks.is_some() && rule.for_some_tasks == ForSomeTasks::Refused).then(|| {
        Status::permission_denied(format!(
            "{call} concerns more than the tasks that this token is for; a token of the role `{least}` for every \
             task may call it"
        ))
    })
}

fn named(found: Found) -> Option<(TenantId, Name)> {
    found.tenant.map(|tenant| (tenant.id, tenant.name))
}

pub(crate) fn peer_address(request: &Parts) -> IpAddr {
    let extensions = &request.extensions;
    let peer = extensions.get::<Peer>().map(|peer| peer.address);
    let address = peer.or_else(|| extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr));
    address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip().to_canonical())
}
