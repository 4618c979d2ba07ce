//! Values between JSON and Bolt.
//!
//! What JSON can't say is said in strings: a float that is not finite is `"NaN"`, `"Infinity"` or `"-Infinity"`, a temporal
//! value is its ISO 8601 text (with `[Zone/Name]` behind it where it has a zone), bytes are a list of numbers, and a point is
//! `{"srid", "x", "y"}` with `"z"` where it has one. None of these becomes its own type again when it is sent back as a
//! parameter, so the project's own properties are only strings, integers, finite floats, booleans and lists of them.

use neo4rs::{
    BoltBoolean, BoltFloat, BoltInteger, BoltList, BoltMap, BoltNull, BoltPath, BoltString, BoltType,
};
use serde_json::{Map, Number, Value, json};

/// A value that one side has and the other can't express.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum ValueError {
    /// An integer beyond 64 bits with a sign.
    #[error("an integer is larger than the store can keep ({})", i64::MAX)]
    IntegerTooLarge,
    /// A value of the store that the driver can't put in words, such as a local time that its zone skips.
    #[error("a {0} of the store can't be put in words")]
    Unspeakable(&'static str),
}

/// A parameter's value for the driver.
pub(super) fn to_bolt(value: &Value) -> Result<BoltType, ValueError> {
    Ok(match value {
        Value::Null => BoltType::Null(BoltNull),
        Value::Bool(value) => BoltType::Boolean(BoltBoolean::new(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => BoltType::Integer(BoltInteger::new(integer)),
            // An integer above i64::MAX also reads as a float, which would change it silently.
            (None, Some(float)) if !number.is_u64() => BoltType::Float(BoltFloat::new(float)),
            _ => return Err(ValueError::IntegerTooLarge),
        },
        Value::String(text) => BoltType::String(BoltString::new(text)),
        Value::Array(items) => {
            BoltType::List(BoltList { value: items.iter().map(to_bolt).collect::<Result<_, _>>()? })
        }
        Value::Object(map) => BoltType::Map(to_bolt_map(map)?),
    })
}

/// A statement's parameters, or a map among them, for the driver.
pub(super) fn to_bolt_map(map: &Map<String, Value>) -> Result<BoltMap, ValueError> {
    map.iter().map(|(name, value)| Ok((BoltString::new(name), to_bolt(value)?))).collect()
}

/// A result's value as JSON.
pub(super) fn to_json(value: BoltType) -> Result<Value, ValueError> {
    Ok(match value {
        BoltType::Null(_) => Value::Null,
        BoltType::Boolean(it) => Value::Bool(it.value),
        BoltType::Integer(it) => Value::from(it.value),
        BoltType::Float(it) => float(it.value),
        BoltType::String(it) => Value::String(it.value),
        BoltType::List(it) => list(it)?,
        BoltType::Map(it) => Value::Object(map(it)?),
        BoltType::Bytes(it) => it.value.iter().map(|byte| Value::from(*byte)).collect(),
        BoltType::Node(it) => json!({ "labels": list(it.labels)?, "properties": map(it.properties)? }),
        BoltType::Relation(it) => relationship(it.typ, it.properties)?,
        BoltType::UnboundedRelation(it) => relationship(it.typ, it.properties)?,
        BoltType::Path(it) => path(it)?,
        BoltType::Point2D(it) => {
            json!({ "srid": it.sr_id.value, "x": float(it.x.value), "y": float(it.y.value) })
        }
        BoltType::Point3D(it) => json!({
            "srid": it.sr_id.value, "x": float(it.x.value), "y": float(it.y.value), "z": float(it.z.value),
        }),
        duration @ BoltType::Duration(_) => {
            let (months, days, seconds, nanoseconds) =
                inner::<(i64, i64, i64, i64)>(duration).ok_or(ValueError::Unspeakable("duration"))?;
            Value::String(duration_text(months, days, seconds, nanoseconds))
        }
        time @ BoltType::Time(_) => {
            let (clock, offset) =
                inner::<(String, Option<i64>)>(time).ok_or(ValueError::Unspeakable("time"))?;
            Value::String(format!("{clock}{}", offset_text(offset.unwrap_or(0))))
        }
        zoned @ BoltType::DateTimeZoneId(_) => {
            let (text, zone) = inner::<(String, String)>(zoned).ok_or(ValueError::Unspeakable("datetime"))?;
            Value::String(format!("{text}[{zone}]"))
        }
        temporal @ (BoltType::Date(_)
        | BoltType::LocalTime(_)
        | BoltType::DateTime(_)
        | BoltType::LocalDateTime(_)) => {
            Value::String(inner::<String>(temporal).ok_or(ValueError::Unspeakable("temporal value"))?)
        }
    })
}

/// The fields of temporal types are private to the driver; they are to be had through its deserializer, which starts at a map.
fn inner<T: for<'de> serde::Deserialize<'de>>(value: BoltType) -> Option<T> {
    let mut map = BoltMap::new();
    map.put(BoltString::new("it"), value);
    map.get("it").ok()
}

fn float(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => Value::from("NaN"),
        None if value > 0.0 => Value::from("Infinity"),
        None => Value::from("-Infinity"),
    }
}

fn list(items: BoltList) -> Result<Value, ValueError> {
    items.value.into_iter().map(to_json).collect()
}

fn map(map: BoltMap) -> Result<Map<String, Value>, ValueError> {
    map.value.into_iter().map(|(name, value)| Ok((name.value, to_json(value)?))).collect()
}

fn relationship(kind: BoltString, properties: BoltMap) -> Result<Value, ValueError> {
    Ok(json!({ "type": kind.value, "properties": map(properties)? }))
}

/// Bolt sends each node and relationship of a path once, and the way as pairs of (relationship from 1, negative where it is
/// walked against its direction; node from 0). The first node is the one at 0.
fn path(path: BoltPath) -> Result<Value, ValueError> {
    let way: Vec<i64> = path.indices().iter().map(|index| index.value).collect();
    let nodes: Vec<Value> = path.nodes.value.into_iter().map(to_json).collect::<Result<_, _>>()?;
    let relationships: Vec<Value> = path.rels.value.into_iter().map(to_json).collect::<Result<_, _>>()?;
    let lost = ValueError::Unspeakable("path");
    let Some(first) = nodes.first() else { return Err(lost) };
    let (mut walked_nodes, mut walked) = (vec![first.clone()], Vec::new());
    for step in way.chunks_exact(2) {
        let [relationship, node] = step else { return Err(lost) };
        let relationship = usize::try_from(relationship.unsigned_abs()).ok().and_then(|at| at.checked_sub(1));
        let node = usize::try_from(*node).ok().and_then(|at| nodes.get(at));
        match (relationship.and_then(|at| relationships.get(at)), node) {
            (Some(relationship), Some(node)) => {
                walked.push(relationship.clone());
                walked_nodes.push(node.clone());
            }
            _ => return Err(lost),
        }
    }
    Ok(json!({ "nodes": walked_nodes, "relationships": walked }))
}

/// `Z`, or `+01:00` with seconds only where there are any.
fn offset_text(seconds: i64) -> String {
    if seconds == 0 {
        return "Z".to_owned();
    }
    let sign = if seconds < 0 { '-' } else { '+' };
    let all = seconds.unsigned_abs();
    let (hours, minutes, rest) = (all / 3600, all / 60 % 60, all % 60);
    match rest {
        0 => format!("{sign}{hours:02}:{minutes:02}"),
        _ => format!("{sign}{hours:02}:{minutes:02}:{rest:02}"),
    }
}

/// ISO 8601 as the server's own `toString` has it: years and months, days, then hours, minutes and seconds.
fn duration_text(months: i64, days: i64, seconds: i64, nanoseconds: i64) -> String {
    // The server keeps nanoseconds positive below a negative second: -0.5 s is (-1 s, 500,000,000 ns).
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let (whole, fraction) = (total / 1_000_000_000, (total % 1_000_000_000).unsigned_abs());
    let mut text = String::from("P");
    let mut put = |value: i128, unit: char| {
        if value != 0 {
            text.push_str(&format!("{value}{unit}"));
        }
    };
    put(i128::from(months / 12), 'Y');
    put(i128::from(months % 12), 'M');
    put(i128::from(days), 'D');
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    if total != 0 {
        text.push('T');
        let mut put = |value: i128, unit: char| {
            if value != 0 {
                text.push_str(&format!("{value}{unit}"));
            }
        };
        put(hours, 'H');
        put(minutes, 'M');
        if fraction != 0 {
            let sign = if total < 0 { "-" } else { "" };
            let digits = format!("{fraction:09}");
            text.push_str(&format!("{sign}{}.{}S", rest.unsigned_abs(), digits.trim_end_matches('0')));
        } else {
            put(rest, 'S');
        }
    }
    if text.len() == 1 { "PT0S".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_keep_their_types_there_and_back() {
        let value = json!({
            "nothing": null, "yes": true, "int": 42, "least": i64::MIN, "float": 42.0, "small": 0.1, "text": "ä`'\"",
            "list": [1, 2.5, "x", [false]], "map": { "inner": { "deep": [] } },
        });
        let back = to_json(to_bolt(&value).unwrap()).unwrap();
        assert_eq!(back, value);
        assert!(back["float"].is_f64() && back["int"].is_i64());
    }

    #[test]
    fn an_integer_beyond_64_bits_is_refused_and_not_rounded() {
        assert_eq!(to_bolt(&json!([u64::MAX])), Err(ValueError::IntegerTooLarge));
    }

    #[test]
    fn floats_that_json_lacks_are_named() {
        let named = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(float);
        assert_eq!(named, [json!("NaN"), json!("Infinity"), json!("-Infinity")]);
    }

    #[test]
    fn durations_are_iso_8601() {
        for (parts, text) in [
            ((0, 0, 0, 0), "PT0S"),
            ((14, 3, 3661, 500_000_000), "P1Y2M3DT1H1M1.5S"),
            ((0, 0, -1, 500_000_000), "PT-0.5S"),
            ((0, 0, -61, 0), "PT-1M-1S"),
            ((0, -1, 60, 0), "P-1DT1M"),
        ] {
            assert_eq!(duration_text(parts.0, parts.1, parts.2, parts.3), text);
        }
    }

    #[test]
    fn offsets_have_a_sign() {
        assert_eq!(
            [0, 3600, -5400, 3661].map(offset_text),
            ["Z", "+01:00", "-01:30", "+01:01:01"].map(str::to_owned)
        );
    }
}
