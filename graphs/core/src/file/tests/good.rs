//! Good files: what the declarations come out as.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::super::keys::SECTIONS;
use super::super::{
    ArraySource, AxisChunks, Chunks, DeclarationKind, FrameFormat, FrameSource, GraphFile, OutputOf, TaskDeclaration,
    WriteFormat, schema,
};
use super::{good, parse_with};
use crate::graph::Part;

const SPECIFICATION: &str = r#"
rask = 1                                  # format version, required

[params]                                  # overridable: --set n=2000
n = 4000

[frame.flights]                           # a dataframe: one task per partition
read = "csv"                              # csv | parquet | json | arrow
path = ["data/flights-*.csv"]             # globs

[frame.by_carrier]
sql = """SELECT carrier, count(*) AS n, avg(dep_delay) AS delay
         FROM flights GROUP BY carrier ORDER BY n DESC"""   # other frames by name

[array.x]
random = "normal"
shape = ["${n}", "${n}"]
chunks = [1000, 1000]
seed = 7
dtype = "f64"

[array.ramp]
create = "arange"
stop = 1000
chunks = 100

[array.m]
load = "data/m.npy"
chunks = "auto"

[array.d]
from_frame = "flights"
columns = ["distance", "air_time"]

[array.y]
expr = "(x + x.T) - x.mean(axis=0)"

[task.raw]
op = "array.random"
args = { distribution = "uniform", shape = [1000, 1000], seed = 1 }

[task."half-{i}"]
for = { i = 4 }
op = "array.slice"
inputs = ["raw"]
args = { starts = ["{i*250}", 0], stops = ["{i*250+250}", 1000] }

[task.total]
op = "array.sum"
inputs = ["half-*"]
priority = 10

[output.delays]
of = "by_carrier"
write = "out/delays.parquet"
[output.norm]
of = "sqrt(sum(y * y))"
"#;

fn kind<'a>(file: &'a GraphFile, name: &str) -> &'a DeclarationKind {
    &file.declaration(file.find(name).unwrap_or_else(|| panic!("no {name}"))).kind
}

fn task<'a>(file: &'a GraphFile, name: &str) -> &'a TaskDeclaration {
    match kind(file, name) {
        DeclarationKind::Task(task) => task,
        other @ (DeclarationKind::Frame(_) | DeclarationKind::Array(_)) => panic!("{name} is {other:?}"),
    }
}

fn array<'a>(file: &'a GraphFile, name: &str) -> &'a ArraySource {
    match kind(file, name) {
        DeclarationKind::Array(array) => array,
        other @ (DeclarationKind::Frame(_) | DeclarationKind::Task(_)) => panic!("{name} is {other:?}"),
    }
}

fn inputs(file: &GraphFile, name: &str) -> Vec<String> {
    let shown = |part: Part| if part.is_whole() { String::new() } else { format!("[{}]", part.0) };
    task(file, name).inputs.iter().map(|input| format!("{}{}", file.declaration(input.of).name, shown(input.part))).collect()
}

#[test]
fn the_specifications_example_says_what_it_should() {
    let file = good(SPECIFICATION);
    assert_eq!(file.params, [("n".to_owned(), json!(4000))]);
    assert_eq!(file.path("out/x.csv"), Path::new("dir/out/x.csv"));
    let DeclarationKind::Frame(FrameSource::Read { paths, format, .. }) = kind(&file, "flights") else { panic!("flights") };
    assert_eq!((paths[0].value.as_str(), *format), ("data/flights-*.csv", FrameFormat::Csv));
    let DeclarationKind::Frame(FrameSource::Sql { tables, .. }) = kind(&file, "by_carrier") else { panic!("by_carrier") };
    assert_eq!(tables, &[("flights".to_owned(), file.find("flights").expect("it is there"))]);
    let ArraySource::Random { distribution, shape, chunks, seed, dtype, arguments } = array(&file, "x") else { panic!("x") };
    assert_eq!((distribution.as_str(), shape.as_slice(), *seed, *dtype), ("normal", &[4000, 4000][..], Some(7), Some("f64")));
    assert_eq!(*chunks, Chunks::PerAxis(vec![AxisChunks::Length(1000), AxisChunks::Length(1000)]));
    assert!(arguments.is_empty());
    let ArraySource::Create { arguments, chunks, .. } = array(&file, "ramp") else { panic!("ramp") };
    assert_eq!((Json::Object(arguments.clone()), chunks), (json!({ "stop": 1000 }), &Chunks::Each(Some(100))));
    assert_eq!(&*task(&file, "half-3").args, r#"{"starts":[750,0],"stops":[1000,1000]}"#);
    assert_eq!(inputs(&file, "total"), ["half-0", "half-1", "half-2", "half-3"]);
    assert_eq!(task(&file, "total").options.as_ref().map(|options| options.priority), Some(10));
    assert_eq!(file.outputs[0].write.as_ref().map(|write| write.format), Some(WriteFormat::Parquet));
    let OutputOf::Expression(formula) = &file.outputs[1].of else { panic!("norm") };
    assert_eq!(formula.names, [("y".to_owned(), file.find("y").expect("it is there"))]);
    assert_eq!(file.resolve(file.declaration(file.find("m").expect("it is there")).span), (27, 8));
}

#[test]
fn everything_stands_behind_what_it_uses() {
    let file = good(SPECIFICATION);
    for (at, declaration) in file.declarations.iter().enumerate() {
        assert!(declaration.kind.uses().iter().all(|used| used.index() < at), "{}", declaration.name);
    }
    let file = good("rask = 1\n[array.a]\nexpr = 'b + c'\n[array.b]\nexpr = 'c'\n[array.c]\nload = 'c.npy'");
    let names: Vec<&str> = file.declarations.iter().map(|declaration| declaration.name.as_str()).collect();
    assert_eq!(names, ["c", "b", "a"]);
}

#[test]
fn parameters_keep_their_type_alone_and_become_text_among_other_text() {
    let text = r#"
rask = 1
[params]
n = 3
f = 0.5
s = "north"
l = [1, 2]
[task.t]
op = "core.noop"
args = { a = "${n}", b = "${f}", c = "${s}-${n}", d = "${l}", e = "$${n} $5", f = ["x", "${n}"] }
"#;
    assert_eq!(&*task(&good(text), "t").args, r#"{"a":3,"b":0.5,"c":"north-3","d":[1,2],"e":"${n} $5","f":["x",3]}"#);
    let set = [("n", "7"), ("f", "2"), ("s", "5"), ("l", "[9]")];
    let file = parse_with(text, &set).expect("good overrides");
    assert_eq!(&*task(&file, "t").args, r#"{"a":7,"b":2.0,"c":"5-7","d":[9],"e":"${n} $5","f":["x",7]}"#);
}

#[test]
fn families_are_products_of_their_variables_in_order() {
    let text = r#"
rask = 1
[params]
b = 2
[task."block-{i}-{j}"]
for = { i = "${b}", j = [0, 5, 10] }
op = "core.noop"
args = { row = "{i}", offset = "{(j - 5) // 2 * b}", text = "{{{j % 3}}}", plain = { x = 1 } }
[task."chain-{k}"]
for = { k = 3 }
op = "core.noop"
inputs = ["block-{k % 2}-*", "chain-{k // 3 - 1 + k}"]
[task."chain--1"]
op = "core.noop"
[task."at-{place}"]
for = { place = ["b", "a"] }
op = "core.noop"
inputs = ["chain-2[4]"]
args = { name = "{place}", file = "in/{place}.csv" }
"#;
    let file = good(text);
    let names: Vec<&str> = file.declarations.iter().map(|it| it.name.as_str()).filter(|name| name.starts_with("block")).collect();
    assert_eq!(names, ["block-0-0", "block-0-5", "block-0-10", "block-1-0", "block-1-5", "block-1-10"]);
    assert_eq!(&*task(&file, "block-1-0").args, r#"{"row":1,"offset":-6,"text":"{0}","plain":{"x":1}}"#);
    assert_eq!(inputs(&file, "chain-1"), ["block-1-0", "block-1-5", "block-1-10", "chain-0"]);
    assert_eq!(inputs(&file, "at-a"), ["chain-2[4]"]);
    assert_eq!(&*task(&file, "at-a").args, r#"{"name":"a","file":"in/a.csv"}"#);
    let family = |name: &str| file.declaration(file.find(name).expect("it is there")).family();
    assert_eq!(family("block-1-10"), ("block-1", Some(10)));
    assert_eq!(family("at-a"), ("at-a", None));
}

#[test]
fn toml_and_json_say_the_same() {
    let value: toml::Value = toml::from_str(SPECIFICATION).expect("good TOML");
    let json = serde_json::to_string_pretty(&value).expect("tables become JSON");
    let (from_toml, from_json) = (good(SPECIFICATION), good(&json));
    let described = |file: &GraphFile| {
        let mut all: Vec<String> = file
            .declarations
            .iter()
            .map(|it| {
                let uses: Vec<&str> = it.kind.uses().iter().map(|id| file.declaration(*id).name.as_str()).collect();
                let args = if let DeclarationKind::Task(task) = &it.kind {
                    serde_json::from_str(&task.args).expect("JSON")
                } else {
                    Json::Null
                };
                // The order of keys follows the file; the meaning does not.
                let args: std::collections::BTreeMap<String, Json> = serde_json::from_value(args).unwrap_or_default();
                format!("{} {uses:?} {args:?}", it.name)
            })
            .collect();
        all.sort();
        all
    };
    assert_eq!(described(&from_toml), described(&from_json));
}

#[test]
fn without_outputs_every_unused_name_is_one() {
    let file = good("rask = 1\n[array.a]\ncreate = 'eye'\nn = 3\n[array.b]\nexpr = 'a'\n[array.c]\nexpr = 'a * 2'");
    let names: Vec<&str> = file.outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(names, ["b", "c"]);
}

#[test]
fn an_output_is_a_name_before_it_is_an_expression() {
    let text = "rask = 1\n[array.x]\ncreate = 'ones'\nshape = [3]\n[task.x-1]\nop = 'core.noop'\n\
                [output.a]\nof = 'x-1'\n[output.b]\nof = 'x -1'\n[output.c]\nof = 'x-1[2]'\n[output.d]\nof = 'x[2]'";
    let file = good(text);
    let whole = |at: usize| {
        if let OutputOf::Name(id, part) = &file.outputs[at].of {
            Some((file.declaration(*id).name.as_str(), *part))
        } else {
            None
        }
    };
    assert_eq!(whole(0), Some(("x-1", Part::WHOLE)));
    assert_eq!(whole(1), None);
    assert_eq!(whole(2), Some(("x-1", Part(2))));
    assert_eq!(whole(3), None);
}

#[test]
fn later_mistakes_find_their_place_inside_strings() {
    let file = good(
        "rask = 1\n[params]\nk = 12345\n[array.x]\ncreate = 'ones'\nshape = 3\n[output.o]\nof = \"\"\"\nx * ${k} +\n  x.T\"\"\"",
    );
    let OutputOf::Expression(formula) = &file.outputs[0].of else { panic!("an expression") };
    let expression = &formula.expression;
    let crate::expression::NodeKind::Binary(_, _, right) = expression.node(expression.root()) else { panic!("a sum") };
    let span = file.span_within(&formula.text, expression.span(*right));
    let diagnostic = file.diagnostic(span, "shapes (3,) and (4,) do not fit", None);
    assert_eq!(diagnostic.to_string(), "error: dir/f.toml:10:3: shapes (3,) and (4,) do not fit");
}

#[test]
fn the_schema_has_exactly_the_keys_that_files_may_have() {
    let schema = schema();
    for section in SECTIONS {
        let entry = &schema["properties"][section.name]["additionalProperties"];
        let variants = entry.get("oneOf").and_then(Json::as_array).cloned().unwrap_or_else(|| vec![entry.clone()]);
        assert_eq!(variants.len(), section.variants.len());
        for (schema, variant) in variants.iter().zip(section.variants) {
            let mut named: Vec<&str> = schema["properties"].as_object().expect("a table").keys().map(String::as_str).collect();
            let mut known: Vec<&str> = variant.keys().map(|key| key.name).collect();
            named.sort_unstable();
            known.sort_unstable();
            assert_eq!(named, known, "{}", section.name);
        }
    }
    // Every key of the specification's example is in the schema of some variant of its section.
    let example: toml::Value = toml::from_str(SPECIFICATION).expect("good TOML");
    let text = schema.to_string();
    for section in SECTIONS {
        for entry in example[section.name].as_table().expect("a table").values() {
            for key in entry.as_table().expect("a table").keys() {
                assert!(text.contains(&format!("\"{key}\":{{")), "{key}");
            }
        }
    }
}
