//! What a revision is granted, in words, and whether another is granted more.
//!
//! Grants that grow must be accepted by whoever changes the task, so that nothing is granted by oversight: neither by
//! a definition that was copied from elsewhere, nor by a rollback to a revision that had more.

use crate::name::Name;
use crate::permission::HttpGrant;
use crate::task::TaskSpec;
use std::fmt;

/// One thing that a task may reach outside of its sandbox. A further kind of grant is a variant here, and a line in
/// each of [`of`], [`Grant::covers`] and `Display`.
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

/// Grants in a row, as a sentence has them.
pub fn words(grants: &[Grant]) -> String {
    grants.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::Digest;

    fn granted(http: &[&str], secrets: &[(&str, &str)]) -> Vec<Grant> {
        of(&TaskSpec {
            allow_http: http.iter().map(|host| host.parse().unwrap()).collect(),
            secrets: secrets.iter().map(|(key, name)| (key.to_string(), name.parse().unwrap())).collect(),
            ..TaskSpec::new(Digest([0; 32]))
        })
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
}
