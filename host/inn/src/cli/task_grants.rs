//! What tasks are granted: asking before it grows, telling it, and what imports could ask for.

use super::client::{Client, call};
use super::{Usage, output, task};
use anyhow::Result;
use innkeeper_api::proto::{GetComponentRequest, GetTaskRequest, Task, TaskSpec};
use innkeeper_domain::grants::{self, Grant};

/// The answer to grants that grow, before it is asked for.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Accept {
    /// Accept that it is granted more than before: hosts, secrets; a terminal is asked otherwise
    #[arg(long)]
    accept_permissions: bool,
}

/// What to do about grants that grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Send the change, with whether they may grow.
    Send(bool),
    Declined,
}

impl Accept {
    /// Asks the person at the terminal, if there is something to ask. Without a terminal the host refuses, in words.
    pub fn decide(self, name: &str, old: &TaskSpec, new: &TaskSpec) -> Result<Decision> {
        self.decide_by(task::answer, name, old, new)
    }

    /// By the answer to a question; none if there is nobody to ask.
    fn decide_by(
        self,
        ask: impl FnOnce(&str) -> Result<Option<String>>,
        name: &str,
        old: &TaskSpec,
        new: &TaskSpec,
    ) -> Result<Decision> {
        if self.accept_permissions {
            return Ok(Decision::Send(true));
        }
        let (Ok(old), Ok(new)) = (of(old), of(new)) else {
            // What can't be is the host's to refuse.
            return Ok(Decision::Send(false));
        };
        let grown = grants::grown(&old, &new);
        if grown.is_empty() {
            return Ok(Decision::Send(false));
        }
        Ok(match ask(&format!("grant `{name}` also {}?", grants::words(&grown)))? {
            Some(answer) if task::is_yes(&answer) => Decision::Send(true),
            Some(_) => Decision::Declined,
            None => Decision::Send(false),
        })
    }

    /// The same before a rollback, and the revision that was looked at; 0 if none was.
    pub async fn decide_rollback(self, client: &Client, name: &str, to: u32) -> Result<(Decision, u32)> {
        if self.accept_permissions || !task::on_terminal() {
            return Ok((Decision::Send(self.accept_permissions), 0));
        }
        let current = client.tasks().get_task(call(GetTaskRequest { name: name.into() })).await?.into_inner();
        let revisions = task::revisions(client, name).await?;
        let old = revisions.into_iter().find(|revision| revision.number == to).and_then(|r| r.spec);
        // One that isn't there is the host's to refuse.
        let new = old.or_else(|| current.spec.clone()).unwrap_or_default();
        Ok((self.decide(name, &current.spec.unwrap_or_default(), &new)?, current.revision))
    }
}

/// All that a definition is granted.
pub fn of(spec: &TaskSpec) -> Result<Vec<Grant>> {
    let usage = |error: &dyn std::fmt::Display| Usage(error.to_string());
    let mut all = Vec::new();
    for host in &spec.allow_http {
        all.push(Grant::Http(host.parse().map_err(|error| usage(&error))?));
    }
    let mut secrets: Vec<_> = spec.secrets.iter().collect();
    secrets.sort();
    for (key, name) in secrets {
        all.push(Grant::Secret { key: key.clone(), name: name.parse().map_err(|error| usage(&error))? });
    }
    Ok(all)
}

/// Says what a task is granted that was just changed, and what its component imports in vain. The change is made: that
/// something can't be told of it is no failure.
pub async fn tell(client: &Client, task: &Task) {
    let spec = task.spec.clone().unwrap_or_default();
    match of(&spec) {
        Ok(granted) if granted.is_empty() => {}
        Ok(granted) => output::note(&format!("granted: {}", grants::words(&granted))),
        Err(error) => output::note(&format!("what it is granted can't be told: {error}")),
    }
    if spec.allow_http.is_empty() && imports(client, spec.component).await.is_some_and(|all| has_http(&all)) {
        output::note("it imports wasi:http, but is granted no host (--allow-http)");
    }
}

/// What a component imports; none if whoever asks may not see it, which is said.
pub async fn imports(client: &Client, digest: String) -> Option<Vec<String>> {
    match client.components().get_component(call(GetComponentRequest { digest: digest.clone() })).await {
        Ok(component) => Some(component.into_inner().imports),
        Err(status) => {
            output::note(&format!("what {digest} imports can't be told: {}", status.message()));
            None
        }
    }
}

/// What a component with these imports could ask for, in words. What a task is given anyway is left out.
pub fn could_ask_for(imports: &[String]) -> Vec<&'static str> {
    let from = |package: &str| imports.iter().any(|import| import.starts_with(package));
    let all = [
        (has_http(imports), "outbound HTTP: grant the task its hosts (--allow-http)"),
        (from("wasi:sockets/"), "sockets: never given, opening one fails"),
        (from("wasi:filesystem/"), "files: a task has none but a scratch of its own (--scratch)"),
    ];
    all.into_iter().filter(|(asks, _)| *asks).map(|(_, words)| words).collect()
}

/// Of requests that go out; the types alone ask for nothing.
fn has_http(imports: &[String]) -> bool {
    imports.iter().any(|import| import.starts_with("wasi:http/outgoing-handler"))
}

/// The interfaces that only the new ones are of, whatever their version.
pub fn imports_gained(old: &[String], new: &[String]) -> Vec<String> {
    let interface = |import: &str| import.split('@').next().unwrap_or(import).to_string();
    let known: Vec<String> = old.iter().map(|import| interface(import)).collect();
    let gained = new.iter().map(|import| interface(import));
    gained.filter(|interface| !known.contains(interface)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn imports_ask_for_what_they_are_for() {
        let asked = could_ask_for(&imports(&["wasi:io/poll@0.2.6", "wasi:http/outgoing-handler@0.2.6"]));
        assert!(asked.len() == 1 && asked[0].contains("--allow-http"), "{asked:?}");
        assert!(could_ask_for(&imports(&["wasi:http/types@0.2.6", "wasi:cli/stdout@0.2.6"])).is_empty());
        let asked = could_ask_for(&imports(&["wasi:filesystem/types@0.2.6", "wasi:sockets/tcp@0.2.6"]));
        assert!(asked.len() == 2 && asked[0].contains("sockets") && asked[1].contains("files"));
    }

    #[test]
    fn what_grows_is_asked_for_and_only_a_yes_accepts_it() {
        let (old, more) =
            (TaskSpec::default(), TaskSpec { allow_http: vec!["a.example".into()], ..TaskSpec::default() });
        let (asks, accepts) = (Accept { accept_permissions: false }, Accept { accept_permissions: true });
        let answered = |answer: Option<&str>| {
            let ask = |question: &str| {
                assert_eq!(question, "grant `check` also outbound HTTP to a.example?");
                Ok(answer.map(Into::into))
            };
            asks.decide_by(ask, "check", &old, &more).unwrap()
        };
        for yes in ["y\n", "YES\n", " yes "] {
            assert_eq!(answered(Some(yes)), Decision::Send(true), "{yes}");
        }
        for no in ["", "\n", "n\n", "no\n", "yes please\n"] {
            assert_eq!(answered(Some(no)), Decision::Declined, "{no}");
        }
        assert_eq!(answered(None), Decision::Send(false), "without a terminal the host refuses it");

        let nobody = |question: &str| -> Result<Option<String>> { panic!("asked: {question}") };
        let unasked = |accept: Accept, old, new| accept.decide_by(nobody, "check", old, new).unwrap();
        assert_eq!(unasked(accepts, &old, &more), Decision::Send(true));
        assert_eq!(unasked(asks, &more, &old), Decision::Send(false));
        let mistaken = TaskSpec { allow_http: vec!["http://x/".into()], ..TaskSpec::default() };
        assert_eq!(unasked(asks, &old, &mistaken), Decision::Send(false));
    }

    #[test]
    fn another_version_of_an_interface_is_nothing_new() {
        let old = imports(&["wasi:io/poll@0.2.3", "innkeeper:task/log@0.1.0"]);
        let new = imports(&["wasi:io/poll@0.2.6", "wasi:http/outgoing-handler@0.2.6"]);
        assert_eq!(imports_gained(&old, &new), ["wasi:http/outgoing-handler"]);
        assert!(imports_gained(&old, &old).is_empty());
    }

    #[test]
    fn a_definition_of_the_protocol_is_granted_what_it_says() {
        let spec = TaskSpec {
            allow_http: vec!["A.example".into()],
            secrets: [("B".into(), "b".into()), ("A".into(), "a".into())].into(),
            ..TaskSpec::default()
        };
        let words = grants::words(&of(&spec).unwrap());
        assert_eq!(words, "outbound HTTP to a.example, the secret `a` as A, the secret `b` as B");
        assert!(of(&TaskSpec { allow_http: vec!["http://x/".into()], ..spec }).is_err());
    }
}
