//! The JSON Schema of graph files, for editors: made from the same key tables as the checks, so it cannot disagree with
//! them about keys. References, formulas and sums of chunks are beyond what a schema can say.

use serde_json::{Map, Value as Json, json};

use super::FORMAT_VERSION;
use super::keys::{DTYPES, Kind, SECTIONS, Section, TOP, Variant};

/// The JSON Schema (draft 2020-12) of graph files.
#[must_use]
pub fn schema() -> Json {
    let mut properties = Map::new();
    for (name, doc) in TOP {
        let mut property = match SECTIONS.iter().find(|section| section.name == name) {
            Some(section) => section_schema(section),
            None if name == "rask" => json!({ "const": FORMAT_VERSION }),
            None => json!({ "type": "object", "additionalProperties": { "type": ["number", "string", "boolean", "array"] } }),
        };
        property["description"] = json!(doc);
        properties.insert(name.to_owned(), property);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Rask graph file",
        "type": "object",
        "required": ["rask"],
        "additionalProperties": false,
        "properties": properties,
        "$defs": { "parameter": { "type": "string", "pattern": "^\\$\\{[^}]+\\}$" } },
    })
}

fn section_schema(section: &Section) -> Json {
    let mut variants: Vec<Json> = section.variants.iter().map(variant_schema).collect();
    let mut entry = if variants.len() == 1 { variants.remove(0) } else { json!({ "oneOf": variants }) };
    entry["description"] = json!(section.doc);
    json!({ "type": "object", "additionalProperties": entry })
}

fn variant_schema(variant: &Variant) -> Json {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in variant.keys() {
        let mut property = if key.name == variant.source && !variant.choice.is_empty() {
            json!({ "const": variant.choice })
        } else {
            kind_schema(key.kind)
        };
        property["description"] = json!(key.doc);
        properties.insert(key.name.to_owned(), property);
        if key.is_required {
            required.push(key.name);
        }
    }
    json!({ "type": "object", "additionalProperties": false, "properties": properties, "required": required })
}

fn kind_schema(kind: Kind) -> Json {
    let or_parameter = |schema: Json| json!({ "anyOf": [schema, { "$ref": "#/$defs/parameter" }] });
    let list_of = |schema: Json| json!({ "type": "array", "items": schema });
    let natural = || or_parameter(json!({ "type": "integer", "minimum": 0 }));
    match kind {
        Kind::Integer => or_parameter(json!({ "type": "integer" })),
        Kind::Natural => natural(),
        Kind::Positive => or_parameter(json!({ "type": "integer", "minimum": 1 })),
        Kind::Number => or_parameter(json!({ "type": "number" })),
        Kind::Boolean => or_parameter(json!({ "type": "boolean" })),
        Kind::Text => json!({ "type": "string" }),
        Kind::Character => or_parameter(json!({ "type": "string", "minLength": 1, "maxLength": 1 })),
        Kind::Texts => json!({ "anyOf": [{ "type": "string" }, list_of(json!({ "type": "string" }))] }),
        Kind::TextTable => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::AmountTable => {
            json!({ "type": "object", "additionalProperties": or_parameter(json!({ "type": "number", "minimum": 0 })) })
        }
        Kind::Shape => json!({ "anyOf": [natural(), list_of(natural())] }),
        Kind::Chunks => {
            let length = || json!({ "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": -1 }, { "$ref": "#/$defs/parameter" }] });
            json!({ "anyOf": [length(), list_of(json!({ "anyOf": [length(), list_of(natural())] }))] })
        }
        Kind::Dtype => {
            let names: Vec<&str> = DTYPES.iter().flat_map(|(name, long)| [*name, *long]).collect();
            or_parameter(json!({ "enum": names }))
        }
        Kind::OneOf(names) => or_parameter(json!({ "enum": names })),
        Kind::Arguments => json!({ "type": "object" }),
        Kind::Loops => {
            json!({ "type": "object", "additionalProperties": { "anyOf": [natural(), list_of(json!({ "type": ["integer", "string"] }))] } })
        }
    }
}
