//! JSON as rows: objects one after the other (a line each or over several), or the elements of one array; and the columns that
//! they suggest.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeListArray, ListArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use rustc_hash::FxBuildHasher;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::guess::Guess;
use super::values::{BadValue, Origin, column};

/// What the values of a key have been.
#[derive(Debug, Default)]
pub(crate) struct Node {
    scalar: Guess,
    object: Option<Keys>,
    list: Option<Box<Node>>,
}

/// The keys of an object in order of appearance.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    keys: Vec<(String, Node)>,
    places: HashMap<String, usize, FxBuildHasher>,
}

impl Keys {
    fn entry(&mut self, key: &str) -> &mut Node {
        let place = match self.places.get(key) {
            Some(&place) => place,
            None => {
                self.places.insert(key.to_owned(), self.keys.len());
                self.keys.push((key.to_owned(), Node::default()));
                self.keys.len() - 1
            }
        };
        &mut self.keys[place].1
    }

    /// Look at the rows in `text` (see [`Rows`]), `n_rows` at most. A row cut short at the end of `text` is left out unless
    /// `is_whole`. Returns the number of rows.
    ///
    /// # Errors
    /// What is wrong, and the line in `text` from 1.
    pub(crate) fn look_at(&mut self, text: &[u8], n_rows: usize, is_whole: bool) -> Result<usize, (u64, String)> {
        let mut rows = Rows::new(text);
        for seen in 0..n_rows {
            let Some(row) = rows.next()? else { return Ok(seen) };
            if !row.is_complete && !is_whole {
                return Ok(seen);
            }
            let mut deserializer = serde_json::Deserializer::from_slice(row.text);
            let done = RowSeed(self).deserialize(&mut deserializer).and_then(|()| deserializer.end());
            done.map_err(|error| (row.line + (error.line() as u64).saturating_sub(1), plain(&error)))?;
        }
        Ok(n_rows)
    }

    /// The columns.
    ///
    /// # Errors
    /// When values of one key have nothing in common, naming it.
    pub(crate) fn schema(&self) -> Result<Schema, String> {
        Ok(Schema::new(self.fields("")?))
    }

    fn fields(&self, path: &str) -> Result<Fields, String> {
        let field = |(key, node): &(String, Node)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            Ok(Field::new(key, node.data_type(&path)?, true))
        };
        self.keys.iter().map(field).collect()
    }
}

/// The message of serde without the position at its end.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

impl Node {
    fn data_type(&self, path: &str) -> Result<DataType, String> {
        match (&self.object, &self.list) {
            (None, None) => Ok(self.scalar.data_type()),
            (Some(keys), None) if self.scalar == Guess::default() => Ok(DataType::Struct(keys.fields(path)?)),
            (None, Some(items)) if self.scalar == Guess::default() => {
                Ok(DataType::List(Arc::new(Field::new_list_field(items.data_type(path)?, true))))
            }
            (Some(_), Some(_)) => Err(format!("\"{path}\" is an object in some rows and a list in others")),
            (Some(_), None) => Err(format!("\"{path}\" is an object in some rows and a plain value in others")),
            (None, Some(_)) => Err(format!("\"{path}\" is a list in some rows and a plain value in others")),
        }
    }
}

struct RowSeed<'a>(&'a mut Keys);

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object for a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            map.next_value_seed(NodeSeed(self.0.entry(&key)))?;
        }
        Ok(())
    }
}

struct NodeSeed<'a>(&'a mut Node);

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _value: bool) -> Result<(), E> {
        self.0.scalar = self.0.scalar.union(Guess::BOOLEAN);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.0.scalar = self.0.scalar.union(Guess::of_number(value.to_string().as_bytes()));
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.0.scalar = self.0.scalar.union(Guess::of_number(value.to_string().as_bytes()));
        Ok(())
    }

    fn visit_f64<E: Error>(self, _value: f64) -> Result<(), E> {
        self.0.scalar = self.0.scalar.union(Guess::of_number(b"0.5"));
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.0.scalar = self.0.scalar.union(Guess::of_word(value));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let items = self.0.list.get_or_insert_default();
        while seq.next_element_seed(NodeSeed(items))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        RowSeed(self.0.object.get_or_insert_default()).visit_map(map)
    }
}

/// Walks over JSON without understanding it: where brackets are, and what is inside of strings.
#[derive(Default)]
struct Walker {
    depth: u32,
    in_string: bool,
    is_escaped: bool,
}

impl Walker {
    fn step(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }

    fn is_outside(&self) -> bool {
        self.depth == 0 && !self.in_string
    }
}

/// The rows of a JSON text by their brackets: objects one after the other, or elements of one array.
pub(crate) struct Rows<'a> {
    rest: &'a [u8],
    line: u64,
    in_array: bool,
    n_rows: u64,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        let mut rows = Self { rest: text, line: 1, in_array: false, n_rows: 0 };
        rows.skip_blanks();
        if let Some(rest) = rows.rest.strip_prefix(b"[") {
            (rows.rest, rows.in_array) = (rest, true);
        }
        rows
    }

    /// Whether the text is an array.
    pub(crate) fn is_array(&self) -> bool {
        self.in_array
    }

    fn skip_blanks(&mut self) {
        let n_blanks = self.rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.skip(n_blanks);
    }

    fn skip(&mut self, n_bytes: usize) -> &'a [u8] {
        let (skipped, rest) = self.rest.split_at(n_bytes);
        self.line += memchr::memchr_iter(b'\n', skipped).count() as u64;
        self.rest = rest;
        skipped
    }

    /// The next row.
    ///
    /// # Errors
    /// When there is something else, with its line.
    pub(crate) fn next(&mut self) -> Result<Option<Row<'a>>, (u64, String)> {
        self.skip_blanks();
        if self.in_array {
            if self.rest.first() == Some(&b']') {
                self.skip(1);
                self.skip_blanks();
                self.in_array = false;
                return if self.rest.is_empty() { Ok(None) } else { Err((self.line, "text after the array".to_owned())) };
            }
            if self.n_rows > 0 {
                match self.rest.first() {
                    Some(b',') => _ = self.skip(1),
                    Some(_) => return Err((self.line, "a comma is missing between two elements".to_owned())),
                    None => {}
                }
                self.skip_blanks();
            }
        }
        let Some(&first) = self.rest.first() else { return Ok(None) };
        if first != b'{' {
            return Err((self.line, "a row must be an object".to_owned()));
        }
        self.n_rows += 1;
        let line = self.line;
        let mut walker = Walker::default();
        for (at, &byte) in self.rest.iter().enumerate() {
            walker.step(byte);
            if walker.is_outside() {
                return Ok(Some(Row { line, text: self.skip(at + 1), is_complete: true }));
            }
        }
        Ok(Some(Row { line, text: self.skip(self.rest.len()), is_complete: false }))
    }
}

/// A row as text.
pub(crate) struct Row<'a> {
    /// The line that it begins in, from 1.
    pub(crate) line: u64,
    pub(crate) text: &'a [u8],
    /// Whether its end was seen.
    pub(crate) is_complete: bool,
}

/// Reads the elements of an array as objects one after the other: its brackets and the commas between its elements become
/// blanks. Text that is no array passes as it is.
pub(crate) struct Elements<R> {
    input: R,
    walker: Walker,
    /// Whether the text is an array; not known before its first character.
    is_array: Option<bool>,
}

impl<R: Read> Elements<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, walker: Walker::default(), is_array: None }
    }
}

impl<R: Read> Read for Elements<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n_read = self.input.read(out)?;
        let mut bytes = &mut out[..n_read];
        if self.is_array.is_none()
            && let Some(first) = bytes.iter().position(|byte| !byte.is_ascii_whitespace())
        {
            let is_array = bytes[first] == b'[';
            self.is_array = Some(is_array);
            if is_array {
                bytes[first] = b' ';
                bytes = &mut bytes[first..];
            }
        }
        if self.is_array == Some(true) {
            for byte in bytes {
                if self.walker.is_outside() && matches!(*byte, b',' | b']') {
                    *byte = b' ';
                } else {
                    self.walker.step(*byte);
                }
            }
        }
        Ok(n_read)
    }
}

/// Whether `row` is JSON at all.
pub(crate) fn check(row: &[u8]) -> Result<(), (u64, String)> {
    let checked = serde_json::from_slice::<IgnoredAny>(row);
    checked.map(|_| ()).map_err(|error| ((error.line() as u64).saturating_sub(1), plain(&error)))
}

/// `fields` with every plain value a text: what JSON is read as before its values are made of their types.
pub(crate) fn as_texts(fields: &Fields) -> Fields {
    fields.iter().map(as_text).collect()
}

fn as_text(field: &FieldRef) -> FieldRef {
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: all other types are plain values")]
    let data_type = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(as_texts(fields)),
        DataType::List(items) => DataType::List(as_text(items)),
        DataType::LargeList(items) => DataType::LargeList(as_text(items)),
        _ => DataType::Utf8,
    };
    Arc::new(field.as_ref().clone().with_data_type(data_type).with_nullable(true))
}

/// `texts`, read as [`as_texts`] says, as a column of type `to`.
///
/// # Errors
/// At the first value that is not of its type.
pub(crate) fn from_texts(texts: &ArrayRef, to: &DataType, origin: Origin) -> Result<ArrayRef, BadValue> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "Arrow's enum, not ours: all other types are plain values")]
    match to {
        DataType::Struct(fields) => {
            let own = texts.as_struct();
            let columns = fields.iter().zip(own.columns());
            let columns = columns.map(|(field, column)| from_texts(column, field.data_type(), origin));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            let made = StructArray::try_new_with_length(fields.clone(), columns, own.nulls().cloned(), own.len());
            made.map(|made| Arc::new(made) as ArrayRef).map_err(|error| internal(&error.to_string()))
        }
        DataType::List(items) => {
            let own = texts.as_list::<i32>();
            let values = from_texts(own.values(), items.data_type(), origin).map_err(|bad| in_list(own.offsets(), bad))?;
            let made = ListArray::try_new(Arc::clone(items), own.offsets().clone(), values, own.nulls().cloned());
            made.map(|made| Arc::new(made) as ArrayRef).map_err(|error| internal(&error.to_string()))
        }
        DataType::LargeList(items) => {
            let own = texts.as_list::<i64>();
            let values = from_texts(own.values(), items.data_type(), origin).map_err(|bad| in_list(own.offsets(), bad))?;
            let made = LargeListArray::try_new(Arc::clone(items), own.offsets().clone(), values, own.nulls().cloned());
            made.map(|made| Arc::new(made) as ArrayRef).map_err(|error| internal(&error.to_string()))
        }
        plain => column(texts.as_string::<i32>(), plain, origin),
    }
}

fn internal(reason: &str) -> BadValue {
    BadValue { row: 0, reason: reason.to_owned(), better: String::new() }
}

/// The bad element of a list, with the row that the list stands in.
fn in_list<O: arrow::array::OffsetSizeTrait>(offsets: &OffsetBuffer<O>, bad: BadValue) -> BadValue {
    let row = offsets.partition_point(|offset| offset.as_usize() <= bad.row).saturating_sub(1);
    BadValue { row, ..bad }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(text: &str) -> Result<Schema, String> {
        let mut keys = Keys::default();
        keys.look_at(text.as_bytes(), usize::MAX, true).map_err(|(line, reason)| format!("{line}: {reason}"))?;
        keys.schema()
    }

    fn types(text: &str) -> String {
        let schema = schema(text).unwrap();
        let types: Vec<String> =
            schema.fields().iter().map(|f| format!("{} {}", f.name(), crate::type_name(f.data_type()))).collect();
        types.join(", ")
    }

    #[test]
    fn rows_suggest_columns() {
        for (text, expected) in [
            ("{\"a\": 1}\n{\"a\": 2.5, \"b\": \"x\"}\n", "a f64, b string"),
            ("{\n \"a\": 1\n}\n\n{\n \"a\": null}", "a i64"),
            ("[{\"a\": true}, {\"a\": false}]\n", "a bool"),
            ("[]", ""),
            ("", ""),
            ("{\"s\": {\"x\": 1}}{\"s\": {\"y\": [1, 2.5]}}", "s struct<x: i64, y: list<f64>>"),
            ("{\"a\": 18446744073709551615}", "a u64"),
            ("{\"a\": 1}\n{\"a\": \"one\"}", "a string"),
            ("{\"a\": \"2024-01-01\"}", "a string"),
            ("{\"a\": 1}{\"a\": \"NaN\"}", "a f64"),
            ("{\"a\": \"x\"}{\"a\": \"NaN\"}", "a string"),
            ("{\"a]}\\\"\": \"}\"}", "a]}\" i64"),
        ] {
            let expected = if text.contains("\\\"\"") { "a]}\" string" } else { expected };
            assert_eq!(types(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_row_has_its_line() {
        for (text, expected) in [
            ("{\"a\": 1}\n5\n", "2: a row must be an object"),
            ("{\"a\": 1}\n{\"a\": }\n", "2: expected value"),
            ("{\n\"a\": 1,\n\"b\" 2\n}\n", "3: expected `:`"),
            ("{\"a\": 1}\n{\"a\": 1", "2: EOF while parsing an object"),
            ("[{\"a\": 1}\n{\"a\": 1}]", "2: a comma is missing between two elements"),
            ("[{\"a\": 1}]\n{}", "2: text after the array"),
            ("{\"a\": 1}\n{\"a\": [1]}", "\"a\" is a list in some rows and a plain value in others"),
            ("{\"s\": {\"a\": {}}}\n{\"s\": {\"a\": [1]}}", "\"s.a\" is an object in some rows and a list in others"),
        ] {
            assert_eq!(schema(text).unwrap_err(), expected, "{text}");
        }
        let mut keys = Keys::default();
        assert_eq!(keys.look_at(b"{\"a\": 1}\n{\"b\": ", 10, false), Ok(1));
        assert_eq!(keys.schema().unwrap().fields().len(), 1);
    }

    #[test]
    fn elements_of_arrays_become_rows() {
        for text in ["[{\"a\": \"],\"}, {\"b\": [1, 2]}]\n", " \n[{\"a\\\"[\": 1}\n,\n{}]"] {
            let mut read = String::new();
            Elements::new(text.as_bytes()).read_to_string(&mut read).unwrap();
            assert_eq!(read.len(), text.len());
            let rows = serde_json::Deserializer::from_str(&read).into_iter::<serde_json::Value>();
            let rows: Vec<_> = rows.map(|row| row.unwrap()).collect();
            assert_eq!(serde_json::Value::from(rows), serde_json::from_str::<serde_json::Value>(text).unwrap());
        }
    }
}
