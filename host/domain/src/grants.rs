//! What a revision is granted, in words, and whether another is granted more.
//!
//! Grants that grow must be accepted by whoever changes the task, so that nothing is granted by oversight: neither by
//! a definition that was copied from elsewhere, nor by a rollback to a revision that had more. And what was withdrawn is
//! withdrawn from older revisions too, to which runs are pinned.

use crate::name::Name;
use crate::permission::HttpGrant;
use crate::task::TaskSpec;
use std::collections::BTreeSet;
use std::fmt;

/// One thing that a task may reach outside of its sandbox. A further kind of grant is a variant here, and a line in
/// each of [`of`], [`Grant::covers`], [`still_granted`] and `Display`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    Http(HttpGrant),
    Secret {
        name: Name,
        /// The config key that it is shown under.
        key: String,
    },
}

/// All that a definition is granted.
pub fn of(spec: &TaskSpec) -> Vec<Grant> {
    let http = spec.allow_http.iter().cloned().map(Grant::Http);
    let secrets =
        spec.secrets.iter().map(|(key, name)| Grant::Secret { name: name.clone(), key: key.clone() });
    http.chain(secrets).collect()
}

impl Grant {
    /// Whether whoever has this has the other too. A secret is the same one under whichever key.
    pub fn covers(&self, other: &Grant) -> bool {
        match (self, other) {
            (Self::Http(own), Self::Http(other)) => own.covers(other),
            (Self::Secret { name: own, .. }, Self::Secret { name: other, .. }) => own == other,
            (Self::Http(_) | Self::Secret { .. }, _) => false,
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(host) => write!(f, "outbound HTTP to {host}"),
            Self::Secret { name, key } if key == name.as_str() => write!(f, "the secret `{name}`"),
            Self::Secret { name, key } => write!(f, "the secret `{name}` as {key}"),
        }
    }
}

/// Those of the new grants that the old ones don't cover, each thing once.
///
/// The old ones cover a new one if any of them alone does: that several do together is not seen, and the new one is
/// then taken for growth, which costs a confirmation and grants nothing.
pub fn grown(old: &[Grant], new: &[Grant]) -> Vec<Grant> {
    let mut grown: Vec<Grant> = Vec::new();
    for grant in new {
        if !old.iter().chain(&grown).any(|known| known.covers(grant)) {
            grown.push(grant.clone());
        }
    }
    grown
}

/// Those of the old grants that the new ones don't cover, as [`grown`].
pub fn lost(old: &[Grant], new: &[Grant]) -> Vec<Grant> {
    grown(new, old)
}

/// The definition that a run is pinned to, with only the grants that the task's current one has too. What was narrowed
/// since is as narrow as it is now.
///
/// Of two hosts' grants one must cover the other: what they merely share is not seen, and is then granted no more.
pub fn still_granted(pinned: &TaskSpec, current: &TaskSpec) -> TaskSpec {
    let (had, has) = (&pinned.allow_http, &current.allow_http);
    let named: BTreeSet<&Name> = current.secrets.values().collect();
    let secrets = pinned.secrets.iter().filter(|(_, name)| named.contains(name));
    TaskSpec {
        allow_http: covered(had, has).chain(covered(has, had)).cloned().collect(),
        secrets: secrets.map(|(key, name)| (key.clone(), name.clone())).collect(),
        ..pinned.clone()
    }
}

/// Those grants that one of the others covers.
fn covered<'a>(
    grants: &'a BTreeSet<HttpGrant>,
    by: &'a BTreeSet<HttpGrant>,
) -> impl Iterator<Item = &'a HttpGrant> {
    grants.iter().filter(move |grant| by.iter().any(|other| other.covers(grant)))
}

/// Grants in a row, as a sentence has them.
pub fn words(grants: &[Grant]) -> String {
    grants.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::Digest;

    fn definition(http: &[&str], secrets: &[(&str, &str)]) -> TaskSpec {
        TaskSpec {
            allow_http: http.iter().map(|host| host.parse().unwrap()).collect(),
            secrets: secrets.iter().map(|(key, name)| (key.to_string(), name.parse().unwrap())).collect(),
            ..TaskSpec::new(Digest([0; 32]))
        }
    }

    fn granted(http: &[&str], secrets: &[(&str, &str)]) -> Vec<Grant> {
        of(&definition(http, secrets))
    }

    #[test]
    fn they_have_words() {
        let all = granted(&["api.example.com", "a.example:8080"], &[("TOKEN", "token"), ("plain", "plain")]);
        assert_eq!(
            words(&all),
            "outbound HTTP to a.example:8080, outbound HTTP to api.example.com, the secret `token` as TOKEN, \
             the secret `plain`"
        );
        assert_eq!(words(&granted(&[], &[])), "");
    }

    #[test]
    fn more_is_growth_and_less_is_loss() {
        let old = granted(&["a.example", "b.example:99"], &[("TOKEN", "token")]);
        let new = granted(&["a.example", "c.example"], &[("TOKEN", "other")]);
        assert_eq!(words(&grown(&old, &new)), "outbound HTTP to c.example, the secret `other` as TOKEN");
        assert_eq!(words(&lost(&old, &new)), "outbound HTTP to b.example:99, the secret `token` as TOKEN");
        assert_eq!((grown(&old, &old), lost(&old, &old)), (vec![], vec![]));
        assert_eq!(grown(&[], &old), old);
        assert_eq!(grown(&old, &[]), []);
    }

    #[test]
    fn what_was_covered_is_no_growth() {
        let both = granted(&["a.example"], &[]);
        let one = granted(&["a.example:443"], &[]);
        assert_eq!(grown(&both, &one), []);
        assert_eq!(grown(&one, &both), both);
        let each = granted(&["a.example:80", "a.example:443"], &[]);
        assert_eq!(grown(&each, &both), both, "that two cover one together is not seen");
    }

    #[test]
    fn a_secret_is_the_same_under_another_key() {
        let old = granted(&[], &[("TOKEN", "token")]);
        assert_eq!(grown(&old, &granted(&[], &[("KEY", "token"), ("TOKEN", "token")])), []);
        let twice = granted(&[], &[("A", "new"), ("B", "new")]);
        assert_eq!(words(&grown(&old, &twice)), "the secret `new` as A");
    }

    #[test]
    fn what_was_withdrawn_is_granted_no_more() {
        let pinned = TaskSpec {
            scratch: Some(9),
            ..definition(&["old.example", "kept.example"], &[("TOKEN", "token"), ("KEY", "key")])
        };
        let none = still_granted(&pinned, &definition(&[], &[]));
        assert_eq!(none, TaskSpec { scratch: Some(9), ..definition(&[], &[]) });
        let some = definition(&["kept.example", "new.example"], &[("TOKEN", "other"), ("key", "key")]);
        let left = of(&still_granted(&pinned, &some));
        assert_eq!(left, granted(&["kept.example"], &[("KEY", "key")]), "and under the key that it knows");
        assert_eq!(still_granted(&pinned, &pinned), pinned);
    }

    #[test]
    fn what_was_narrowed_or_widened_is_what_both_grant() {
        let left = |old: &[&str], new: &[&str]| {
            words(&of(&still_granted(&definition(old, &[]), &definition(new, &[]))))
        };
        assert_eq!(left(&["*"], &["a.example:443"]), "outbound HTTP to a.example:443");
        assert_eq!(left(&["a.example:443"], &["*.example.com", "*"]), "outbound HTTP to a.example:443");
        assert_eq!(left(&["a.example"], &["a.example:443"]), "outbound HTTP to a.example:443");
        assert_eq!(left(&["*:443"], &["a.example"]), "", "that both allow one port is not seen");
    }
}
