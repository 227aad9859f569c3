//! The sections of a graph file and their keys: the one table that both the checks and the JSON Schema are made from.
//!
//! A section has variants, told apart by their source (`random`, `create`, ...; exactly one must be there). What the
//! values mean is for the readers of the sections; only their kinds are known here.

/// What a value must be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Kind {
    Integer,
    /// An integer of at least 0.
    Natural,
    /// An integer of at least 1.
    Positive,
    Number,
    Boolean,
    Text,
    /// A string of exactly one character.
    Character,
    /// A string, or a list of strings.
    Texts,
    /// A table of strings.
    TextTable,
    /// A table of numbers of at least 0.
    AmountTable,
    /// Lengths of axes: a list of integers of at least 0, or one for a single axis.
    Shape,
    /// `"auto"`, an integer for all axes, or a list with an entry for each.
    Chunks,
    Dtype,
    OneOf(&'static [&'static str]),
    /// A table of whatever the operator takes.
    Arguments,
    /// A table of variables: a count, or a list of integers and strings.
    Loops,
}

/// A key of a section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) is_required: bool,
    /// For the schema.
    pub(super) doc: &'static str,
}

/// One of the ways to write a section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variant {
    /// The key that names the source; empty when the section has only one way.
    pub(super) source: &'static str,
    /// Other keys that only this source has and that show it is meant.
    pub(super) also: &'static str,
    /// The value of the source key that selects this variant; empty for any.
    pub(super) choice: &'static str,
    pub(super) keys: &'static [&'static [Key]],
}

/// A kind of section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) doc: &'static str,
    pub(super) variants: &'static [Variant],
}

impl Variant {
    pub(super) fn keys(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter().copied().flatten()
    }
}

impl Section {
    /// The names of the sources, each once.
    pub(super) fn sources(&self) -> Vec<&'static str> {
        let mut sources: Vec<&str> = self.variants.iter().map(|variant| variant.source).collect();
        sources.dedup();
        sources
    }

    /// The values that the key `source` may have, when they select the variant.
    pub(super) fn choices(&self, source: &str) -> Vec<&'static str> {
        let of_source = self.variants.iter().filter(|variant| variant.source == source && !variant.choice.is_empty());
        of_source.map(|variant| variant.choice).collect()
    }
}

const fn key(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, is_required: false, doc }
}

const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, is_required: true, doc }
}

const fn variant(source: &'static str, choice: &'static str, keys: &'static [&'static [Key]]) -> Variant {
    Variant { source, also: "", choice, keys }
}

/// Types of array elements: the name used here, and NumPy's.
pub(super) const DTYPES: [(&str, &str); 11] = [
    ("bool", "bool"),
    ("i8", "int8"),
    ("i16", "int16"),
    ("i32", "int32"),
    ("i64", "int64"),
    ("u8", "uint8"),
    ("u16", "uint16"),
    ("u32", "uint32"),
    ("u64", "uint64"),
    ("f32", "float32"),
    ("f64", "float64"),
];

/// Keys at the top of a file.
pub(super) const TOP: [(&str, &str); 6] = [
    ("rask", "Version of the format: 1."),
    ("params", "Values to use as \"${name}\"; overridable with --set name=value."),
    ("frame", "Dataframes by name."),
    ("array", "Chunked arrays by name."),
    ("task", "Tasks and families of tasks by name."),
    ("output", "What to compute, by name; without any, every name nobody uses."),
];

const CHUNKS: Key =
    key("chunks", Kind::Chunks, "Lengths of chunks: \"auto\", one for all axes, or one an axis (-1: the whole axis).");
const DTYPE: Key = key("dtype", Kind::Dtype, "Type of the elements.");
const COLUMNS: Key = key("columns", Kind::Texts, "Names of columns, in order; all when left out.");

const READ: &[Key] = &[
    required("path", Kind::Texts, "Files to read; * and ? match names; .gz and .zst are unpacked."),
    key("read", Kind::OneOf(&["csv", "parquet", "json", "arrow"]), "Format of the files; by extension when left out."),
    COLUMNS,
    key("types", Kind::TextTable, "Types of columns that are not to be guessed."),
    key("delimiter", Kind::Character, "CSV: what separates fields."),
    key("quote", Kind::Character, "CSV: what encloses fields."),
    key("comment", Kind::Character, "CSV: what begins a line to ignore."),
    key("header", Kind::Boolean, "CSV: whether the first line names the columns."),
    key("null", Kind::Texts, "CSV: what stands for no value."),
    key("infer_rows", Kind::Positive, "CSV and JSON: rows of each file to find the types by."),
    key("partition_nbytes", Kind::Positive, "Bytes of file that make one partition, about."),
];

/// `[frame.NAME]`
pub(super) const FRAME: Section = Section {
    name: "frame",
    doc: "A dataframe: one task a partition.",
    variants: &[
        Variant { source: "read", also: "path", choice: "", keys: &[READ] },
        variant("sql", "", &[&[required("sql", Kind::Text, "A query over other frames by name.")]]),
        variant(
            "from_array",
            "",
            &[&[required("from_array", Kind::Text, "An array of one or two dimensions: rows x columns."), COLUMNS]],
        ),
    ],
};

const RANDOM: &[Key] = &[
    required("random", Kind::Text, "The distribution."),
    required("shape", Kind::Shape, "Lengths of the axes."),
    CHUNKS,
    key("seed", Kind::Natural, "The same seed gives the same numbers, whatever the chunks or the number of workers."),
    DTYPE,
];
const CREATE: &[Key] = &[required("create", Kind::Text, "The function that makes the array."), CHUNKS, DTYPE];
const SHAPE: &[Key] = &[required("shape", Kind::Shape, "Lengths of the axes.")];

/// `[array.NAME]`
pub(super) const ARRAY: Section = Section {
    name: "array",
    doc: "A chunked array: one task a chunk.",
    variants: &[
        variant(
            "random",
            "normal",
            &[
                RANDOM,
                &[
                    key("loc", Kind::Number, "Mean; 0 when left out."),
                    key("scale", Kind::Number, "Standard deviation; 1 when left out."),
                ],
            ],
        ),
        variant(
            "random",
            "uniform",
            &[
                RANDOM,
                &[
                    key("low", Kind::Number, "Lower bound; 0 when left out."),
                    key("high", Kind::Number, "Upper bound; 1 when left out."),
                ],
            ],
        ),
        variant(
            "random",
            "integers",
            &[
                RANDOM,
                &[
                    key("low", Kind::Integer, "Lowest; 0 when left out."),
                    required("high", Kind::Integer, "One above the highest."),
                ],
            ],
        ),
        variant("random", "exponential", &[RANDOM, &[key("scale", Kind::Number, "Mean; 1 when left out.")]]),
        variant("random", "poisson", &[RANDOM, &[key("lam", Kind::Number, "Mean; 1 when left out.")]]),
        variant("create", "zeros", &[CREATE, SHAPE]),
        variant("create", "ones", &[CREATE, SHAPE]),
        variant("create", "full", &[CREATE, SHAPE, &[required("fill_value", Kind::Number, "Every element.")]]),
        variant(
            "create",
            "arange",
            &[
                CREATE,
                &[
                    key("start", Kind::Number, "The first; 0 when left out."),
                    required("stop", Kind::Number, "Where to stop, not included."),
                    key("step", Kind::Number, "From one to the next; 1 when left out."),
                ],
            ],
        ),
        variant(
            "create",
            "linspace",
            &[
                CREATE,
                &[
                    required("start", Kind::Number, "The first."),
                    required("stop", Kind::Number, "The last."),
                    key("num", Kind::Natural, "How many; 50 when left out."),
                    key("endpoint", Kind::Boolean, "Whether stop is included; true when left out."),
                ],
            ],
        ),
        variant(
            "create",
            "eye",
            &[
                CREATE,
                &[
                    required("n", Kind::Natural, "Number of rows."),
                    key("m", Kind::Natural, "Number of columns; as many as rows when left out."),
                    key("k", Kind::Integer, "Which diagonal; 0 when left out."),
                ],
            ],
        ),
        variant(
            "load",
            "",
            &[&[
                required("load", Kind::Text, "A .npy or .npz file, or a .zarr directory."),
                key("key", Kind::Text, "Which array of a .npz file or .zarr directory."),
                CHUNKS,
            ]],
        ),
        variant("expr", "", &[&[required("expr", Kind::Text, "A formula over other arrays, in NumPy's syntax.")]]),
        variant(
            "from_frame",
            "",
            &[&[
                required("from_frame", Kind::Text, "A frame, whose numeric columns become rows x columns."),
                COLUMNS,
                DTYPE,
                CHUNKS,
            ]],
        ),
    ],
};

/// `[task.NAME]`
pub(super) const TASK: Section = Section {
    name: "task",
    doc: "One node of the graph, or with \"for\" a family of them whose name has placeholders like {i}.",
    variants: &[variant(
        "",
        "",
        &[&[
            required("op", Kind::Text, "The operator."),
            key("args", Kind::Arguments, "Its arguments."),
            key(
                "inputs",
                Kind::Texts,
                "Names whose results it gets; \"x-*\" means all of a family, \"x[2]\" part 2 of a result.",
            ),
            key("for", Kind::Loops, "Variables of a family: { i = 4 } runs over 0, 1, 2, 3."),
            key("priority", Kind::Integer, "Higher runs earlier; 0 when left out."),
            key("retries", Kind::Natural, "How often a failed run is tried again."),
            key("resources", Kind::AmountTable, "Abstract resources held while it runs."),
            key("workers", Kind::Texts, "Names of the workers it may run on."),
            key("allow_other_workers", Kind::Boolean, "Whether others will do when none of \"workers\" is there."),
        ]],
    )],
};

/// `[output.NAME]`
pub(super) const OUTPUT: Section = Section {
    name: "output",
    doc: "Something to compute.",
    variants: &[variant(
        "",
        "",
        &[&[
            required("of", Kind::Text, "A name, or an expression over arrays."),
            key("write", Kind::Text, "A file to write it to: .parquet, .csv, .json, .npy or .zarr; printed when left out."),
        ]],
    )],
};

/// The sections whose entries are declared by name.
pub(super) const SECTIONS: [&Section; 4] = [&FRAME, &ARRAY, &TASK, &OUTPUT];
