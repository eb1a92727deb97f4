//! A JSON value that fits a schema: the smallest answer of a model that is held to one.

use serde_json::{Map, Value, json};

/// Schemas that contain themselves end here.
const DEEPEST: usize = 12;
/// The most items or characters that a lower bound can make us write.
const MOST: u64 = 64;
/// The most values in all: schemas that contain themselves twice would fill the memory.
const LARGEST: u32 = 5_000;

/// A value that fits. Every property is given, whether it must be or not, so that a caller
/// sees the names that it asked for. What the schema leaves open is `w1`, 1 or true.
pub(super) fn fit(schema: &Value) -> Value {
    value(schema, schema, DEEPEST, &mut { LARGEST })
}

fn value(schema: &Value, root: &Value, depth: usize, left: &mut u32) -> Value {
    let (Some(depth), Some(fewer)) = (depth.checked_sub(1), left.checked_sub(1)) else { return Value::Null };
    *left = fewer;
    if let Some(target) = schema["$ref"].as_str() {
        let pointed = target.strip_prefix('#').and_then(|it| root.pointer(it));
        return pointed.map_or(Value::Null, |it| value(it, root, depth, left));
    }
    if let Some(fixed) = schema.get("const") {
        return fixed.clone();
    }
    if let Some(first) = schema["enum"].as_array().and_then(|it| it.first()) {
        return first.clone();
    }
    for any in ["anyOf", "oneOf"] {
        if let Some(first) = schema[any].as_array().and_then(|it| it.iter().find(|it| it["type"] != "null")) {
            return value(first, root, depth, left);
        }
    }
    if let Some(all) = schema["allOf"].as_array() {
        return together(all.iter().map(|it| value(it, root, depth, left)));
    }
    let sort = match &schema["type"] {
        Value::Array(sorts) => sorts.iter().filter_map(Value::as_str).find(|it| *it != "null"),
        sort => sort.as_str(),
    };
    let least = |name: &str| schema[name].as_u64().unwrap_or(0).min(MOST) as usize;
    match sort {
        Some("string") => Value::from(string(schema["format"].as_str(), least("minLength"))),
        Some("integer" | "number") => number(schema),
        Some("boolean") => Value::Bool(true),
        Some("null") => Value::Null,
        Some("array") => {
            let most = schema["maxItems"].as_u64().unwrap_or(u64::MAX) as usize;
            let count = least("minItems").max(1).min(most);
            (0..count).map(|_| value(&schema["items"], root, depth, left)).collect()
        }
        Some("object") | None if schema["properties"].is_object() => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            Value::Object(properties.map(|(name, it)| (name.clone(), value(it, root, depth, left))).collect())
        }
        Some("object") => json!({}),
        _ => json!("w1"),
    }
}

fn together(values: impl Iterator<Item = Value>) -> Value {
    let mut sum = Map::new();
    for value in values {
        match value {
            Value::Object(fields) => sum.extend(fields),
            other => return other,
        }
    }
    Value::Object(sum)
}

fn string(format: Option<&str>, least: usize) -> String {
    let text = match format {
        Some("date-time") => "2026-01-02T03:04:05Z",
        Some("date") => "2026-01-02",
        Some("time") => "03:04:05Z",
        Some("email") => "w1@example.org",
        Some("uri" | "url") => "http://example.org/w1",
        Some("uuid") => "00000000-0000-4000-8000-000000000001",
        _ => "w1",
    };
    let mut text = text.to_owned();
    while text.len() < least {
        text.push('w');
    }
    text
}

/// 1, or what is nearest to it within the bounds.
fn number(schema: &Value) -> Value {
    let above = |name: &str, step: i64| schema[name].as_i64().map(|it| it.saturating_add(step));
    let least = above("minimum", 0).max(above("exclusiveMinimum", 1));
    let most = match (above("maximum", 0), above("exclusiveMaximum", -1)) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let mut number = 1;
    if let Some(most) = most {
        number = number.min(most);
    }
    if let Some(least) = least {
        number = number.max(least);
    }
    number.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: Value, expected: Value) {
        assert_eq!(fit(&schema), expected, "{schema}");
    }

    #[test]
    fn every_property_is_there_and_of_its_sort() {
        check(
            json!({"type": "object", "required": ["a"], "properties": {
                "a": {"type": "string"}, "b": {"type": "integer", "minimum": 3}, "c": {"type": "boolean"},
                "d": {"type": "array", "minItems": 2, "items": {"enum": ["x", "y"]}},
                "e": {"type": ["null", "number"], "maximum": 0}, "f": {"const": 7}}}),
            json!({"a": "w1", "b": 3, "c": true, "d": ["x", "x"], "e": 0, "f": 7}),
        );
        check(json!({"properties": {"a": {"type": "string", "minLength": 5}}}), json!({"a": "w1www"}));
        check(json!({}), json!("w1"));
        check(json!({"type": "object"}), json!({}));
    }

    #[test]
    fn references_choices_and_sums_are_followed() {
        check(
            json!({"$defs": {"p": {"type": "object", "properties": {"x": {"type": "integer"}}}},
                "allOf": [{"$ref": "#/$defs/p"}, {"properties": {"y": {"anyOf": [{"type": "null"}, {"type": "boolean"}]}}}]}),
            json!({"x": 1, "y": true}),
        );
    }

    #[test]
    fn a_schema_that_contains_itself_comes_to_an_end() {
        let fitting = fit(&json!({"type": "object", "properties": {"next": {"$ref": "#"}}}));
        assert!(fitting["next"]["next"].is_object());
        assert!(fitting.to_string().len() < 500);
        let twice = json!({"type": "array", "minItems": 64, "items": {"$ref": "#"}});
        assert!(fit(&twice).to_string().len() < 100_000);
    }
}
