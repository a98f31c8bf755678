//! Expressions of people who use Innkeeper, in CEL: filters of events, keys of runs, inputs made of events.
//!
//! They are somebody's code that the host evaluates itself, so what one evaluation costs is bounded by what an
//! expression may look like (`shape`) and by how many values it may go through. Evaluating never fails the host: what goes
//! wrong is an error that says so.

mod place;
mod shape;
mod value;

use crate::limits::{
    EXPRESSION_CHARS_MAX, EXPRESSION_KEY_INPUT_BYTES_MAX, EXPRESSION_KEY_WORK_MAX, EXPRESSION_WORK_MAX,
};
use crate::payload::Payload;
use cel::{Context, Program};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, mem};

/// Bytes of a key; of longer ones the digest is the key.
const KEY_BYTES_MAX: usize = 128;

/// As many values cost as much to go through as one costs to be made of JSON, as an expression wants it.
const READ: usize = 4;

/// As many values as are counted in the time in which one is evaluated.
const COUNTED_PER_EVALUATED: usize = 16;

/// Expressions that are kept compiled.
const COMPILED_MAX: usize = 1_000;

/// An expression that has been read.
pub struct Expression {
    text: String,
    program: Program,
    shape: shape::Shape,
}

/// What an expression may look at, by name.
#[derive(Debug, Clone, Default)]
pub struct Variables(Vec<(&'static str, Value)>);

/// Text that is no expression that can be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    #[error("the expression has {0} characters; at most {EXPRESSION_CHARS_MAX} are taken")]
    TooLong(usize),
    #[error("the expression is empty")]
    Empty,
    #[error("`{text}` is not an expression in CEL: {why}")]
    Syntax { text: String, why: String },
    #[error("`{text}` names `{name}`, which isn't there; it can name {known}")]
    Variable { text: String, name: String, known: String },
    #[error("`{text}` calls `{name}`, which isn't known; known are {known}", known = shape::FUNCTIONS.join(", "))]
    Function { text: String, name: String },
    #[error("`{text}` is too deeply nested")]
    Nested { text: String },
    #[error("`{text}`: {why}")]
    Loop { text: String, why: &'static str },
}

/// An expression that has no value here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    #[error("it goes through more than {max} values, counted each time")]
    TooMuch { max: usize },
    #[error("{0}")]
    Failed(String),
}

impl Expression {
    /// Reads an expression that can name these variables.
    pub fn parse(text: &str, variables: &[&str]) -> Result<Self, ExpressionError> {
        let chars = text.chars().count();
        if chars > EXPRESSION_CHARS_MAX {
            return Err(ExpressionError::TooLong(chars));
        }
        if text.trim().is_empty() {
            return Err(ExpressionError::Empty);
        }
        let text = text.to_string();
        if !shape::is_flat(&text) {
            return Err(ExpressionError::Nested { text });
        }
        let program = match Program::compile(&text) {
            Ok(program) => program,
            Err(errors) => {
                let why = errors.errors.first().map_or_else(String::new, |e| {
                    format!("{} (line {}, column {})", e.msg, e.pos.0, e.pos.1)
                });
                return Err(ExpressionError::Syntax { text, why });
            }
        };
        match shape::check(program.expression(), variables) {
            Ok(shape) => Ok(Self { text, program, shape }),
            Err(shape::Misshapen::Variable(name)) => {
                Err(ExpressionError::Variable { text, name, known: variables.join(", ") })
            }
            Err(shape::Misshapen::Function(name)) => Err(ExpressionError::Function { text, name }),
            Err(shape::Misshapen::Loop(why)) => Err(ExpressionError::Loop { text, why }),
            Err(shape::Misshapen::Nested) => Err(ExpressionError::Nested { text }),
        }
    }

    /// Reads an expression that makes a key of a run's `input`. It can't have loops, for it is evaluated where runs
    /// are inserted.
    pub fn parse_key(text: &str) -> Result<Self, ExpressionError> {
        let expression = Self::parse(text, &["input"])?;
        if expression.shape.has_loops {
            return Err(ExpressionError::Loop { text: expression.text, why: "a key can't have loops" });
        }
        Ok(expression)
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it gives; what it goes through is added to `work`.
    pub fn value(&self, variables: &Variables, work: &mut usize) -> Result<Value, EvaluationError> {
        self.value_within(variables, EXPRESSION_WORK_MAX, work)
    }

    fn value_within(
        &self,
        variables: &Variables,
        max: usize,
        work: &mut usize,
    ) -> Result<Value, EvaluationError> {
        let own = self.work(variables);
        if own > max {
            *work += max / COUNTED_PER_EVALUATED;
            return Err(EvaluationError::TooMuch { max });
        }
        *work += own;
        let mut context = Context::default();
        for (name, value) in &variables.0 {
            let named: Vec<_> = self.shape.named.iter().filter_map(|place| place.within(name)).collect();
            if !named.is_empty() {
                context.add_variable_from_value(*name, value::parts_to_cel(value, &named));
            }
        }
        let given = self.program.execute(&context).map_err(|e| EvaluationError::Failed(words(&e)))?;
        value::to_json(&given).ok_or_else(|| EvaluationError::Failed("what it gives is no JSON".into()))
    }

    /// How many values evaluating it goes through at the most, counted each time, and what it costs to read them. What
    /// is more than an evaluation may is not counted to its end.
    fn work(&self, variables: &Variables) -> usize {
        let named = self.shape.named.iter().map(|place| place.size(variables, 0));
        let all: usize = named.sum();
        let mut work = READ * all;
        for look in &self.shape.looks {
            work = work.saturating_add(look.size(variables, all.max(1)));
            if work > EXPRESSION_WORK_MAX {
                break;
            }
        }
        work
    }

    /// Whether it gives `true`; anything else, an error too, is none. What it goes through is added to `work`.
    pub fn matches(&self, variables: &Variables, work: &mut usize) -> bool {
        self.value(variables, work) == Ok(Value::Bool(true))
    }

    /// The key that it makes of a run's input: what it gives if that is a text, a number or a truth value, told apart
    /// by kind; none if it is anything else, or an error, or the input isn't JSON, or if too much of it would be gone
    /// through: keys are made while others wait.
    pub fn key(&self, input: &Payload) -> Option<String> {
        if input.bytes.len() > EXPRESSION_KEY_INPUT_BYTES_MAX {
            return None;
        }
        let input = serde_json::from_slice(&input.bytes).ok()?;
        let variables = Variables::new().with("input", input);
        let key = match self.value_within(&variables, EXPRESSION_KEY_WORK_MAX, &mut 0).ok()? {
            Value::String(text) => format!("\"{text}"),
            number @ (Value::Number(_) | Value::Bool(_)) => number.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
        };
        let fits = key.len() <= KEY_BYTES_MAX && !key.contains('\0');
        Some(if fits { key } else { format!("#{}", hex::encode(Sha256::digest(key.as_bytes()))) })
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

impl Variables {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// These and one more.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Value) -> Self {
        self.0.push((name, value));
        self
    }
}

/// Compiled expressions by their text, since reading one takes longer than evaluating it. Bounded: when it is full, it
/// begins anew.
#[derive(Debug, Default)]
pub struct Compiled(Mutex<HashMap<String, Arc<Expression>>>);

impl Compiled {
    /// The expression of this text, read by `parse` if it isn't known.
    pub fn get(
        &self,
        text: &str,
        parse: impl FnOnce(&str) -> Result<Expression, ExpressionError>,
    ) -> Result<Arc<Expression>, ExpressionError> {
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(text) {
            return Ok(Arc::clone(known));
        }
        let read = Arc::new(parse(text)?);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= COMPILED_MAX {
            drop(mem::take(&mut *known));
        }
        known.insert(text.into(), Arc::clone(&read));
        Ok(read)
    }
}

/// An error in few words: it may show values of any size.
fn words(error: &cel::ExecutionError) -> String {
    crate::failure::cut(error.to_string(), 200)
}

#[cfg(test)]
mod tests;
