//! Masking: no secret that an attempt is shown goes into what others can read of it.

use aho_corasick::automaton::Automaton;
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind};
use innkeeper_domain::failure::{Failure, FailureKind, RetryAdvice};
use innkeeper_domain::limits::{FAILURE_CODE_CHARS_MAX, FAILURE_MESSAGE_BYTES_MAX, SECRET_BYTES_MIN};
use innkeeper_domain::secret::SecretText;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// What stands in a secret's place.
const STARS: &str = "***";

/// Bytes of a code's beginning that are looked at: more than it may have characters.
const CODE_BYTES: usize = 4 * FAILURE_CODE_CHARS_MAX;

/// Replaces secrets by stars. Clones share what it takes to find them, which is made when it is first needed:
/// many guests say nothing.
#[derive(Clone)]
pub(crate) struct Mask(Option<Arc<Secrets>>);

struct Secrets {
    texts: Vec<SecretText>,
    finder: OnceLock<Option<NFA>>,
}

impl Mask {
    /// Masks these: each whole, and each line of those that have several.
    pub fn new(secrets: &BTreeMap<String, SecretText>) -> Self {
        if secrets.is_empty() {
            return Self(None);
        }
        Self(Some(Arc::new(Secrets { texts: secrets.values().cloned().collect(), finder: OnceLock::new() })))
    }

    /// How many bytes a secret may have: so much of a text beyond its bound must be known, lest one that begins
    /// before it goes unseen.
    pub fn longest(&self) -> usize {
        self.0.iter().flat_map(|secrets| &secrets.texts).map(|text| text.expose().len()).max().unwrap_or(0)
    }

    /// The beginning of a text that has at most `max` bytes, without any secret; one that the bound cuts is masked
    /// as well.
    pub fn beginning(&self, text: &str, max: usize) -> String {
        let end = text.floor_char_boundary(max);
        let Some(secrets) = &self.0 else { return text[..end].into() };
        let seen = &text[..text.floor_char_boundary(max.saturating_add(self.longest()))];
        let mut masked = String::with_capacity(end);
        let mut shown = 0;
        for found in secrets.find(seen) {
            if found.start >= end {
                break;
            }
            masked.push_str(&text[shown..found.start]);
            masked.push_str(STARS);
            shown = found.end;
        }
        masked.push_str(&text[shown.min(end)..end]);
        masked.truncate(masked.floor_char_boundary(max));
        masked
    }

    /// A failure whose code and message have no secret.
    pub fn failure(&self, kind: FailureKind, code: &str, message: &str, retry: RetryAdvice) -> Failure {
        let code = self.beginning(code, CODE_BYTES);
        let message = self.beginning(message, FAILURE_MESSAGE_BYTES_MAX);
        let failure = Failure::with_code(kind, &code, message, retry);
        // Taking out control characters may have put one together.
        Failure { code: self.beginning(&failure.code, CODE_BYTES), ..failure }
    }
}

impl Secrets {
    /// Where secrets are, in order; those that touch or overlap are one.
    fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        let Some(finder) = self.finder.get_or_init(|| finder(&self.texts)) else {
            // It can't be told where they are: then nothing is shown.
            return std::iter::once(0..text.len()).filter(|all| !all.is_empty()).collect();
        };
        let Ok(mut state) = finder.start_state(Anchored::No) else { return found };
        for (at, byte) in text.bytes().enumerate() {
            state = finder.next_state(Anchored::No, state, byte);
            if !finder.is_match(state) {
                continue;
            }
            // The first pattern of a state is the longest that ends here.
            let end = at + 1;
            let start = end - finder.pattern_len(finder.match_pattern(state, 0));
            let mut whole = start..end;
            while let Some(before) = found.pop_if(|before| before.end >= whole.start) {
                whole.start = whole.start.min(before.start);
            }
            found.push(whole);
        }
        found
    }
}

fn finder(texts: &[SecretText]) -> Option<NFA> {
    let whole = texts.iter().map(SecretText::expose);
    let lines = texts.iter().flat_map(|text| text.expose().lines().map(str::trim));
    let patterns = whole.chain(lines).filter(|pattern| pattern.len() >= SECRET_BYTES_MIN);
    // One table, for the first byte: tables for the second and third would cost a tenant's neighbours memory.
    NFA::builder().match_kind(MatchKind::Standard).dense_depth(1).prefilter(false).build(patterns).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(secrets: &[&str]) -> Mask {
        let texts = secrets.iter().enumerate();
        Mask::new(
            &texts.map(|(at, text)| (at.to_string(), SecretText::new((*text).into()).unwrap())).collect(),
        )
    }

    #[test]
    fn secrets_are_masked_wherever_they_are() {
        let mask = mask(&["hunter2", "schlüssel", "hunter2 and more"]);
        let all = |text: &str| mask.beginning(text, 1_000);
        assert_eq!(all("it is hunter2, hunter2!"), "it is ***, ***!");
        assert_eq!(all("hunter2hunter2"), "***");
        assert_eq!(all("ein schlüssel"), "ein ***");
        assert_eq!(all("hunter2 and more or less"), "*** or less");
        assert_eq!(all("hunter2 and mor"), "*** and mor");
        assert_eq!((all("hunter"), all("")), ("hunter".to_string(), String::new()));
    }

    #[test]
    fn overlapping_ones_leave_no_rest() {
        assert_eq!(mask(&["abcd", "cdef"]).beginning("xabcdefx", 100), "x***x");
        assert_eq!(mask(&["aaaa", "aaaaa", "aaab"]).beginning("caaaaaaabc", 100), "c***c");
        assert_eq!(mask(&["abcdefgh", "cdef"]).beginning("abcdefgx abcdefgh", 100), "ab***gx ***");
    }

    #[test]
    fn lines_of_one_are_secrets_too_unless_they_are_short() {
        let mask = mask(&["-----BEGIN\r\n  MIIEow\nab\n-----END\n"]);
        assert_eq!(mask.beginning("key MIIEow ab -----END", 100), "key *** ab ***");
    }

    #[test]
    fn a_bound_cuts_no_secret_into_view() {
        let mask = mask(&["0123456789"]);
        for max in 0..30 {
            let cut = mask.beginning("ab0123456789cd0123456789", max);
            assert!(cut.len() <= max && !cut.contains('0'), "{max}: {cut}");
        }
        // What is masked makes no room for what was cut off.
        let twice = "0123456789".repeat(2);
        assert_eq!(mask.beginning(&twice[..19], 10), "***");
        assert_eq!(Mask::new(&BTreeMap::new()).beginning("aé", 2), "a");
    }

    #[test]
    fn failures_are_masked_before_they_are_cut() {
        let mask = mask(&["0123456789"]);
        let long = format!("{}0123456789", "x".repeat(FAILURE_MESSAGE_BYTES_MAX - 5));
        let failure = mask.failure(FailureKind::Guest, "a0123\n456789", &long, RetryAdvice::Never);
        assert_eq!((failure.code.as_str(), failure.retry), ("a***", RetryAdvice::Never));
        assert!(failure.message.ends_with("x***") && !failure.message.contains('0'));
    }
}
