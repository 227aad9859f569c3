//! Plans that arrive: what queries come to goes round, what an attacker would send is refused.

use std::path::Path;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{LogicalPlanBuilder, col, lit};
use datafusion::physical_plan::collect;
use datafusion_proto::bytes::{Serializeable, logical_plan_to_bytes};
use datafusion_proto::protobuf::logical_plan_node::LogicalPlanType;
use datafusion_proto::protobuf::{
    BinaryExprNode, CopyToNode, CreateCatalogNode, CreateExternalTableNode, EmptyRelationNode, EmptyTableScanNode, ExplainNode,
    LogicalExtensionNode, PrepareNode, RepartitionNode, SelectionNode, UnionNode, ValuesNode,
};
use rask_graphs::{Registry, TaskContext as KernelContext, Value};
use serde_json::json;

use super::*;
use crate::operators;
use crate::partition::Partition;
use crate::plan::session;

/// One table of three rows, `t(a)`.
fn partition() -> Partition {
    let batch = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1, 2, 3])) as _)]).unwrap();
    Partition::try_new(batch.schema(), vec![batch]).unwrap()
}

/// Run `frame.query` with a plan over one table, as a worker would for whoever sent it.
fn sent(plan: &[u8]) -> Result<Value, String> {
    let mut registry = Registry::new();
    operators::register(&mut registry);
    let args = json!({ "plan": BASE64.encode(plan), "n_inputs": [1] }).to_string();
    let kernel = registry.prepare("frame.query", 1, &args).map_err(|error| error.to_string())?;
    kernel.run(&KernelContext::detached("q"), &[Value::new(partition())]).map_err(|error| error.0)
}

fn node(kind: LogicalPlanType) -> LogicalPlanNode {
    LogicalPlanNode { logical_plan_type: Some(kind) }
}

fn nothing() -> Box<LogicalPlanNode> {
    Box::new(node(LogicalPlanType::EmptyRelation(EmptyRelationNode { produce_one_row: true })))
}

/// A session as DataFusion makes it, in which files can be tables: what an attacker plans with.
fn theirs(dir: &Path) -> SessionContext {
    std::fs::write(dir.join("secret.csv"), "a\n42\n").unwrap();
    let context = SessionContext::new();
    let location = dir.join("secret.csv").display().to_string();
    let created =
        format!("CREATE EXTERNAL TABLE secret (a BIGINT) STORED AS CSV LOCATION '{location}' OPTIONS ('has_header' 'true')");
    let inserted = format!("CREATE EXTERNAL TABLE out (a BIGINT) STORED AS CSV LOCATION '{}/'", dir.join("out").display());
    std::fs::create_dir(dir.join("out")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for statement in [created, inserted] {
        runtime.block_on(async { context.sql(&statement).await.unwrap().collect().await.unwrap() });
    }
    context
}

fn their_plan(context: &SessionContext, sql: &str) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let plan = runtime.block_on(context.state().create_logical_plan(sql)).unwrap();
    logical_plan_to_bytes(&plan).unwrap().to_vec()
}

#[test]
fn plans_over_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let context = theirs(dir.path());
    for (sql, word) in [
        ("SELECT * FROM secret", "a scan of files"),
        ("SELECT count(*) FROM secret s JOIN secret t ON s.a = t.a", "a scan of files"),
        ("SELECT 1 + (SELECT max(a) FROM secret)", "a scan of files"),
        ("INSERT INTO out SELECT 1", "a change of data"),
        ("INSERT INTO out SELECT * FROM secret", "a change of data"),
        ("EXPLAIN ANALYZE SELECT * FROM secret", "EXPLAIN"),
        ("EXPLAIN SELECT 1", "EXPLAIN"),
        ("CREATE EXTERNAL TABLE u (a BIGINT) STORED AS CSV LOCATION '/etc/passwd'", "a definition"),
        ("CREATE VIEW v AS SELECT 1", "a definition"),
        ("CREATE SCHEMA s", "a definition"),
        ("PREPARE p(BIGINT) AS SELECT $1", "a prepared statement"),
    ] {
        let error = sent(&their_plan(&context, sql)).unwrap_err();
        assert!(error.contains(word), "{sql}: {error}");
    }
    assert_eq!(std::fs::read_dir(dir.path().join("out")).unwrap().count(), 0);
}

#[test]
fn every_kind_of_step_that_is_not_part_of_a_query_is_refused() {
    let wrong = [
        LogicalPlanType::CopyTo(Box::new(CopyToNode {
            input: Some(nothing()),
            output_url: "/tmp/x".into(),
            ..Default::default()
        })),
        LogicalPlanType::Prepare(Box::new(PrepareNode { input: Some(nothing()), ..Default::default() })),
        LogicalPlanType::Explain(Box::new(ExplainNode { input: Some(nothing()), ..Default::default() })),
        LogicalPlanType::Extension(LogicalExtensionNode { node: vec![0; 4], inputs: vec![*nothing()] }),
        LogicalPlanType::Extension(LogicalExtensionNode { node: vec![0; 4], inputs: vec![] }),
        LogicalPlanType::CreateCatalog(CreateCatalogNode::default()),
        LogicalPlanType::CreateExternalTable(CreateExternalTableNode { location: "/etc/passwd".into(), ..Default::default() }),
        LogicalPlanType::Repartition(Box::new(RepartitionNode { input: Some(nothing()), ..Default::default() })),
        LogicalPlanType::EmptyTableScan(EmptyTableScanNode::default()),
        LogicalPlanType::Values(ValuesNode { n_cols: 0, values_list: vec![LogicalExprNode::default()] }),
        LogicalPlanType::Selection(Box::new(SelectionNode { input: None, expr: None })),
    ];
    for kind in wrong {
        let text = format!("{kind:?}");
        let error = sent(&node(kind).encode_to_vec()).unwrap_err();
        assert!(error.contains("must not contain"), "{text}: {error}");
    }
    assert!(sent(b"\x00\x01").unwrap_err().contains("not a plan"));
    assert!(sent(b"").unwrap_err().contains("a step of no kind"));
}

#[test]
fn a_table_that_no_input_holds_is_refused() {
    let codec = SlotCodec::default();
    for slot in [1, u32::MAX] {
        let table: Arc<dyn TableProvider> = Arc::new(SlotTable { schema: Arc::clone(partition().schema()), slot });
        let plan = LogicalPlanBuilder::scan("t", provider_as_source(table), None).unwrap().build().unwrap();
        let bytes = LogicalPlanNode::try_from_logical_plan(&plan, &codec).unwrap().encode_to_vec();
        assert!(sent(&bytes).unwrap_err().contains("no input holds it"), "{slot}");
    }
    // And what another way of decoding would let in.
    let batch = partition().batches()[0].clone();
    let table = |batch: &RecordBatch| -> Arc<dyn TableProvider> {
        Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch.clone()]]).unwrap())
    };
    let (given, other) = (table(&batch), table(&batch));
    let plan = LogicalPlanBuilder::scan("t", provider_as_source(Arc::clone(&other)), None).unwrap();
    let plan = plan.filter(col("a").gt(lit(1))).unwrap().build().unwrap();
    assert!(admit::check_tables(&plan, &[Arc::clone(&other)]).is_ok());
    assert!(admit::check_tables(&plan, &[given]).unwrap_err().to_string().contains("which no input holds"));
}

/// Even a plan that came through would find no file: there is no store that it could be in.
#[test]
fn where_plans_run_there_are_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let context = theirs(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let plan = runtime.block_on(context.state().create_logical_plan("SELECT * FROM secret")).unwrap();
    for state in [session::fresh(), session::within(Some(1 << 20)).unwrap()] {
        let read = runtime.block_on(async {
            let physical = state.create_physical_plan(&plan).await?;
            collect(physical, state.task_ctx()).await
        });
        assert!(read.unwrap_err().to_string().contains("No suitable object store"));
        assert!(!state.runtime_env().disk_manager.tmp_files_enabled());
    }
}

#[test]
fn queries_go_round() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("l", DataType::new_list(DataType::Int64, true), true),
    ]));
    let sql = [
        "SELECT a + 1, upper(s), CASE WHEN a > 1 THEN 'x' ELSE s END FROM t WHERE a BETWEEN 1 AND 3 OR s LIKE 'a%'",
        "SELECT s, count(*), sum(DISTINCT a) FILTER (WHERE a > 0) FROM t GROUP BY ROLLUP (s) HAVING count(*) > 1 ORDER BY s LIMIT 3",
        "SELECT a, row_number() OVER (PARTITION BY s ORDER BY a) FROM t",
        "SELECT x.a FROM t x LEFT JOIN t y ON x.a = y.a AND x.s < y.s WHERE x.a NOT IN (SELECT a FROM t WHERE s = 'q')",
        "SELECT DISTINCT ON (s) s, a FROM t ORDER BY s, a",
        "SELECT a FROM t UNION ALL SELECT a FROM t UNION SELECT 5",
        "SELECT unnest(l), [1, 2, 3] AS c, {'k': 1} AS d FROM t",
        "SELECT * FROM t CROSS JOIN (VALUES (1), (2)) v(x) WHERE a > (SELECT avg(a) FROM t)",
        "SELECT CAST(a AS VARCHAR), TRY_CAST(s AS INT), s IS NULL, NOT (a = 1) FROM t WHERE s IN ('a', 'b', 'c', 'd', 'e')",
    ];
    for sql in sql {
        let table: Arc<dyn TableProvider> = Arc::new(SlotTable { schema: Arc::clone(&schema), slot: 0 });
        let (state, plan) = crate::plan::sql::plan_over(sql, vec![("t".to_owned(), Arc::clone(&table))]).unwrap();
        let plan = state.optimize(&plan).unwrap();
        let texts = encode_plan(&plan).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let back = decode_plan(&texts, vec![table], &state.task_ctx()).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(back.schema().field_names(), plan.schema().field_names(), "{sql}");
    }
}

/// Fifteen table expressions on top of each other are more than one message holds.
#[test]
fn deep_plans_go_round_in_pieces() {
    let schema = Arc::clone(partition().schema());
    let steps: String = (1..60).map(|n| format!(", w{n} AS (SELECT a, count(*) AS c{n} FROM w{} GROUP BY a)", n - 1)).collect();
    let deep = format!("WITH w0 AS (SELECT a FROM t){steps} SELECT * FROM w59 WHERE a > 1");
    let joins: String = (1..60).map(|n| format!(" JOIN t x{n} ON x{n}.a = x{}.a", n - 1)).collect();
    for sql in [deep, format!("SELECT x0.a FROM t x0{joins}")] {
        crate::plan::bounds::deep(|| {
            let table: Arc<dyn TableProvider> = Arc::new(SlotTable { schema: Arc::clone(&schema), slot: 0 });
            let (state, plan) = crate::plan::sql::plan_over(&sql, vec![("t".to_owned(), Arc::clone(&table))]).unwrap();
            let plan = state.optimize(&plan).unwrap();
            let texts = encode_plan(&plan).unwrap();
            assert!(texts.len() > 1);
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let back = decode_plan(&texts, vec![table], &state.task_ctx()).unwrap();
            assert_eq!(back.display_indent().to_string(), plan.display_indent().to_string());
        });
    }
}

/// Each is twice the one below it.
#[test]
fn pieces_do_not_double_without_bound() {
    let piece = |number: u32| {
        let extension = LogicalExtensionNode { node: number.to_le_bytes().to_vec(), inputs: vec![] };
        node(LogicalPlanType::Extension(extension))
    };
    let mut texts = vec![BASE64.encode(&nothing().encode_to_vec())];
    for number in 0..40 {
        let both = UnionNode { inputs: vec![piece(number), piece(number)] };
        texts.push(BASE64.encode(&node(LogicalPlanType::Union(both)).encode_to_vec()));
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let error = decode_plan(&texts, Vec::new(), &session::fresh().task_ctx()).unwrap_err();
    assert!(error.to_string().contains("steps"), "{error}");
    assert!(decode_plan(&[], Vec::new(), &session::fresh().task_ctx()).is_err());
}

#[test]
fn conditions_of_scans_are_about_one_row() {
    let ctx = session::fresh().task_ctx();
    let subquery = Expr::ScalarSubquery(datafusion::logical_expr::Subquery {
        subquery: Arc::new(LogicalPlanBuilder::empty(true).build().unwrap()),
        outer_ref_columns: Vec::new(),
        spans: Default::default(),
    });
    let sum = datafusion::functions_aggregate::expr_fn::sum(col("a"));
    let placeholder = datafusion::logical_expr::expr::Placeholder::new_with_field("$1".to_owned(), None);
    for wrong in [subquery, sum.gt(lit(1)), Expr::Placeholder(placeholder)] {
        let bytes = wrong.to_bytes().unwrap();
        assert!(decode_expr(&BASE64.encode(&bytes), &ctx).unwrap_err().to_string().contains("must not contain"), "{wrong}");
    }
    let fine = col("a").gt(lit(1)).and(col("s").like(lit("a%")));
    assert_eq!(decode_expr(&encode_expr(&fine).unwrap(), &ctx).unwrap(), fine);
}

/// A chain is one message, as long as somebody likes, and would be a tree as deep.
#[test]
fn what_is_too_deep_or_too_much_is_refused_before_it_is_made() {
    let ctx = session::fresh().task_ctx();
    let one = LogicalExprNode::decode(lit(1_i64).to_bytes().unwrap().as_ref()).unwrap();
    let yes = LogicalExprNode::decode(lit(true).to_bytes().unwrap().as_ref()).unwrap();
    let chain = |op: &str, operand: &LogicalExprNode, n: usize| {
        let kind = BinaryExprNode { op: op.to_owned(), operands: vec![operand.clone(); n] };
        let node = LogicalExprNode { expr_type: Some(datafusion_proto::protobuf::logical_expr_node::ExprType::BinaryExpr(kind)) };
        BASE64.encode(&node.encode_to_vec())
    };
    assert!(decode_expr(&chain("Plus", &one, 100_000), &ctx).unwrap_err().to_string().contains("deep"));
    assert!(decode_expr(&chain("And", &yes, 300_000), &ctx).unwrap_err().to_string().contains("terms"));
    assert!(decode_expr(&chain("Plus", &one, 1), &ctx).is_err() && decode_expr(&chain("And", &one, 0), &ctx).is_err());
    // This one is fine: it is as deep as its logarithm.
    assert!(decode_expr(&chain("And", &yes, 50_000), &ctx).is_ok());
    let unions = UnionNode { inputs: vec![*nothing(); 3_000] };
    let error = sent(&node(LogicalPlanType::Union(unions)).encode_to_vec()).unwrap_err();
    assert!(error.contains("deep"), "{error}");
    let mut deep = *nothing();
    for _ in 0..60 {
        deep =
            node(LogicalPlanType::Distinct(Box::new(datafusion_proto::protobuf::DistinctNode { input: Some(Box::new(deep)) })));
    }
    assert!(sent(&deep.encode_to_vec()).unwrap_err().contains("nested too deeply"));
    // Neither does the sum of what tables take overflow.
    let mut registry = Registry::new();
    operators::register(&mut registry);
    let args = json!({ "plan": BASE64.encode(&nothing().encode_to_vec()), "n_inputs": [usize::MAX, 2] }).to_string();
    let kernel = registry.prepare("frame.query", 1, &args).unwrap();
    let error = kernel.run(&KernelContext::detached("q"), &[Value::new(partition())]).unwrap_err();
    assert!(error.0.contains("partitions, got 1"), "{error}");
}

/// A null of such a type takes all the room at once.
#[test]
fn types_that_take_absurd_room_are_refused() {
    let ctx = session::fresh().task_ctx();
    let wide = DataType::new_fixed_size_list(DataType::Int64, i32::MAX, true);
    let cast = datafusion::logical_expr::cast(lit(datafusion::common::ScalarValue::Null), wide.clone()).is_null();
    let error = decode_expr(&BASE64.encode(&cast.to_bytes().unwrap()), &ctx).unwrap_err().to_string();
    assert!(error.contains("at most"), "{error}");
    let nested = DataType::new_fixed_size_list(DataType::new_fixed_size_list(DataType::Int8, 50_000, true), 50_000, true);
    assert!(crate::types::check_width(&nested).is_err() && crate::types::check_width(&DataType::FixedSizeBinary(16)).is_ok());
}

/// A list that says it has more rows than there are atoms, in a few bytes.
#[test]
fn constants_do_not_lie_about_their_lengths() {
    use datafusion_proto_common::scalar_value::Value as Kind;
    let ctx = session::fresh().task_ctx();
    let nulls: arrow::array::ArrayRef = Arc::new(arrow::array::NullArray::new((1 << 24) + 1));
    let offsets = arrow::buffer::OffsetBuffer::from_lengths([nulls.len()]);
    let list = arrow::array::ListArray::new(Arc::new(Field::new("item", DataType::Null, true)), offsets, nulls, None);
    let value = Expr::Literal(datafusion::common::ScalarValue::List(Arc::new(list)), None).is_not_null();
    let bytes = value.to_bytes().unwrap();
    assert!(decode_expr(&BASE64.encode(&bytes), &ctx).unwrap_err().to_string().contains("so many rows"));
    let short = datafusion::common::ScalarValue::List(datafusion::common::ScalarValue::new_list(
        &[datafusion::common::ScalarValue::Int64(Some(1))],
        &DataType::Int64,
        true,
    ));
    let mut literal: datafusion_proto::protobuf::ScalarValue = (&short).try_into().unwrap();
    if let Some(Kind::ListValue(nested)) = &mut literal.value {
        nested.arrow_data.truncate(1);
    }
    let node = LogicalExprNode { expr_type: Some(datafusion_proto::protobuf::logical_expr_node::ExprType::Literal(literal)) };
    assert!(decode_expr(&BASE64.encode(&node.encode_to_vec()), &ctx).unwrap_err().to_string().contains("cut short"));
}
