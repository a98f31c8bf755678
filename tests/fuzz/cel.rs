//! Expressions in CEL, and what they are evaluated on.

use crate::engine::{Input, Seen, Target, same, text, words};
use crate::mutate::{Grow, NUMBERS, damage};
use crate::random::Random;
use innkeeper_domain::expression::{EvaluationError, Expression, ExpressionError, Variables};
use innkeeper_domain::limits::EXPRESSION_CHARS_MAX;
use innkeeper_domain::payload::Payload;
use serde_json::{Map, Value, json};

pub struct Expressions;

/// What expressions can name here.
const VARIABLES: [&str; 2] = ["data", "input"];

const EXAMPLES: Grow = Grow {
    corpus: &[
        b"data.total > 100 && input.name.startsWith('orders.')",
        b"data.items.filter(i, i.sku != 'a').map(i, i.sku) == ['b']",
        b"{'id': data.id, 'all': data.items.map(x, x), 'none': null, 'half': 0.5}",
        b"has(data.name) ? data.name + 'x' : string(data.id)",
        b"data.items.exists_one(i, i.n in [1, 2, 3u, 4.0])",
        b"r'\\d' + b'\\xff' + \"\\u00e9\\U0001F600\\n\\101\"",
        b"int(data.id) % 7 == -3 || uint('5') * 2u >= 10u",
    ],
    tokens: &[
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "!",
        "-",
        "?",
        ":",
        "&&",
        "||",
        "==",
        "<=",
        "in",
        ".",
        ",",
        "'",
        "\"",
        "'''",
        "\"\"\"",
        "\\",
        "\\x",
        "\\u",
        "\\U0010FFFF",
        "\\377",
        "r'",
        "b'",
        "br\"",
        "//",
        "\n",
        "data",
        "input",
        "data.id",
        "null",
        "true",
        "0x7fffffffffffffff",
        "1u",
        "1e309",
        "-9223372036854775808",
        "%",
        "/0",
        "has(",
        "size(",
        ".map(x, x)",
        ".all(x, x)",
        ".filter(x, true)",
        ".exists(y, y)",
        "type(",
        "dyn(",
        "matches",
        "duration('1h')",
        "timestamp(",
        "optional.of(",
        "?.",
        "[?",
        "{?",
        "`a-b`",
        "a{b:1}",
        "@in",
        "_+_",
        "__result__",
        "@result",
        "é",
        "\u{202e}",
        "\0",
    ],
};

/// Ways to nest, each around what is nested in it.
const NESTS: [(&str, &str); 34] = [
    ("(", ")"),
    ("[", "]"),
    ("[1,", "]"),
    ("{1:", "}"),
    ("{", ":1}"),
    ("-", ""),
    ("!", ""),
    ("- ", ""),
    ("true?1:", ""),
    ("true?", ":1"),
    ("", "?1:1"),
    ("size(", ")"),
    ("string(", ")"),
    ("has(data.", ")"),
    ("", ".id"),
    ("", "[0]"),
    ("data[", "]"),
    ("", "+1"),
    ("1+", ""),
    ("1*", ""),
    ("", "&&true"),
    ("true||", ""),
    ("", "==1"),
    ("1 in ", ""),
    ("", ".contains('a')"),
    ("'a'.contains(", ")"),
    ("data.all(x,", ")"),
    ("", ".all(x,x)"),
    ("", ".map(x,x)"),
    ("[1].map(x,", ")"),
    ("", ".filter(x,x)"),
    ("a{b:", "}"),
    ("", "()"),
    ("a.b(", ")"),
];

impl Target for Expressions {
    fn make(&mut self, random: &mut Random) -> Input {
        let mut expression = match random.below(10) {
            0..=4 => grown(random, 5),
            5 | 6 => nested(random),
            7 => in_loops(random),
            _ => crate::mutate::text(random, &EXAMPLES),
        };
        if random.chance(20) {
            let mut bytes = expression.into_bytes();
            damage(random, &mut bytes, &EXAMPLES);
            expression = String::from_utf8_lossy(&bytes).into_owned();
        }
        let values = json!({"data": value(random, 5), "input": value(random, 4)});
        vec![expression.into(), values.to_string().into()]
    }

    fn check(&mut self, input: &[Vec<u8>]) -> Result<Seen, String> {
        let expression = text(input.first().map_or(&[], Vec::as_slice));
        let values: Value =
            input.get(1).and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default();
        let variables = VARIABLES.iter().fold(Variables::new(), |variables, name| {
            variables.with(name, values.get(*name).cloned().unwrap_or_default())
        });
        as_key(&expression, &values["input"])?;
        let read = match Expression::parse(&expression, &VARIABLES) {
            Ok(read) => read,
            Err(error) => {
                same(
                    "reading it again",
                    &Err(&error),
                    &Expression::parse(&expression, &VARIABLES).as_ref().map(|_| ()),
                )?;
                let of_length = expression.chars().count() > EXPRESSION_CHARS_MAX;
                same("whether it is too long", &of_length, &matches!(error, ExpressionError::TooLong(_)))?;
                return words(&error.to_string()).map(|()| Seen::Refused);
            }
        };
        let given = || read.value(&variables, &mut 0).map(|value| value.to_string());
        // An error may quote values, and maps in it are in any order; loops go through them in any order too.
        let first = given();
        let told = |given: &Result<String, EvaluationError>| given.clone().ok();
        if !loops_over_maps(&expression, &values) {
            same("evaluating it again", &told(&first), &told(&given()))?;
            same("whether it matches", &(first.as_deref() == Ok("true")), &read.matches(&variables, &mut 0))?;
        }
        first.map_or_else(|error| words(&error.to_string()), |_| Ok(())).map(|()| Seen::Taken)
    }
}

/// Whether there may be a loop over an object of several fields.
fn loops_over_maps(expression: &str, values: &Value) -> bool {
    let loops = ["all", "exists", "filter", "map"].iter().any(|name| expression.contains(name));
    loops && has_several_fields(values, 0)
}

fn has_several_fields(value: &Value, depth: usize) -> bool {
    match value {
        // What it is all in can't be named.
        Value::Object(fields) => {
            (depth > 0 && fields.len() > 1) || fields.values().any(|v| has_several_fields(v, depth + 1))
        }
        Value::Array(list) => list.iter().any(|value| has_several_fields(value, depth + 1)),
        _ => false,
    }
}

/// As a key of runs.
fn as_key(expression: &str, input: &Value) -> Result<(), String> {
    let read = match Expression::parse_key(expression) {
        Ok(read) => read,
        Err(error) => return words(&error.to_string()),
    };
    let input = Payload::json(input.to_string());
    let Some(key) = read.key(&input) else { return Ok(()) };
    same("the key", &Some(key.clone()), &read.key(&input))?;
    if key.is_empty() || key.len() > 128 || key.contains('\0') {
        return Err(format!("it makes a key of {} bytes: {key:?}", key.len()));
    }
    Ok(())
}

/// An expression by the grammar.
fn grown(random: &mut Random, depth: u64) -> String {
    if depth == 0 || random.chance(15) {
        return leaf(random);
    }
    let next = |random: &mut Random| grown(random, depth - 1);
    match random.below(13) {
        0..=2 => {
            let operators = ["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", " in "];
            let operator = random.pick(&operators).unwrap_or("+");
            let (left, right) = (next(random), next(random));
            format!("{left}{operator}{right}")
        }
        3 => format!("({})", next(random)),
        4 => format!("{}{}", random.pick(&["!", "-", "--"]).unwrap_or("!"), next(random)),
        5 => format!("{} ? {} : {}", next(random), next(random), next(random)),
        6 => format!("[{}, {}]", next(random), next(random)),
        7 => format!("{{{}: {}}}", next(random), next(random)),
        8 => format!("{}[{}]", next(random), next(random)),
        9 => {
            let function = random.pick(&["size", "string", "int", "uint", "double", "bool", "type", "has"]);
            format!("{}({})", function.unwrap_or("size"), next(random))
        }
        10 => {
            let method = random.pick(&["contains", "startsWith", "endsWith", "size", "matches"]);
            format!("{}.{}({})", next(random), method.unwrap_or("size"), next(random))
        }
        11 => {
            let of = random.pick(&["all", "exists", "exists_one", "filter", "map"]).unwrap_or("all");
            format!("{}.{of}(x, {})", path(random), next(random))
        }
        _ => format!("{}.{}", next(random), field(random)),
    }
}

fn leaf(random: &mut Random) -> String {
    match random.below(8) {
        0 | 1 => path(random),
        2 => "x".into(),
        3 => random.pick(&NUMBERS).unwrap_or("1").into(),
        4 => random
            .pick(&["true", "false", "null", "1u", "0x1f", "''", "b'a'", "[]", "{}"])
            .unwrap_or("1")
            .into(),
        5 => format!("'{}'", random.pick(&["a", "é", "\\n", "\\u00e9", "\\x41", "b'", "\\"]).unwrap_or("a")),
        _ => random.below(100).to_string(),
    }
}

fn path(random: &mut Random) -> String {
    let mut path = String::from(random.pick(&VARIABLES).unwrap_or("data"));
    for _ in 0..random.below(3) {
        path.push('.');
        path.push_str(field(random));
    }
    path
}

fn field(random: &mut Random) -> &'static str {
    random.pick(&["id", "name", "items", "total", "n"]).unwrap_or("id")
}

/// Nested as deeply as fits, in one or a few ways.
fn nested(random: &mut Random) -> String {
    let ways: Vec<_> = (0..=random.below(3)).filter_map(|_| random.pick(&NESTS)).collect();
    let most = random.below(10);
    let depth = 1 + random.below(1 << most);
    let (mut before, mut after) = (String::new(), String::new());
    let core = leaf(random);
    for level in 0..depth as usize {
        let (open, close) = ways[level % ways.len()];
        if before.len() + core.len() + after.len() + open.len() + close.len() > EXPRESSION_CHARS_MAX {
            break;
        }
        before.push_str(open);
        after.insert_str(0, close);
    }
    before + &core + &after
}

/// Loops in loops, each over what the one around it picks.
fn in_loops(random: &mut Random) -> String {
    let (mut expression, mut element) = (String::new(), String::from("data"));
    let depth = 1 + random.below(5);
    for level in 0..depth {
        let of = random.pick(&["all", "exists", "exists_one", "filter", "map"]).unwrap_or("all");
        let inner = format!("{}{level}", random.pick(&["x", "y"]).unwrap_or("x"));
        let part = if random.chance(70) { format!("{element}.items") } else { path(random) };
        expression.push_str(&format!("{part}.{of}({inner}, "));
        element = inner;
    }
    expression.push_str(&grown(random, 2).replace('x', &element));
    expression + &")".repeat(depth as usize)
}

/// Any JSON.
pub fn value(random: &mut Random, depth: u64) -> Value {
    match random.below(if depth == 0 { 7 } else { 10 }) {
        0 => Value::Null,
        1 => Value::Bool(random.chance(50)),
        2 => random.pick(&[i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX]).unwrap_or(0).into(),
        3 => random.pick(&[u64::MAX, u64::MAX - 1, 1 << 63]).unwrap_or(0).into(),
        4 => random.pick(&[0.0, -0.0, 0.5, 1e308, -1e308, 5e-324, 9.3e18]).unwrap_or(0.0).into(),
        5 => random
            .pick(&["", "a", "é\u{1F600}", "\0", "9223372036854775808", "-1", "true"])
            .unwrap_or("")
            .into(),
        6 => "long ".repeat(1 << random.below(12)).into(),
        7 => (0..random.below(8)).map(|_| value(random, depth - 1)).collect(),
        _ => {
            let mut fields = Map::new();
            for _ in 0..1 + random.below(4) {
                let name = field(random);
                fields.insert(name.into(), value(random, depth - 1));
            }
            Value::Object(fields)
        }
    }
}
