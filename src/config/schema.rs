//! The JSON Schema of the file, for editors.
//!
//! It knows keys and the look of values; what goes together, `pgsplit check` knows.

use serde_json::{Map, Value, json};

use super::key::{About, Form, Keys, SIZE_PATTERN, TIME_PATTERN, Takes, Without};
use super::keys::TOP;

/// The schema, of draft 2020-12.
#[must_use]
pub fn schema() -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pgsplit",
        "description": "Configuration of pgsplit, a load balancer for PostgreSQL servers",
        // Any value may come from the environment; what it is then is seen at the start only.
        "$defs": {"variable": {"type": "string", "pattern": "\\$\\{[A-Za-z_][A-Za-z0-9_]*(:[-?][^}]*)?\\}"}},
    });
    if let (Value::Object(schema), Value::Object(top)) = (&mut schema, mapping(TOP)) {
        schema.extend(top);
    }
    schema
}

/// A mapping of `keys` and no others. Nothing at all is an empty one.
fn mapping(keys: Keys) -> Value {
    let required: Vec<&str> =
        keys.iter().filter(|about| about.default == Without::Required).map(|about| about.name).collect();
    let properties: Map<String, Value> =
        keys.iter().map(|about| (about.name.to_owned(), property(about))).collect();
    let mut mapping = json!({
        "type": ["object", "null"],
        "properties": properties,
        "additionalProperties": false,
    });
    if let (Value::Object(mapping), false) = (&mut mapping, required.is_empty()) {
        mapping.insert("required".to_owned(), required.into());
    }
    mapping
}

/// One key and what is told about it.
fn property(about: &About) -> Value {
    let mut property = takes(about.takes);
    let Value::Object(fields) = &mut property else { return property };
    fields.insert("description".to_owned(), plain(about.meaning).into());
    if let Without::Value(default) = about.default {
        fields.insert("default".to_owned(), value(default));
    }
    if !about.example.is_empty() {
        fields.insert("examples".to_owned(), json!([value(about.example)]));
    }
    property
}

fn takes(takes_: Takes) -> Value {
    match takes_ {
        Takes::One(form) => json!({"anyOf": [single(form), {"$ref": "#/$defs/variable"}]}),
        Takes::Many(form) => json!({"type": ["array", "null"], "items": takes(Takes::One(form))}),
        Takes::Mapping(keys) => mapping(keys),
        Takes::List(inner) => json!({"type": ["array", "null"], "items": takes(*inner)}),
        Takes::Named(inner) => {
            let name = "^[\\p{L}\\p{N}._:-]+$";
            json!({"type": ["object", "null"], "patternProperties": {name: takes(*inner)}, "additionalProperties": false})
        }
        Takes::Either(all) => json!({"anyOf": all.iter().map(|one| takes(*one)).collect::<Vec<_>>()}),
    }
}

/// A single value. Some readers of YAML take a bare `off` for `false`, and digits for a number.
fn single(form: Form) -> Value {
    match form {
        Form::Text | Form::Secret => json!({"type": ["string", "number", "boolean"]}),
        Form::YesNo => json!({"enum": [true, false, "true", "false", "yes", "no", "on", "off"]}),
        Form::Number { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Form::Time { or_zero } => {
            let time = json!({"type": "string", "pattern": TIME_PATTERN});
            if or_zero { json!({"anyOf": [time, {"const": 0}]}) } else { time }
        }
        Form::Size { .. } => {
            json!({"anyOf": [{"type": "string", "pattern": SIZE_PATTERN}, {"type": "integer", "minimum": 0}]})
        }
        Form::Words(words) => {
            let mut all: Vec<Value> = words.iter().map(|word| (*word).into()).collect();
            if words.contains(&"off") {
                all.extend([false.into(), "no".into(), "false".into()]);
            }
            json!({"enum": all})
        }
        Form::Like { pattern, .. } => json!({"type": ["string", "number"], "pattern": pattern}),
        Form::OrOff(form) => json!({"anyOf": [single(*form), {"enum": ["off", false, "no", "false"]}]}),
    }
}

/// `text` without the marks of Markdown, which editors show as they are.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// A value as it would be written in the file.
fn value(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap_or_else(|_| text.into())
}
