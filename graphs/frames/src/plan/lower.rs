//! Frames as tasks: the one place that adds tasks of frames to a graph.

use std::collections::HashMap;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};
use rask_graphs::keys::KeyRef;
use rask_graphs::{Body, GraphBuilder, TaskIdx};
use rustc_hash::FxBuildHasher;
use serde::Serialize;

use super::cut::{Cut, CutPlan, Rows, Slot, cut, expand, is_volatile, volatile_frames};
use super::session::{self, Now};
use super::{bounds, codec};
use crate::error::FrameError;
use crate::frame::{Frame, Node};
use crate::operators::query::QueryArgs;
use crate::operators::scan::{Pushed, ScanArgs};
use crate::partition::schema_to_bytes;
use crate::source::FileSource;

/// Turns frames into tasks of one graph, each frame and each scan once.
///
/// A frame that has been lowered is computed as a whole; queries over it lowered later use its result instead of inlining
/// it. Lower a frame first that several others share, and lower it last (or not at all) when filters and projections of
/// the queries over it should reach its files.
pub struct FrameLowering {
    /// By the address of the frame, which the frame kept beside it keeps valid.
    frames: HashMap<usize, (Frame, Vec<TaskIdx>), FxBuildHasher>,
    /// By the frame's address and the arguments of its first task.
    scans: HashMap<(usize, String), (Frame, Vec<TaskIdx>), FxBuildHasher>,
    /// What `now()` is in all queries.
    now: Now,
}

impl Default for FrameLowering {
    fn default() -> Self {
        Self { frames: HashMap::default(), scans: HashMap::default(), now: Now::read() }
    }
}

impl FrameLowering {
    /// For one graph.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Add the tasks that compute `frame` to `graph` and return those of its partitions, one at least, in order. Tasks are
    /// named after `name`.
    ///
    /// # Errors
    /// [`FrameError::Plan`] when the optimiser rejects the query or it has something in it that cannot be distributed.
    pub fn lower(&mut self, frame: &Frame, graph: &mut GraphBuilder, name: &str) -> Result<Vec<TaskIdx>, FrameError> {
        if let Some((_, tasks)) = self.frames.get(&address(frame)) {
            return Ok(tasks.clone());
        }
        let tasks = match &frame.0.node {
            Node::Files(source) => self.scan(frame, source, &ScanRequest::default(), graph, name)?,
            Node::Query(plan) => bounds::planning(|| self.query(plan, graph, name))?,
            Node::Tasks(tasks) => tasks.clone(),
        };
        self.frames.insert(address(frame), (frame.clone(), tasks.clone()));
        Ok(tasks)
    }

    fn query(&mut self, plan: &LogicalPlan, graph: &mut GraphBuilder, name: &str) -> Result<Vec<TaskIdx>, FrameError> {
        // Inlined where it is used, a frame of random numbers would have others in each place.
        for (table, frame) in volatile_frames(plan)? {
            self.lower(&frame, graph, &format!("{name}-{table}"))?;
        }
        let computed = |frame: &Frame| self.frames.get(&address(frame)).map(|(_, tasks)| tasks.clone());
        let CutPlan { slots, rest, cut } = optimise(plan.clone(), &computed, &self.now)?;
        let mut inputs = Vec::with_capacity(slots.len());
        for (idx, slot) in slots.iter().enumerate() {
            // The same table twice in one query has two scans unless they ask for the same.
            let is_repeated = slots[..idx].iter().any(|other| other.table == slot.table);
            let suffix = if is_repeated { format!("-{}", idx + 1) } else { String::new() };
            let scan_name = if cut == Cut::ScanOnly { name.to_owned() } else { format!("{name}-scan-{}{suffix}", slot.table) };
            inputs.push(self.slot(slot, graph, &scan_name)?);
        }
        match cut {
            Cut::ScanOnly => Ok(inputs.concat()),
            Cut::PartitionWise => {
                let body = query_body(&rest, vec![1])?;
                let (body, family) = (graph.body(body), graph.family(name));
                let tasks = inputs.concat().into_iter().zip(0..);
                Ok(tasks
                    .map(|(input, member)| graph.task_with(KeyRef { family, member: Some(member) }, body).input(input).add())
                    .collect())
            }
            Cut::Whole => {
                let body = query_body(&rest, inputs.iter().map(Vec::len).collect())?;
                let (body, family) = (graph.body(body), graph.family(name));
                Ok(vec![graph.task_with(KeyRef { family, member: None }, body).inputs(inputs.concat()).add()])
            }
        }
    }

    fn slot(&mut self, slot: &Slot, graph: &mut GraphBuilder, name: &str) -> Result<Vec<TaskIdx>, FrameError> {
        match &slot.rows {
            Rows::Tasks(tasks) => Ok(tasks.clone()),
            Rows::Scan { frame, columns, filters, limit } => {
                let Node::Files(source) = &frame.0.node else {
                    return Err(FrameError::Plan(format!("{}: not a frame of files", slot.table)));
                };
                let mut pushed = Vec::with_capacity(filters.len());
                for filter in filters {
                    pushed.push(Pushed { text: filter.to_string(), expr: codec::encode_expr(filter)? });
                }
                let request = ScanRequest { columns: columns.clone(), pushed, limit: *limit };
                self.scan(frame, source, &request, graph, name)
            }
        }
    }

    fn scan(
        &mut self,
        frame: &Frame,
        source: &FileSource,
        request: &ScanRequest,
        graph: &mut GraphBuilder,
        name: &str,
    ) -> Result<Vec<TaskIdx>, FrameError> {
        let key = (address(frame), to_json(&request)?);
        if let Some((_, tasks)) = self.scans.get(&key) {
            return Ok(tasks.clone());
        }
        let schema = data_encoding::BASE64.encode(&schema_to_bytes(&source.schema));
        let family = graph.family(name);
        let mut tasks = Vec::with_capacity(source.slices.len());
        for (slice, member) in source.slices.iter().zip(0..) {
            let path = slice.path.to_str().ok_or_else(|| FrameError::Plan(format!("{}: not UTF-8", slice.path.display())))?;
            let args = ScanArgs {
                path: path.to_owned(),
                format: Some(source.format),
                range: slice.range,
                row_groups: slice.row_groups.clone(),
                columns: request.columns.clone(),
                filter: None,
                limit: request.limit,
                options: source.options.clone(),
                pushed: request.pushed.clone(),
                schema: Some(schema.clone()),
            };
            let body = graph.body(Body::single("frame.scan", 1, &to_json(&args)?));
            tasks.push(graph.task_with(KeyRef { family, member: Some(member) }, body).add());
        }
        self.scans.insert(key, (frame.clone(), tasks.clone()));
        Ok(tasks)
    }
}

/// What a query wants of a scan.
#[derive(Default, Serialize)]
struct ScanRequest {
    columns: Option<Vec<String>>,
    pushed: Vec<Pushed>,
    limit: Option<usize>,
}

fn address(frame: &Frame) -> usize {
    std::sync::Arc::as_ptr(&frame.0).addr()
}

fn to_json(value: &impl Serialize) -> Result<String, FrameError> {
    serde_json::to_string(value).map_err(|error| FrameError::Plan(error.to_string()))
}

fn query_body(rest: &LogicalPlan, n_inputs: Vec<usize>) -> Result<Body, FrameError> {
    let mut pieces = codec::encode_plan(rest)?;
    let plan = pieces.pop().unwrap_or_default();
    let args = QueryArgs { plan, below: pieces, n_inputs };
    Ok(Body::single("frame.query", 1, &to_json(&args)?))
}

fn optimise(plan: LogicalPlan, computed: &dyn Fn(&Frame) -> Option<Vec<TaskIdx>>, now: &Now) -> Result<CutPlan, FrameError> {
    let expanded = expand(plan, computed)?;
    let optimised = session::at(now).optimize(&expanded)?;
    check_is_flat(&optimised)?;
    Ok(cut(optimised)?)
}

/// Fails when a subquery still looks at the rows around it, which no task could compute by itself.
fn check_is_flat(plan: &LogicalPlan) -> Result<(), FrameError> {
    let mut is_flat = true;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            is_flat &= !expr.exists(|part| Ok(matches!(part, Expr::OuterReferenceColumn(..))))?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    if is_flat {
        return Ok(());
    }
    let what = "a subquery (or LATERAL) that looks at the rows around it in this way is not supported";
    Err(FrameError::Plan(format!("{what}: only conditions of equality in its WHERE are; a join with a group can say the same")))
}

/// What would run for `frame`, in words: its scans with what was pushed into them, and the plan above.
///
/// # Errors
/// As [`FrameLowering::lower`].
pub fn explain(frame: &Frame) -> Result<String, FrameError> {
    match &frame.0.node {
        Node::Files(source) => {
            let columns: Vec<&str> = source.schema.fields().iter().map(|field| field.name().as_str()).collect();
            Ok(describe_scan("files", source, &columns.join(", "), "", None))
        }
        Node::Tasks(tasks) => Ok(format!("{} partitions computed by other tasks\n", tasks.len())),
        Node::Query(plan) => bounds::planning(|| {
            let by_itself = |frame: &Frame| is_volatile(frame).then(Vec::new);
            let CutPlan { slots, rest, cut } = optimise(plan.clone(), &by_itself, &Now::read())?;
            let mut text = match cut {
                Cut::ScanOnly => "the scan alone\n".to_owned(),
                Cut::PartitionWise => format!("one task a partition:\n{}\n", indent(&rest.display_indent().to_string())),
                Cut::Whole => format!("one task:\n{}\n", indent(&rest.display_indent().to_string())),
            };
            for slot in &slots {
                text.push_str(&describe_slot(slot));
            }
            Ok(text)
        }),
    }
}

fn describe_slot(slot: &Slot) -> String {
    match &slot.rows {
        Rows::Tasks(tasks) if tasks.is_empty() => format!("{}: computed by tasks of its own, once\n", slot.table),
        Rows::Tasks(tasks) => format!("{}: {} partitions computed by other tasks\n", slot.table, tasks.len()),
        Rows::Scan { frame, filters, limit, .. } => {
            let Node::Files(source) = &frame.0.node else { return String::new() };
            let columns: Vec<&str> = slot.schema.fields().iter().map(|field| field.name().as_str()).collect();
            let filters: Vec<String> = filters.iter().map(ToString::to_string).collect();
            describe_scan(&slot.table, source, &columns.join(", "), &filters.join(" AND "), *limit)
        }
    }
}

fn describe_scan(table: &str, source: &FileSource, columns: &str, filters: &str, limit: Option<usize>) -> String {
    let n_files = source.slices.iter().map(|slice| &slice.path).collect::<std::collections::BTreeSet<_>>().len();
    let (n, format) = (source.slices.len(), source.format);
    let mut text = format!("scan {table}: {n} partitions of {n_files} {format} files\n  columns: {columns}\n");
    if !filters.is_empty() {
        text.push_str(&format!("  where: {filters}\n"));
    }
    if let Some(limit) = limit {
        text.push_str(&format!("  at most {limit} rows a partition\n"));
    }
    text
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
