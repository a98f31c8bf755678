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
            *work += own / COUNTED_PER_EVALUATED;
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
            work = work.saturating_add(look.size(variables, all));
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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn event(data: Value) -> Variables {
        Variables::new().with("data", data).with("topic", json!("orders.new"))
    }

    fn read(text: &str) -> Result<Expression, ExpressionError> {
        Expression::parse(text, &["data", "topic"])
    }

    fn matches(text: &str, data: Value) -> bool {
        read(text).unwrap().matches(&event(data), &mut 0)
    }

    #[test]
    fn filters() {
        let order =
            || json!({"total": 120, "rate": 1.5, "kind": "gift", "items": [{"sku": "a"}, {"sku": "b"}]});
        for text in [
            "data.total > 100 && topic.startsWith('orders.')",
            "data.total == 120.0 && data.rate < 2",
            "data.kind in ['gift', 'loan']",
            "data.items.exists(i, i.sku == 'b')",
            "data.items.filter(i, i.sku != 'a').map(i, i.sku) == ['b']",
            "has(data.kind) && !has(data.colour)",
            "size(data.items) == 2 ? true : false",
            "data['kind'].contains('if')",
            "topic.endsWith('.new')",
        ] {
            assert!(matches(text, order()), "{text}");
        }
        for text in [
            "data.colour == 'red'",
            "data.total",
            "data.total > 'a'",
            "1 / 0 == 1",
            "data.items[7].sku == 'a'",
        ] {
            assert!(!matches(text, order()), "{text}");
        }
    }

    #[test]
    fn values_are_json() {
        let read =
            read("{'id': data.id, 'all': data.list.map(x, x + 1), 'none': null, 'half': 0.5}").unwrap();
        let given = read.value(&event(json!({"id": "é", "list": [1, -2]})), &mut 0);
        assert_eq!(given, Ok(json!({"id": "é", "all": [2, -1], "none": null, "half": 0.5})));
        let large = json!({"n": u64::MAX, "f": 1e300});
        assert_eq!(
            super::Expression::parse("data", &["data"]).unwrap().value(&event(large.clone()), &mut 0),
            Ok(large)
        );
    }

    /// Each evaluation has maps of its own, which are in an order of their own.
    #[test]
    fn what_is_given_is_the_same_to_the_letter_every_time() {
        let read = read("{'c': data, 'a': 1, 'b': {'z': 1, 'y': 2}, 'd': 4}").unwrap();
        let given = || read.value(&event(json!({"two": 2, "one": 1})), &mut 0).unwrap().to_string();
        let expected = r#"{"a":1,"b":{"y":2,"z":1},"c":{"one":1,"two":2},"d":4}"#;
        assert!((0..20).all(|_| given() == expected), "{}", given());
        let twice = super::Expression::parse("{1: 'a', '1': 'b'}", &[]).unwrap();
        assert!(matches!(twice.value(&Variables::new(), &mut 0), Err(EvaluationError::Failed(_))));
    }

    #[test]
    fn mistakes_are_told() {
        let words = |text: &str| read(text).unwrap_err().to_string();
        assert!(words("data.total >").contains("not an expression in CEL"), "{}", words("data.total >"));
        assert!(words("total > 1").contains("names `total`"), "{}", words("total > 1"));
        assert!(words("data.name.matches('a+')").contains("calls `matches`"));
        assert!(words(&"a".repeat(EXPRESSION_CHARS_MAX + 1)).contains("characters"));
        assert_eq!(read(" "), Err(ExpressionError::Empty));
        assert!(Expression::parse_key("input.list.map(x, x)").unwrap_err().to_string().contains("loops"));
        assert!(Expression::parse_key("data.id").is_err());
    }

    impl PartialEq for Expression {
        fn eq(&self, other: &Self) -> bool {
            self.text == other.text
        }
    }

    #[test]
    fn deep_ones_are_refused() {
        for (open, close) in
            [("(", ")"), ("[", "]"), ("size(", ")"), ("-", ""), ("!", ""), ("true ? 1 : ", "")]
        {
            let text = format!("{}1{}", open.repeat(900 / open.len()), close.repeat(900 / open.len()));
            if let Ok(read) = read(&text) {
                // Not too deep for it: then it can be evaluated too.
                drop(read.value(&event(Value::Null), &mut 0));
            }
        }
        let sum = vec!["1"; 500].join("+");
        drop(read(&sum).map(|read| read.value(&event(Value::Null), &mut 0)));
        let path = format!("data{}", ".a".repeat(490));
        drop(read(&path).map(|read| read.value(&event(Value::Null), &mut 0)));
    }

    #[test]
    fn a_loop_costs_no_more_than_it_looks_at() {
        for text in [
            "data.orders.exists(o, o.items.exists(i, i.sku == 'x'))",
            "data.orders.filter(o, o.open).map(o, o.id) == []",
            "data.orders.map(o, o.id).exists(id, id == 7)",
        ] {
            assert!(read(text).is_ok(), "{text}: {:?}", read(text));
        }
        for text in [
            "data.all(a, data.all(b, a != b))",
            "data.all(a, a.all(b, a.all(c, c != b)))",
            "data.map(x, [x, x]).map(x, [x, x]) == []",
            "data.all(x, ['a', 'b'].exists(y, x == y))",
            "data.map(x, {'a': x}).all(y, y.a == 1)",
        ] {
            assert!(matches!(read(text), Err(ExpressionError::Loop { .. })), "{text}: {:?}", read(text));
        }
    }

    #[test]
    fn what_goes_through_too_much_is_not_evaluated() {
        let list = |count: usize| json!(vec![1; count]);
        let own = read("data.all(x, x == 1)").unwrap();
        assert!(own.matches(&event(list(32_000)), &mut 0));
        let too_much = own.value(&event(list(500_000)), &mut 0);
        assert_eq!(too_much, Err(EvaluationError::TooMuch { max: EXPRESSION_WORK_MAX }));
        // Each round looks at as much as is there.
        let small = read("data.list.all(x, topic != 'a' && data.few.size() == 2)").unwrap();
        assert!(small.matches(&event(json!({"list": list(20_000), "few": [1, 2]})), &mut 0));
        let all = read("data.all(x, size(data + [x]) > 0)").unwrap();
        assert!(all.matches(&event(list(200)), &mut 0) && !all.matches(&event(list(2_000)), &mut 0));
        let inner = read("data.all(o, o.items.all(i, i == o.id))").unwrap();
        let orders = |items: usize, id: &str| {
            let order = json!({"id": id, "items": vec![id; items]});
            json!(vec![order; 100])
        };
        assert!(inner.matches(&event(orders(200, "7")), &mut 0));
        assert!(!inner.matches(&event(orders(200, &"x".repeat(2_000))), &mut 0));
    }

    #[test]
    fn a_field_of_the_event_in_each_element_is_little() {
        let orders = |count: usize| json!({"id": "order-1", "items": vec![json!({"sku": "a"}); count]});
        let copied = read("data.items.map(i, {'sku': i.sku, 'order': data.id})").unwrap();
        let given = copied.value(&event(orders(5_000)), &mut 0).unwrap();
        assert_eq!(given[4_999], json!({"sku": "a", "order": "order-1"}));
        let nested = read(
            "data.orders.map(o, o.items.map(i, {'order': o.id, 'topic': topic, 'price': o.prices[i.sku]}))",
        );
        let order = json!({"id": 7, "items": vec![json!({"sku": "a"}); 100], "prices": {"a": 1, "b": 2}});
        let given = nested.unwrap().value(&event(json!({"orders": vec![order; 20]})), &mut 0).unwrap();
        assert_eq!(given[19][99], json!({"order": 7, "topic": "orders.new", "price": 1}));
    }

    #[test]
    fn a_written_list_repeats_what_is_in_its_loops() {
        let written = |count: usize| format!("[{}].all(x, x.all(y, y == 1))", vec!["data"; count].join(","));
        let ones = |count: usize| event(json!(vec![1; count]));
        let [few, many] = [2, 100].map(|count| read(&written(count)).unwrap());
        assert!(
            few.matches(&ones(5_000), &mut 0)
                && many.matches(&ones(100), &mut 0)
                && !many.matches(&ones(5_000), &mut 0)
        );
        assert!(many.work(&ones(100)) > 40 * few.work(&ones(100)));
        assert!(read("['or', 'x'].exists(x, topic.startsWith(x))").unwrap().matches(&ones(100_000), &mut 0));
    }

    #[test]
    fn only_what_is_named_is_gone_through() {
        let large = json!({"id": 7, "of": {"it": [1]}, "many": vec![1; 1_000_000]});
        for text in
            ["data.id == 7", "data['of'].it[0] == data.of.it[0]", "has(data.of.it) && !has(data.of.that)"]
        {
            assert!(matches(text, large.clone()), "{text}");
        }
        assert!(!matches("data.many[0] == 1", large.clone()) && !matches("has(data.many)", large));
    }

    /// JSON in which the names that expressions use are somewhere.
    fn any_json() -> impl Strategy<Value = Value> {
        let plain = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3i64).prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
        ];
        plain.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[a-c]", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_not_named_makes_no_difference(data in any_json()) {
            for text in [
                "data.a",
                "data.a.b == 1 || data['a'].c == 'b'",
                "has(data.a.b) && !has(data.b)",
                "data.a[0]",
                "data.a[data.b]",
                "data[topic]",
                "[data.a.b, data.a]",
                "type(data.a) == type(data.b.c)",
                "data.a.all(x, x == data.b)",
                "data.a.map(x, [x.b, data.c.a])",
                "data.a.exists(a, a.b.exists(data, data == a.c))",
                "size(data.a) + size(data.b)",
                "data.a + data.b",
                "data.b in data.a ? data.c : topic",
            ] {
                let (read, variables) = (read(text).unwrap(), event(data.clone()));
                let mut whole = Context::default();
                for (name, value) in &variables.0 {
                    whole.add_variable_from_value(*name, value::parts_to_cel(value, &[&[]]));
                }
                let expected = read.program.execute(&whole).ok().and_then(|given| value::to_json(&given));
                prop_assert_eq!(read.value(&variables, &mut 0).ok(), expected, "{}", text);
            }
        }
    }

    #[test]
    fn what_makes_much_of_its_input_goes_through_more() {
        let sum = |of: &str, count| vec![of; count].join("+");
        let work = |text: &str| read(text).unwrap().work(&event(json!(vec![1; 999])));
        // Each of a sum is copied so often: the first by all of it.
        let copies = |count: usize| count * (count + 1) / 2 + count - 1;
        let steps = 2 * 100 - 1;
        assert_eq!(work(&sum("data", 100)), 1_000 * (READ + copies(100)) + steps);
        assert_eq!(work(&format!("[{}]", vec!["data"; 100].join(","))), 1_000 * (READ + 200) + 101);
        let body = |count| work(&format!("data.all(x, {})", vec!["x == x"; count].join("&&")));
        assert!(body(100) > 20 * body(2), "{} {}", body(100), body(2));
        let many = read(&sum("data", 100)).unwrap().value(&event(json!(vec![1; 5_000])), &mut 0);
        assert!(matches!(many, Err(EvaluationError::TooMuch { .. })), "{many:?}");
    }

    #[test]
    fn a_key_goes_through_little_of_what_it_names() {
        let input = json!({
            "customer": {"id": "a", "region": "eu", "orders": vec![1; 10_000]},
            "few": [7, 8, 9],
            "many": vec![1; 10_000],
            "text": "x".repeat(20_000),
        });
        let input = Payload::json(input.to_string());
        let key = |text: &str| Expression::parse_key(text).unwrap().key(&input);
        for (text, given) in [
            ("input.customer.id", "\"a"),
            ("input['customer']['region'] + '/' + input.customer.id", "\"eu/a"),
            ("input.few[1]", "8"),
            ("size(input.few) + input.few[0]", "10"),
            ("has(input.customer.id) && !has(input.customer.name)", "true"),
            ("size(input.text)", "20000"),
        ] {
            assert_eq!(key(text).as_deref(), Some(given), "{text}");
        }
        for many in [
            "size(input)",
            "input.many[0]",
            "input == 1",
            "size(input.customer)",
            "has(input.many) ? input.customer.id : 'none'",
        ] {
            assert_eq!(key(many), None, "{many}");
        }
        let sum = |of: &str, count| format!("size({})", vec![of; count].join("+"));
        assert_eq!(key(&sum("input.few", 20)).as_deref(), Some("60"));
        assert_eq!(key(&sum("input.few", 90)), None);
        assert_eq!(key(&sum("input.text", 5)).as_deref(), Some("100000"));
        assert_eq!(key(&sum("input.text", 90)), None);
    }

    #[test]
    fn keys() {
        let key = |input: &str| Expression::parse_key("input.customer").unwrap().key(&Payload::json(input));
        assert_eq!(key(r#"{"customer": "acme"}"#).as_deref(), Some("\"acme"));
        assert_eq!(key(r#"{"customer": 7}"#).as_deref(), Some("7"), "is another than the text");
        assert_eq!(key(r#"{"customer": "7"}"#).as_deref(), Some("\"7"));
        for none in [r#"{"customer": null}"#, r#"{"customer": {}}"#, "{}", "no json", "7"] {
            assert_eq!(key(none), None, "{none}");
        }
        let long = key(&format!(r#"{{"customer": "{}"}}"#, "x".repeat(5_000))).unwrap();
        assert_eq!((long.len(), &long[..1]), (65, "#"));
    }

    #[test]
    fn compiled_once() {
        let compiled = Compiled::default();
        let one = compiled.get("input.a", Expression::parse_key).unwrap();
        let two = compiled.get("input.a", |_| unreachable!("it is known")).unwrap();
        assert!(Arc::ptr_eq(&one, &two));
        assert!(compiled.get("input.", Expression::parse_key).is_err());
    }
}
