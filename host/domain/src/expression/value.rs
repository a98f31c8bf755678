//! JSON as CEL has it, and back.

use cel::Value as Cel;
use cel::objects::{Key, Map};
use serde_json::{Number, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// As CEL has it: whole numbers are `int` where they fit.
pub(super) fn to_cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(truth) => Cel::Bool(*truth),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Cel::Int(whole),
            (None, Some(large)) => Cel::UInt(large),
            (None, None) => Cel::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(list) => Cel::List(Arc::new(list.iter().map(to_cel).collect())),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (Key::from(name.as_str()), to_cel(value)));
            Cel::Map(Map { map: Arc::new(fields.collect::<HashMap<_, _>>()) })
        }
    }
}

/// As JSON; none of what JSON doesn't have.
pub(super) fn to_json(value: &Cel) -> Option<Value> {
    Some(match value {
        Cel::Null => Value::Null,
        Cel::Bool(truth) => Value::Bool(*truth),
        Cel::Int(whole) => Value::from(*whole),
        Cel::UInt(whole) => Value::from(*whole),
        Cel::Float(number) => Value::Number(Number::from_f64(*number)?),
        Cel::String(text) => Value::String(text.to_string()),
        Cel::List(list) => Value::Array(list.iter().map(to_json).collect::<Option<_>>()?),
        Cel::Map(fields) => {
            // The same in every evaluation, which the map's own order isn't: sorted, and none that is there twice.
            let named = fields.map.iter().map(|(name, value)| Some((name.to_string(), to_json(value)?)));
            let named: BTreeMap<_, _> = named.collect::<Option<_>>()?;
            if named.len() < fields.map.len() {
                return None;
            }
            Value::Object(named.into_iter().collect())
        }
        _ => return None,
    })
}

/// What is at these paths, with nothing else of the objects on the way; and how many bytes of it are lists' and
/// objects'.
pub(super) fn parts(value: Value, paths: &[&[String]]) -> (Value, usize) {
    let is_whole = paths.iter().any(|path| path.is_empty());
    match value {
        Value::Object(mut fields) if !is_whole => {
            let (mut kept, mut of_many) = (serde_json::Map::new(), 0);
            for name in paths.iter().filter_map(|path| path.first()) {
                let Some(field) = fields.remove(name) else { continue };
                let within = paths.iter().filter(|path| path.first() == Some(name));
                let (field, many) = parts(field, &within.map(|path| &path[1..]).collect::<Vec<_>>());
                kept.insert(name.clone(), field);
                of_many += many;
            }
            (Value::Object(kept), of_many)
        }
        // Nothing in it has a name.
        Value::Array(_) if !is_whole => (Value::Array(Vec::new()), 0),
        Value::Array(_) | Value::Object(_) => {
            let many = size(&value);
            (value, many)
        }
        plain => (plain, 0),
    }
}

/// About how many bytes it has as JSON; at least as many as it has elements and characters.
pub(super) fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => 2 + text.len(),
        Value::Array(list) => 2 + list.iter().map(|value| 1 + size(value)).sum::<usize>(),
        Value::Object(fields) => {
            2 + fields.iter().map(|(name, value)| 4 + name.len() + size(value)).sum::<usize>()
        }
    }
}
