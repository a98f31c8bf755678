//! Where things are in what an expression looks at, and how large they are there.

use super::Variables;
use serde_json::Value;

/// Bytes of text that count as one value.
const TEXT_BYTES: usize = 64;

/// As much as so many values costs the name of a field: it is looked up.
const NAME: usize = 3;

/// A part of what an expression looks at, or of each of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// From a variable on.
    Of { variable: String, steps: Vec<Step> },
    /// Nobody knows: it may be anything, and all of it.
    Anywhere,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Field(String),
    /// All elements of a list or an object.
    Each,
    /// One of them, which nobody knows. A list may be copied whole, into an error, if what is to pick it isn't whole.
    Any,
}

/// Something that an expression goes through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    /// None for a single step.
    pub what: Option<Place>,
    /// Once for each thing that is here, rather than once in all.
    pub rounds: Option<Place>,
    /// How often, then.
    pub times: usize,
}

impl Place {
    /// What is in it by these steps.
    #[must_use]
    pub fn then(&self, further: &[Step]) -> Self {
        match self {
            Self::Of { variable, steps } => {
                Self::Of { variable: variable.clone(), steps: [steps, further].concat() }
            }
            Self::Anywhere => Self::Anywhere,
        }
    }

    /// The steps from this variable on, if it is in it.
    pub fn within(&self, of: &str) -> Option<&[Step]> {
        match self {
            Self::Of { variable, steps } if variable == of => Some(steps),
            Self::Of { .. } | Self::Anywhere => None,
        }
    }

    /// How many values are there, where all together have so many.
    pub fn size(&self, variables: &Variables, all: usize) -> usize {
        self.sizes(variables, all).sum
    }

    /// How many things are there, how large they are together, and how large the largest is; what is anywhere is as
    /// large as `all`.
    fn sizes(&self, variables: &Variables, all: usize) -> Sizes {
        match self {
            Self::Of { variable, steps } => {
                let mut sizes = Sizes::default();
                for (_, value) in variables.0.iter().filter(|(name, _)| name == variable) {
                    sizes.add(value, steps);
                }
                sizes
            }
            Self::Anywhere => Sizes { count: all, sum: all, largest: all },
        }
    }
}

impl Look {
    /// How many values it goes through, where all together have so many.
    pub fn size(&self, variables: &Variables, all: usize) -> usize {
        let rounds = self.rounds.as_ref().map(|place| place.sizes(variables, all).count);
        let once = match (&self.what, rounds) {
            (None, rounds) => rounds.unwrap_or(1),
            (Some(place), None) => place.size(variables, all),
            (Some(place), Some(rounds)) => rounds.saturating_mul(place.sizes(variables, all).largest),
        };
        once.saturating_mul(self.times)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Sizes {
    count: usize,
    sum: usize,
    largest: usize,
}

impl Sizes {
    fn add(&mut self, value: &Value, steps: &[Step]) {
        match (steps, value) {
            ([], _) => self.add_size(size(value)),
            ([Step::Field(name), rest @ ..], Value::Object(fields)) => {
                if let Some(value) = fields.get(name) {
                    self.add(value, rest);
                }
            }
            ([Step::Each, rest @ ..], Value::Array(list)) => {
                list.iter().for_each(|value| self.add(value, rest));
            }
            ([Step::Any, rest @ ..], Value::Array(list)) => {
                self.add_size(size(value));
                list.iter().for_each(|value| self.add(value, rest));
            }
            // Loops go through the names, an index gives one of the values.
            ([Step::Each | Step::Any], Value::Object(fields)) => {
                fields.iter().for_each(|field| self.add_size(size_of_field(field)));
            }
            ([Step::Each | Step::Any, rest @ ..], Value::Object(fields)) => {
                fields.values().for_each(|value| self.add(value, rest));
            }
            // There is nothing in it.
            _ => {}
        }
    }

    fn add_size(&mut self, size: usize) {
        *self = Self { count: self.count + 1, sum: self.sum + size, largest: self.largest.max(size) };
    }
}

/// How many values it has, with itself: every number, truth value, list and object is one, as are 64 bytes of a text; a
/// field's name is four.
pub(super) fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => size_of_text(text),
        Value::Array(list) => 1 + list.iter().map(size).sum::<usize>(),
        Value::Object(fields) => 1 + fields.iter().map(size_of_field).sum::<usize>(),
    }
}

pub(super) fn size_of_text(text: &str) -> usize {
    1 + text.len() / TEXT_BYTES
}

fn size_of_field((name, value): (&String, &Value)) -> usize {
    NAME + size_of_text(name) + size(value)
}
