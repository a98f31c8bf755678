//! JSON as CEL has it, and back.

use super::place::Step;
use cel::Value as Cel;
use cel::objects::{Key, Map};
use serde_json::{Number, Value};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// As CEL has it: whole numbers are `int` where they fit.
fn to_cel(value: &Value) -> Cel {
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

/// The same of what is at these paths alone: nothing else of the objects on the way.
pub(super) fn parts_to_cel(value: &Value, paths: &[&[Step]]) -> Cel {
    let is_whole = paths.iter().any(|path| path.is_empty());
    match value {
        Value::Object(fields) if !is_whole => {
            let mut kept = HashMap::new();
            for step in paths.iter().filter_map(|path| path.first()) {
                if let Step::Field(name) = step
                    && let Some(field) = fields.get(name)
                    && let Entry::Vacant(place) = kept.entry(Key::from(name.as_str()))
                {
                    let within = paths.iter().filter(|path| path.first() == Some(step));
                    place.insert(parts_to_cel(field, &within.map(|path| &path[1..]).collect::<Vec<_>>()));
                }
            }
            Cel::Map(Map { map: Arc::new(kept) })
        }
        // Nothing in it has a name.
        Value::Array(_) if !is_whole => Cel::List(Arc::default()),
        whole => to_cel(whole),
    }
}
