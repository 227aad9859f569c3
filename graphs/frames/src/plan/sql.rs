//! SQL text: which tables it names, and the plan it stands for over given tables.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::{DFSchema, TableReference};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::parser::{DFParser, DFParserBuilder, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{self, Visit, Visitor, visit_relations};

use rustc_hash::FxBuildHasher;

use super::balance::balance;
use super::bounds::{self, Sizes};
use super::dialect::Counting;
use super::tables::FrameTable;
use super::{session, syntax};
use crate::error::SqlError;
use crate::frame::Frame;

/// Most tables that one query may name, with table expressions in their place.
const MAX_TABLES: u64 = 500;

fn plain_error(message: &str) -> SqlError {
    SqlError { message: message.to_owned(), line: None, column: None }
}

/// The one statement in `text`, which must be a query.
fn parse(text: &str) -> std::result::Result<Statement, SqlError> {
    bounds::check_text(text)?;
    let parsed = DFParser::parse_sql_with_dialect(text, &Counting::of(text));
    let mut statements = parsed.map_err(|error| placed_at_end(error.into(), text))?;
    let Some(mut statement) = statements.pop_front() else { return Err(plain_error("no query")) };
    if !statements.is_empty() {
        return Err(plain_error("one query expected, there are several statements"));
    }
    match &mut statement {
        Statement::Statement(inner) if matches!(inner.as_ref(), ast::Statement::Query(_)) => {
            balance(inner.as_mut());
            check_tables(inner)?;
            Ok(statement)
        }
        Statement::Statement(_)
        | Statement::CreateExternalTable(_)
        | Statement::CopyTo(_)
        | Statement::Explain(_)
        | Statement::Reset(_) => Err(plain_error("a query (SELECT, WITH, VALUES) expected")),
    }
}

/// Each table joined to the others makes planning longer by what all have in common, and table expressions that name one
/// another twice double at each step.
fn check_tables(query: &ast::Statement) -> std::result::Result<(), SqlError> {
    let mut counter = TableCounter::default();
    let _: ControlFlow<()> = query.visit(&mut counter);
    if counter.n_tables > MAX_TABLES {
        let what = "with all table expressions in their place the query names";
        return Err(plain_error(&format!("the query is too complex: {what} more than {MAX_TABLES} tables")));
    }
    Ok(())
}

/// Counts the tables of a query, those of table expressions as often as these are named.
#[derive(Default)]
struct TableCounter {
    n_tables: u64,
    /// Tables that one mention of a table expression costs.
    expressions: HashMap<String, u64, FxBuildHasher>,
    /// The queries of table expressions by their addresses: name, and how many tables there were before.
    named: HashMap<usize, (String, u64), FxBuildHasher>,
}

impl Visitor for TableCounter {
    type Break = ();

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
        if let Some((_, n_before)) = self.named.get_mut(&std::ptr::from_ref(query).addr()) {
            *n_before = self.n_tables;
        }
        for expression in query.with.iter().flat_map(|with| &with.cte_tables) {
            let address = std::ptr::from_ref::<ast::Query>(&expression.query).addr();
            self.named.insert(address, (normalise(&expression.alias.name), 0));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
        if let Some((name, n_before)) = self.named.remove(&std::ptr::from_ref(query).addr()) {
            self.expressions.insert(name, (self.n_tables - n_before).max(1));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ast::ObjectName) -> ControlFlow<()> {
        let name = name.0.last().and_then(ast::ObjectNamePart::as_ident).map(normalise).unwrap_or_default();
        self.n_tables = self.n_tables.saturating_add(self.expressions.get(&name).copied().unwrap_or(1));
        ControlFlow::Continue(())
    }
}

/// A condition in SQL over the columns of `schema`.
pub(crate) fn plan_condition(state: &SessionState, text: &str, schema: &DFSchema) -> std::result::Result<Expr, SqlError> {
    bounds::check_text(text)?;
    let dialect = Counting::of(text);
    let parser = DFParserBuilder::new(text).with_dialect(&dialect).build();
    let parsed = parser.and_then(|mut parser| parser.parse_into_expr());
    let mut condition = parsed.map_err(|error| placed_at_end(error.into(), text))?;
    balance(&mut condition.expr);
    let expr = state.create_logical_expr_from_sql_expr(condition, schema)?;
    bounds::check_expr(&expr)?;
    Ok(session::analyse_condition(state, expr, schema)?)
}

/// The parser gives no place for a text that ends too early, though there is only one it could be.
fn placed_at_end(error: SqlError, text: &str) -> SqlError {
    if error.line.is_some() || !error.message.ends_with("found: EOF") {
        return error;
    }
    let text = text.trim_end();
    let last_line = text.rsplit('\n').next().unwrap_or_default();
    let (line, column) = (text.matches('\n').count() + 1, last_line.chars().count() + 1);
    SqlError { line: u32::try_from(line).ok(), column: u32::try_from(column).ok(), ..error }
}

/// See [`crate::sql_tables`].
#[expect(clippy::type_complexity, reason = "the public function of the same type says why")]
pub(crate) fn tables(text: &str) -> std::result::Result<Vec<(String, Option<(u32, u32)>)>, SqlError> {
    bounds::deep(|| tables_of(text))
}

#[expect(clippy::type_complexity, reason = "the public function of the same type says why")]
fn tables_of(text: &str) -> std::result::Result<Vec<(String, Option<(u32, u32)>)>, SqlError> {
    let statement = parse(text)?;
    let (named, _) = resolve_table_references(&statement, true)?;
    let functions = syntax::table_functions(&statement);
    let named = named.iter().map(|table| table.table().to_owned()).filter(|name| !functions.contains(name));
    let named: BTreeSet<String> = named.collect();
    let mut found: Vec<(String, Option<(u32, u32)>)> = Vec::new();
    if let Statement::Statement(inner) = &statement {
        let _: ControlFlow<()> = visit_relations(inner.as_ref(), |name| {
            if let Some(ident) = name.0.last().and_then(ast::ObjectNamePart::as_ident) {
                let table = normalise(ident);
                if named.contains(&table) && !found.iter().any(|(known, _)| *known == table) {
                    found.push((table, position(ident)));
                }
            }
            ControlFlow::Continue(())
        });
    }
    // What the visitor does not reach (a dialect's corner) is still named, without a place.
    for table in named {
        if !found.iter().any(|(known, _)| *known == table) {
            found.push((table, None));
        }
    }
    Ok(found)
}

fn normalise(ident: &ast::Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_ascii_lowercase() }
}

fn position(ident: &ast::Ident) -> Option<(u32, u32)> {
    let start = ident.span.start;
    let (line, column) = (u32::try_from(start.line).ok()?, u32::try_from(start.column).ok()?);
    (line > 0).then_some((line, column))
}

/// The plan of the query `text` over `tables`, checked and typed but not optimised.
pub(crate) fn plan_query(text: &str, tables: &[(String, Frame)]) -> std::result::Result<LogicalPlan, SqlError> {
    bounds::planning(|| plan_frame(text, tables))
}

fn plan_frame(text: &str, tables: &[(String, Frame)]) -> std::result::Result<LogicalPlan, SqlError> {
    if let Some((text, tables)) = with_volatile_apart(text, tables)? {
        return plan_frame(&text, &tables);
    }
    let tables = tables.iter().map(|(name, frame)| {
        let table: Arc<dyn TableProvider> = Arc::new(FrameTable(frame.clone()));
        (name.clone(), table)
    });
    let (state, plan) = plan_over(text, tables.collect())?;
    // With types coerced, so that the columns are what rows will have, and mistakes in types are found here.
    session::analyse(&state, plan).and_then(with_own_names).map_err(SqlError::from)
}

/// `plan` with a name of its own for every column: of two called `k` the second is `k_1`. A frame is a table, and in a
/// table a name is one column.
fn with_own_names(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut taken: BTreeSet<String> = plan.schema().fields().iter().map(|field| field.name().clone()).collect();
    if taken.len() == plan.schema().fields().len() {
        return Ok(plan);
    }
    let mut seen = BTreeSet::new();
    let mut columns = Vec::new();
    for (column, field) in plan.schema().columns().into_iter().zip(plan.schema().fields()) {
        let column = Expr::Column(column);
        if seen.insert(field.name().clone()) {
            columns.push(column);
            continue;
        }
        let free = (1..).map(|number| format!("{}_{number}", field.name())).find(|name| taken.insert(name.clone()));
        columns.push(column.alias(free.unwrap_or_default()));
    }
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// A query's text and its tables.
type TextOver = (String, Vec<(String, Frame)>);

/// `WITH` parts that have random numbers in them become frames of their own, so that every place that names them sees the
/// same rows. The text that remains, and the frames.
fn with_volatile_apart(text: &str, tables: &[(String, Frame)]) -> std::result::Result<Option<TextOver>, SqlError> {
    let Statement::Statement(mut statement) = parse(text)? else { return Ok(None) };
    let ast::Statement::Query(query) = statement.as_mut() else { return Ok(None) };
    let state = session::fresh();
    let Some(with) = &mut query.with else { return Ok(None) };
    if with.recursive || !with.cte_tables.iter().any(|cte| syntax::is_volatile(&cte.query, &state)) {
        return Ok(None);
    }
    let mut tables = tables.to_vec();
    let mut kept: Vec<ast::Cte> = Vec::new();
    for cte in std::mem::take(&mut with.cte_tables) {
        if !syntax::is_volatile(&cte.query, &state) {
            kept.push(cte);
            continue;
        }
        let before = kept.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let before = if before.is_empty() { String::new() } else { format!("WITH {before} ") };
        let frame = Frame::sql(&format!("{before}SELECT * FROM ({}) AS {}", cte.query, cte.alias), &tables);
        let frame = frame.map_err(|error| plain_error(&error.to_string()))?;
        let name = normalise(&cte.alias.name);
        tables.retain(|(table, _)| *table != name);
        tables.push((name, frame));
    }
    if kept.is_empty() {
        query.with = None;
    } else {
        with.cte_tables = kept;
    }
    Ok(Some((statement.to_string(), tables)))
}

/// The plan of `text` over any tables, and the session it was made in. On a deep stack.
pub(crate) fn plan_over(
    text: &str,
    tables: Vec<(String, Arc<dyn TableProvider>)>,
) -> std::result::Result<(SessionState, LogicalPlan), SqlError> {
    let mut statement = parse(text)?;
    let state = session::fresh();
    let columns: Vec<(String, Vec<String>)> = tables.iter().map(|(name, table)| (name.clone(), column_names(table))).collect();
    let columns_of = |name: &str| {
        let named = columns.iter().find(|(table, _)| table == name);
        let named = named.or_else(|| columns.iter().find(|(table, _)| table.eq_ignore_ascii_case(name)));
        named.map(|(_, columns)| columns.clone())
    };
    syntax::simplify(&mut statement, &columns_of).map_err(SqlError::from)?;
    register(&state, tables).map_err(SqlError::from)?;
    let planned = session::at_once(state.statement_to_plan(statement.clone()));
    let plan = planned.or_else(|error| {
        // A name that is not there as it is written may be there in another case.
        let all: BTreeSet<String> = columns.iter().flat_map(|(_, columns)| columns.iter().cloned()).collect();
        let all: Vec<String> = all.into_iter().collect();
        if syntax::ignore_case(&mut statement, &all) {
            session::at_once(state.statement_to_plan(statement)).map_err(|_| error)
        } else {
            Err(error)
        }
    });
    let plan = plan.map_err(SqlError::from)?;
    // Before anything walks through all of it.
    Sizes::default().check(&plan).map_err(SqlError::from)?;
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    options.verify_plan(&plan).map_err(SqlError::from)?;
    Ok((state, plan))
}

fn column_names(table: &Arc<dyn TableProvider>) -> Vec<String> {
    table.schema().fields().iter().map(|field| field.name().clone()).collect()
}

/// Make tables known by their names, and by their lower-case names where no other table has that name.
fn register(state: &SessionState, tables: Vec<(String, Arc<dyn TableProvider>)>) -> Result<()> {
    let schema = state.schema_for_ref(TableReference::bare("any"))?;
    for (name, table) in &tables {
        if schema.register_table(name.clone(), Arc::clone(table))?.is_some() {
            return Err(DataFusionError::Plan(format!("two tables are called \"{name}\"")));
        }
    }
    for (name, table) in tables {
        let lower = name.to_ascii_lowercase();
        if !schema.table_exist(&lower) {
            schema.register_table(lower, table)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_named_with_their_places() {
        let sql = "WITH late AS (SELECT * FROM flights)\nSELECT * FROM late JOIN \"Air Lines\" a ON true, Flights f2\nWHERE 1 IN (SELECT x FROM other)";
        let names = tables(sql).unwrap();
        assert_eq!(
            names,
            [("flights".to_owned(), Some((1, 29))), ("Air Lines".to_owned(), Some((2, 25))), ("other".to_owned(), Some((3, 27))),]
        );
        assert!(tables("SELECT 1").unwrap().is_empty());
    }

    #[test]
    fn syntax_errors_have_places() {
        for (sql, place) in [("SELECT * FORM t", (1, 10)), ("SELECT a,\n  FROM t WHERE", (2, 15)), ("SELECT 'open", (1, 8))] {
            let error = tables(sql).unwrap_err();
            assert_eq!(error.line.zip(error.column), Some(place), "{sql}: {error}");
            assert!(!error.message.contains("Line:"), "{error}");
        }
    }

    #[test]
    fn only_queries_are_accepted() {
        for sql in [
            "",
            "SELECT 1; SELECT 2",
            "DROP TABLE t",
            "COPY t TO 'x.csv'",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "INSERT INTO t VALUES (1)",
            "EXPLAIN SELECT 1",
            "SET a = 1",
        ] {
            assert!(plan_query(sql, &[]).is_err(), "{sql}");
        }
    }
}
