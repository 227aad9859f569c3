//! Files that nobody writes by hand: deep, huge, random. Reading them may fail but not panic, and not take long.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::super::{Format, GraphFile};
use super::{Words, good, parse, shown};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or(0) % bound
    }
}

const SEED: &str = r#"
rask = 1
[params]
n = 4
[frame.f]
path = "a.csv"
[frame.g]
sql = """SELECT a
FROM f"""
[array.x]
random = "normal"
shape = ["${n}", 2]
chunks = [[1, 3], -1]
[array.y]
expr = "x[1:, None] @ sum(x, axis=(0, 1)) ** -2"
[task."t-{i}-é"]
for = { i = "${n}" }
op = "core.noop"
inputs = ["x", "s[2]"]
args = { a = "{i * ${n}}", b = [1, 2.5, true] }
[task.s]
op = "core.noop"
[output.o]
of = "y + 1"
write = "o.npy"
"#;

const SEED_JSON: &str = r#"{"rask": 1, "params": {"n": 2}, "array": {"x": {"create": "eye", "n": "${n}"}},
 "task": {"t\u00e9-{i}": {"op": "core.noop", "for": {"i": 2}, "args": {"a": ["{i}", null, -1.5e3]}}}, "output": {"o": {"of": "x \ud83d\ude00"}}}"#;

#[test]
fn mutated_files_never_panic() {
    let pieces = [
        "\"",
        "{",
        "}",
        "[",
        "]",
        "=",
        "${n}",
        "${",
        "*",
        "-",
        "9999999999",
        "\n",
        "é",
        "'",
        "x",
        "\\",
        "\\u00",
        "1e400",
        "for",
        ",",
        "{i}",
        "\u{0}",
    ];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (seed, format) in [(SEED, Format::Toml), (SEED_JSON, Format::Json)] {
        for _ in 0..6_000 {
            let mut text: Vec<char> = seed.chars().collect();
            for _ in 0..=random.below(3) {
                let at = random.below(text.len());
                match random.below(3) {
                    0 => drop(text.drain(at..(at + 1 + random.below(8)).min(text.len()))),
                    1 => drop(text.splice(at..at, pieces[random.below(pieces.len())].chars())),
                    _ => text[at] = pieces[random.below(pieces.len())].chars().next().unwrap_or('?'),
                }
            }
            let text: String = text.into_iter().collect();
            match GraphFile::parse("f", &text, format, &[], &Words) {
                Ok(file) => assert!(!file.outputs.is_empty()),
                Err(mistakes) => {
                    let n_lines = text.matches('\n').count() + 1;
                    assert!(!mistakes.is_empty(), "refused without a reason:\n{text}");
                    assert!(
                        mistakes.iter().all(|it| (1..=n_lines).contains(&it.line) && it.column > 0),
                        "{text}\n{}",
                        shown(&mistakes)
                    );
                }
            }
        }
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut random = Random(7);
    for _ in 0..3_000 {
        let bytes: Vec<u8> = (0..random.below(60)).map(|_| u8::try_from(random.below(256)).unwrap_or(0)).collect();
        let text = String::from_utf8_lossy(&bytes);
        for format in [Format::Toml, Format::Json] {
            assert!(GraphFile::parse("f", &text, format, &[], &Words).is_err(), "{text}");
        }
    }
}

#[test]
fn deep_nesting_is_a_mistake() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let text = format!("{{\"rask\": {}1{}}}", open.repeat(100_000), close.repeat(100_000));
        let mistakes = parse(&text).expect_err("far too deep");
        assert!(mistakes[0].message.contains("nest deeper than 80"), "{}", shown(&mistakes));
    }
    assert!(parse(&format!("rask = {}1{}", "[".repeat(50_000), "]".repeat(50_000))).is_err());
    let formula = format!("rask = 1\n[task.'t-{{{}i}}']\nfor = {{ i = 1 }}\nop = 'core.noop'", "(".repeat(50_000));
    assert!(parse(&formula).is_err());
}

#[test]
fn families_beyond_memory_are_refused_before_they_are_made() {
    let text = "rask = 1\n[task.'t-{i}-{j}']\nfor = { i = 100000, j = 100000 }\nop = 'core.noop'";
    assert_eq!(
        shown(&parse(text).expect_err("too many")),
        "2:7: the families have 10000000000 members together, at most 2000000 are possible"
    );
}

#[test]
fn products_of_members_with_inputs_and_texts_are_refused_before_they_are_made() {
    let refusal = |text: &str| {
        let begun = std::time::Instant::now();
        let refusal = shown(&parse(text).expect_err("too much"));
        assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
        refusal
    };
    let family = "rask = 1\n[task.'t-{i}']\nfor = { i = 1000000 }\nop = 'core.noop'\n";
    let inputs = format!("{family}inputs = [{}]", "'u', ".repeat(1_000));
    assert_eq!(refusal(&inputs), "2:7: the families have 1000000000 inputs together, at most 20000000 are possible");
    let args = format!("{family}args = {{ i = '${{i}}', text = '{}' }}", "x".repeat(100_000));
    let refused = refusal(&args);
    assert!(refused.contains("of all members take 100") && refused.contains("at most 1073741824 are possible"), "{refused}");
    let twenty_million = "rask = 1\n[task.'t-{i}']\nfor = { i = 20000000 }\nop = 'core.noop'";
    let expected = "2:7: the families have 20000000 members together, at most 2000000 are possible";
    assert_eq!(refusal(twenty_million), expected);
}

/// A hundred thousand explicit tasks, in chains and bundles, as a program would write them.
pub(super) fn big(n_tasks: usize) -> String {
    let mut text = String::from("{\"rask\": 1, \"task\": {\n");
    for task in 0..n_tasks {
        let comma = if task == 0 { "" } else { ",\n" };
        let input = if task < 10 { String::new() } else { format!("\"task-{}\", \"task-{}\"", task - 10, task / 2) };
        let _ = write!(
            text,
            "{comma}\"task-{task}\": {{\"op\": \"core.sleep\", \"inputs\": [{input}], \"args\": {{\"seconds\": 0.{task}}}}}"
        );
    }
    text.push_str("\n}}");
    text
}

#[test]
fn a_hundred_thousand_tasks_are_read_quickly() {
    let text = big(100_000);
    let start = Instant::now();
    let file = good(&text);
    let parsed = start.elapsed();
    let mistakes = file.check_operators(&crate::Registry::new());
    let elapsed = start.elapsed();
    println!("100,000 tasks, {} MB of JSON: parsed in {parsed:?}, with operators checked {elapsed:?}", text.len() / 1_000_000);
    assert!(mistakes.is_empty(), "{}", shown(&mistakes));
    assert_eq!(file.declarations.len(), 100_000);
    // Far above what it takes, so that a busy machine does not fail it, far below what a quadratic step would take.
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
}

#[test]
fn a_thousand_mistakes_end_in_a_hundred_messages() {
    let text = big(2_000).replace("\"op\"", "\"opp\"");
    let start = Instant::now();
    assert_eq!(parse(&text).expect_err("all wrong").len(), 100);
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// A file of explicit tasks `t0`, `t1`, .., each with the one before it as input, and `first` with this one.
fn chain(n_tasks: usize, first: &str) -> String {
    let mut text = String::from("rask = 1\n");
    for task in 0..n_tasks {
        let input = if task == 0 { first.to_owned() } else { format!("'t{}'", task - 1) };
        writeln!(text, "[task.t{task}]\nop = 'core.noop'\ninputs = [{input}]").expect("text");
    }
    text
}

#[test]
fn a_long_chain_is_read_and_a_long_cycle_is_shown_in_short() {
    let n_tasks = 100_000;
    assert_eq!(good(&chain(n_tasks, "")).declarations.len(), n_tasks);
    let mistakes = parse(&chain(n_tasks, &format!("'t{}'", n_tasks - 1))).expect_err("a cycle");
    let said = shown(&mistakes);
    assert_eq!(mistakes.len(), 1, "{}", &said[..said.len().min(1_000)]);
    assert!(said.contains("these names form a cycle: ") && said.len() < 1_000, "{} bytes", said.len());
}

#[test]
fn a_chain_in_which_everything_closes_a_cycle_takes_no_longer() {
    // Every task uses the next one and the first one: a hundred thousand cycles, five thousand million members.
    let n_tasks = 100_000;
    let mut text = String::from("rask = 1\n");
    for task in 0..n_tasks {
        let next = (task + 1) % n_tasks;
        writeln!(text, "[task.t{task}]\nop = 'core.noop'\ninputs = ['t{next}', 't0']").expect("text");
    }
    let start = Instant::now();
    let n_mistakes = parse(&text).expect_err("cycles").len();
    assert!((90..=100).contains(&n_mistakes), "{n_mistakes}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
