//! SQL text: which tables it names, and the plan it stands for over given tables.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{self, visit_relations};

use super::session;
use super::tables::FrameTable;
use crate::error::SqlError;
use crate::frame::Frame;

fn plain_error(message: &str) -> SqlError {
    SqlError { message: message.to_owned(), line: None, column: None }
}

/// The one statement in `text`, which must be a query.
fn parse(text: &str) -> std::result::Result<Statement, SqlError> {
    let mut statements = DFParser::parse_sql(text).map_err(|error| placed_at_end(error.into(), text))?;
    let Some(statement) = statements.pop_front() else { return Err(plain_error("no query")) };
    if !statements.is_empty() {
        return Err(plain_error("one query expected, there are several statements"));
    }
    match &statement {
        Statement::Statement(inner) if matches!(inner.as_ref(), ast::Statement::Query(_)) => Ok(statement),
        Statement::Statement(_)
        | Statement::CreateExternalTable(_)
        | Statement::CopyTo(_)
        | Statement::Explain(_)
        | Statement::Reset(_) => Err(plain_error("a query (SELECT, WITH, VALUES) expected")),
    }
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
    let statement = parse(text)?;
    let (named, _) = resolve_table_references(&statement, true)?;
    let named: BTreeSet<String> = named.iter().map(|table| table.table().to_owned()).collect();
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

/// The plan of the query `text` over `tables`, checked but not optimised.
pub(crate) fn plan_query(text: &str, tables: &[(String, Frame)]) -> std::result::Result<LogicalPlan, SqlError> {
    let tables = tables.iter().map(|(name, frame)| {
        let table: Arc<dyn TableProvider> = Arc::new(FrameTable(frame.clone()));
        (name.clone(), table)
    });
    let (_, plan) = plan_over(text, tables.collect())?;
    Ok(plan)
}

/// The plan of `text` over any tables, and the session it was made in.
pub(crate) fn plan_over(
    text: &str,
    tables: Vec<(String, Arc<dyn TableProvider>)>,
) -> std::result::Result<(SessionState, LogicalPlan), SqlError> {
    let statement = parse(text)?;
    let state = session::fresh();
    register(&state, tables).map_err(SqlError::from)?;
    let plan = session::at_once(state.statement_to_plan(statement)).map_err(SqlError::from)?;
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    options.verify_plan(&plan).map_err(SqlError::from)?;
    Ok((state, plan))
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
