//! What is said in SQL in a way that the planner does not know, said in a way that it does: before planning, on the text's
//! syntax tree. `FETCH FIRST`, `mod` and `sign`, `IN` of several columns, one column selected twice, and the merged columns of
//! `RIGHT` and `FULL JOIN .. USING`, which have a value on both sides.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::Volatility;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, Ident, JoinConstraint, JoinOperator, LimitClause, ObjectName, ObjectNamePart, OrderByKind, Query,
    Select, SelectItem, SetExpr, TableFactor, TableWithJoins, VisitMut, VisitorMut,
};

/// Longest text that takes the place of a comparison of rows.
const MAX_REWRITTEN: usize = 1 << 16;

/// The columns of a table by its name, where that is known.
pub(super) type ColumnsOf<'a> = &'a dyn Fn(&str) -> Option<Vec<String>>;

/// Rewrite `statement` in place.
pub(super) fn simplify(statement: &mut Statement, columns_of: ColumnsOf<'_>) -> Result<()> {
    let Statement::Statement(inner) = statement else { return Ok(()) };
    let mut rewriter = Rewriter { columns_of };
    match VisitMut::visit(inner.as_mut(), &mut rewriter) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(message) => Err(DataFusionError::NotImplemented(message)),
    }
}

/// Quote names that are found only when their case is ignored, where one column has that name.
///
/// Returns whether anything was changed.
pub(super) fn ignore_case(statement: &mut Statement, columns: &[String]) -> bool {
    let Statement::Statement(inner) = statement else { return false };
    let mut aliases = Aliases::default();
    let _ = VisitMut::visit(inner.as_mut(), &mut aliases);
    let mut quoter = Quoter { columns, aliases: &aliases.names, is_changed: false };
    let _ = VisitMut::visit(inner.as_mut(), &mut quoter);
    quoter.is_changed
}

/// The table functions that are called in `statement` and not named as tables anywhere, in lower case.
pub(super) fn table_functions(statement: &Statement) -> Vec<String> {
    let mut found = Calls::default();
    if let Statement::Statement(inner) = statement {
        let _ = ast::Visit::visit(inner.as_ref(), &mut found);
    }
    found.functions.retain(|name| !found.tables.contains(name));
    found.functions
}

#[derive(Default)]
struct Calls {
    functions: Vec<String>,
    tables: Vec<String>,
}

impl ast::Visitor for Calls {
    type Break = ();

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args, .. } = table
            && let Some(ident) = last_ident(name)
        {
            if args.is_some() { self.functions.push(plain(&ident)) } else { self.tables.push(plain(&ident)) }
        }
        ControlFlow::Continue(())
    }
}

/// Whether a query calls a function that has another value each time.
pub(super) fn is_volatile(query: &Query, state: &SessionState) -> bool {
    let found = ast::visit_expressions(query, |expr| {
        let Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
        let function = state.scalar_functions().get(&call.name.to_string().to_ascii_lowercase());
        let is_volatile = function.is_some_and(|function| function.signature().volatility == Volatility::Volatile);
        if is_volatile { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found.is_break()
}

struct Rewriter<'a> {
    columns_of: ColumnsOf<'a>,
}

impl VisitorMut for Rewriter<'_> {
    type Break = String;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<String> {
        fetch_as_limit(query);
        if let SetExpr::Select(select) = query.body.as_mut() {
            match merged_columns(select, self.columns_of) {
                Ok(merged) if !merged.is_empty() => use_merged(select, query.order_by.as_mut(), &merged),
                Ok(_) => {}
                Err(message) => return ControlFlow::Break(message),
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<String> {
        name_repeated(&mut select.projection);
        if let Some(selection) = &mut select.selection {
            rows_in(selection, true);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        distinct_from(expr);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        regroup(expr);
        remainder(expr);
        rows_in(expr, false);
        ControlFlow::Continue(())
    }
}

fn fetch_as_limit(query: &mut Query) {
    let Some(fetch) = &query.fetch else { return };
    if fetch.with_ties || fetch.percent {
        return;
    }
    let quantity = fetch.quantity.clone().unwrap_or_else(|| number(1));
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => *limit = Some(quantity),
        None => query.limit_clause = Some(LimitClause::LimitOffset { limit: Some(quantity), offset: None, limit_by: vec![] }),
        Some(LimitClause::LimitOffset { .. } | LimitClause::OffsetCommaLimit { .. }) => return,
    }
    query.fetch = None;
}

fn number(value: u32) -> Expr {
    Expr::value(ast::Value::Number(value.to_string(), false))
}

/// `a IS DISTINCT FROM b AND c` is `(a IS DISTINCT FROM b) AND c`; the parser has it the other way.
fn distinct_from(expr: &mut Expr) {
    let is_negated = matches!(expr, Expr::IsNotDistinctFrom(..));
    let (Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right)) = &mut *expr else { return };
    let Expr::BinaryOp { left: first, op: op @ (BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Xor), right: rest } =
        right.as_ref()
    else {
        return;
    };
    let (left, first) = (left.clone(), first.clone());
    let mut test = if is_negated { Expr::IsNotDistinctFrom(left, first) } else { Expr::IsDistinctFrom(left, first) };
    distinct_from(&mut test);
    *expr = Expr::BinaryOp { left: Box::new(test), op: op.clone(), right: rest.clone() };
}

/// What [`distinct_from`] let out stands too deep in an AND or a NOT before it. Nothing else does without parentheses.
#[expect(clippy::wildcard_enum_match_arm, reason = "the parser's enum: two operators bind less than they were given")]
fn regroup(expr: &mut Expr) {
    let is_weak = |expr: &Expr| matches!(expr, Expr::BinaryOp { op: BinaryOperator::Or, .. });
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } if is_weak(right) => {
            let Expr::BinaryOp { left: first, op, right: rest } = right.as_ref().clone() else { return };
            let both = binary((**left).clone(), BinaryOperator::And, *first);
            *expr = Expr::BinaryOp { left: Box::new(both), op, right: rest };
        }
        Expr::UnaryOp { op: ast::UnaryOperator::Not, expr: inner } => {
            let Expr::BinaryOp { left: first, op: op @ (BinaryOperator::And | BinaryOperator::Or), right: rest } =
                inner.as_ref().clone()
            else {
                return;
            };
            let first = Expr::UnaryOp { op: ast::UnaryOperator::Not, expr: first };
            *expr = Expr::BinaryOp { left: Box::new(first), op, right: rest };
        }
        _ => {}
    }
}

fn remainder(expr: &mut Expr) {
    let Expr::Function(call) = expr else { return };
    let name = call.name.to_string().to_ascii_lowercase();
    if name == "sign" {
        call.name = ObjectName::from(vec![Ident::new("signum")]);
    }
    if name != "mod" {
        return;
    }
    let ast::FunctionArguments::List(list) = &call.args else { return };
    let arg = |arg: &ast::FunctionArg| match arg {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(Box::new(Expr::Nested(Box::new(expr.clone())))),
        ast::FunctionArg::Unnamed(_) | ast::FunctionArg::Named { .. } | ast::FunctionArg::ExprNamed { .. } => None,
    };
    if let [left, right] = list.args.as_slice()
        && let (Some(left), Some(right)) = (arg(left), arg(right))
    {
        *expr = Expr::Nested(Box::new(Expr::BinaryOp { left, op: BinaryOperator::Modulo, right }));
    }
}

/// Give a column that is selected a second time a name of its own: `k_1`.
fn name_repeated(items: &mut [SelectItem]) {
    let mut seen: Vec<String> = Vec::new();
    for item in items {
        let (text, name) = match &*item {
            SelectItem::UnnamedExpr(expr) => (expr.to_string().to_lowercase(), short_name(expr)),
            SelectItem::ExprWithAlias { alias, .. } => (alias.value.clone(), alias.value.clone()),
            SelectItem::ExprWithAliases { .. } | SelectItem::QualifiedWildcard(..) | SelectItem::Wildcard(_) => continue,
        };
        if !seen.contains(&text) {
            seen.push(text);
            continue;
        }
        let unique = (1..).map(|number| format!("{name}_{number}")).find(|name| !seen.contains(name));
        let alias = Ident::with_quote('"', unique.unwrap_or_default());
        seen.push(alias.value.clone());
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item.clone() {
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the parser's enum: what is no name is called by its text")]
fn short_name(expr: &Expr) -> String {
    let plain = |ident: &Ident| if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() };
    match expr {
        Expr::Identifier(ident) => plain(ident),
        Expr::CompoundIdentifier(parts) => parts.last().map(plain).unwrap_or_default(),
        other => other.to_string(),
    }
}

/// `(a, b) IN (SELECT ..)` as EXISTS over the rows of the subquery; `is_condition` when only "true" matters.
fn rows_in(expr: &mut Expr, is_condition: bool) {
    if let Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } = expr
        && is_condition
    {
        rows_in(left, true);
        rows_in(right, true);
        return;
    }
    let Expr::InSubquery { expr: left, subquery, negated } = expr else { return };
    let Expr::Tuple(values) = left.as_ref() else { return };
    let names: Vec<String> = (0..values.len()).map(|idx| format!("__in_{idx}")).collect();
    let equal: Vec<String> = names.iter().zip(values).map(|(name, value)| format!("{name} = ({value})")).collect();
    let equal = equal.join(" AND ");
    let exists =
        |condition: &str| format!("EXISTS (SELECT 1 FROM ({subquery}) AS __in_rows({}) WHERE {condition})", names.join(", "));
    let text = match (is_condition, *negated) {
        (true, false) => exists(&equal),
        (true, true) => format!("NOT {}", exists(&format!("({equal}) IS NOT FALSE"))),
        (false, negated) => {
            let not = if negated { "NOT " } else { "" };
            let (known, unknown) = (exists(&equal), exists(&format!("({equal}) IS NULL")));
            format!("({not}CASE WHEN {known} THEN TRUE WHEN {unknown} THEN NULL ELSE FALSE END)")
        }
    };
    // The subquery is in it twice, and so is one within it. What is left as it is gets refused.
    if text.len() <= MAX_REWRITTEN
        && let Ok(parsed) = DFParser::parse_sql_into_expr(&text)
    {
        *expr = parsed.expr;
    }
}

/// For each merged column of joins that have rows of the right side alone: what its value is. The joins are made into joins
/// with conditions. Empty when there are none.
fn merged_columns(select: &mut Select, columns_of: ColumnsOf<'_>) -> Result<Merged, String> {
    let mut merged = Merged::default();
    for from in &mut select.from {
        if !from.joins.iter().any(|join| has_right_rows(&join.join_operator)) {
            continue;
        }
        merge(from, columns_of, &mut merged)?;
    }
    Ok(merged)
}

#[derive(Default)]
struct Merged {
    /// By the column's name.
    values: BTreeMap<String, Expr>,
    /// The tables joined, in order.
    tables: Vec<Ident>,
}

impl Merged {
    fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

fn constraint(join: &mut JoinOperator) -> Option<(&mut JoinConstraint, Kept)> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the parser's enum: other joins have no merged columns")]
    match join {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint) => Some((constraint, Kept::Left)),
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => Some((constraint, Kept::Right)),
        JoinOperator::FullOuter(constraint) => Some((constraint, Kept::Both)),
        _ => None,
    }
}

/// Which side has all of its rows, and so the values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    Left,
    Right,
    Both,
}

fn has_right_rows(join: &JoinOperator) -> bool {
    let mut join = join.clone();
    matches!(constraint(&mut join), Some((JoinConstraint::Using(_) | JoinConstraint::Natural, Kept::Right | Kept::Both)))
}

fn merge(from: &mut TableWithJoins, columns_of: ColumnsOf<'_>, merged: &mut Merged) -> Result<(), String> {
    let first = table_name(&from.relation)?;
    let mut left: Vec<(Ident, Option<Vec<String>>)> = vec![(first, columns(&from.relation, columns_of))];
    for join in &mut from.joins {
        let right = table_name(&join.relation)?;
        let right_columns = columns(&join.relation, columns_of);
        if let Some((constraint, kept)) = constraint(&mut join.join_operator) {
            let names = match &*constraint {
                JoinConstraint::Using(names) => names.iter().map(last_ident).collect::<Option<Vec<_>>>(),
                JoinConstraint::Natural => Some(common(&left, right_columns.as_deref())?),
                JoinConstraint::On(_) | JoinConstraint::None => None,
            };
            if let Some(names) = names {
                let mut condition: Option<Expr> = None;
                for name in names {
                    let left_value = match merged.values.get(&plain(&name)) {
                        Some(value) => value.clone(),
                        None => qualified(owner(&left, &name)?, &name),
                    };
                    let right_value = qualified(&right, &name);
                    let equal = binary(left_value.clone(), BinaryOperator::Eq, right_value.clone());
                    condition = Some(match condition {
                        Some(others) => binary(others, BinaryOperator::And, equal),
                        None => equal,
                    });
                    let value = match kept {
                        Kept::Left => left_value,
                        Kept::Right => right_value,
                        Kept::Both => coalesce(&left_value, &right_value)?,
                    };
                    merged.values.insert(plain(&name), value);
                }
                *constraint = JoinConstraint::On(condition.unwrap_or_else(|| Expr::value(ast::Value::Boolean(true))));
            }
        }
        left.push((right, right_columns));
    }
    merged.tables.extend(left.into_iter().map(|(name, _)| name));
    Ok(())
}

fn plain(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_ascii_lowercase() }
}

fn last_ident(name: &ObjectName) -> Option<Ident> {
    name.0.last().and_then(ObjectNamePart::as_ident).cloned()
}

fn table_name(table: &TableFactor) -> Result<Ident, String> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the parser's enum: other tables cannot be named in a condition")]
    let name = match table {
        TableFactor::Table { name, alias, .. } => alias.as_ref().map(|alias| alias.name.clone()).or_else(|| last_ident(name)),
        TableFactor::Derived { alias, .. } => alias.as_ref().map(|alias| alias.name.clone()),
        _ => None,
    };
    name.ok_or_else(|| format!("a RIGHT or FULL JOIN with USING needs a name for each side, and {table} has none"))
}

/// The table's columns, where they can be known before planning.
#[expect(clippy::wildcard_enum_match_arm, reason = "the parser's enum: other tables have columns that only planning knows")]
fn columns(table: &TableFactor, columns_of: ColumnsOf<'_>) -> Option<Vec<String>> {
    match table {
        TableFactor::Table { name, alias, args: None, .. } if alias.as_ref().is_none_or(|alias| alias.columns.is_empty()) => {
            columns_of(&plain(&last_ident(name)?))
        }
        _ => None,
    }
}

fn common(left: &[(Ident, Option<Vec<String>>)], right: Option<&[String]>) -> Result<Vec<Ident>, String> {
    let unknown = || "NATURAL RIGHT and FULL JOIN are supported between frames; name the columns with USING (..)".to_owned();
    let right = right.ok_or_else(unknown)?;
    let mut names = Vec::new();
    for (_, columns) in left {
        for column in columns.as_ref().ok_or_else(unknown)? {
            if right.contains(column) && !names.iter().any(|known: &Ident| known.value == *column) {
                names.push(Ident::with_quote('"', column.clone()));
            }
        }
    }
    Ok(names)
}

/// The table on the left that has the column.
fn owner<'a>(left: &'a [(Ident, Option<Vec<String>>)], name: &Ident) -> Result<&'a Ident, String> {
    if let [(only, _)] = left {
        return Ok(only);
    }
    let has = |columns: &Option<Vec<String>>| columns.as_ref().is_some_and(|columns| columns.contains(&plain(name)));
    left.iter().find(|(_, columns)| has(columns)).map(|(table, _)| table).ok_or_else(|| {
        format!("it is not clear here which table on the left has {name}; write the join with ON in place of USING")
    })
}

fn qualified(table: &Ident, column: &Ident) -> Expr {
    Expr::CompoundIdentifier(vec![table.clone(), column.clone()])
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn coalesce(left: &Expr, right: &Expr) -> Result<Expr, String> {
    let text = format!("coalesce({left}, {right})");
    Ok(DFParser::parse_sql_into_expr(&text).map_err(|error| error.to_string())?.expr)
}

/// Put the values of merged columns where `select` names them without a table.
fn use_merged(select: &mut Select, order_by: Option<&mut ast::OrderBy>, merged: &Merged) {
    let mut items = Vec::new();
    for item in std::mem::take(&mut select.projection) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum: everything else stays as it is")]
        match item {
            SelectItem::Wildcard(options) if options.to_string() == "*" || options.to_string().is_empty() => {
                for (name, value) in &merged.values {
                    let alias = Ident::with_quote('"', name.clone());
                    items.push(SelectItem::ExprWithAlias { expr: value.clone(), alias });
                }
                for table in &merged.tables {
                    items.push(others_of(table, merged));
                }
            }
            SelectItem::UnnamedExpr(Expr::Identifier(ident)) if merged.values.contains_key(&plain(&ident)) => {
                items.push(SelectItem::ExprWithAlias { expr: Expr::Identifier(ident.clone()), alias: ident });
            }
            other => items.push(other),
        }
    }
    select.projection = items;
    let named: Vec<String> = select
        .projection
        .iter()
        .filter_map(|item| match item {
            SelectItem::ExprWithAlias { alias, .. } => Some(plain(alias)),
            SelectItem::UnnamedExpr(_)
            | SelectItem::ExprWithAliases { .. }
            | SelectItem::QualifiedWildcard(..)
            | SelectItem::Wildcard(_) => None,
        })
        .collect();
    let mut values = Values { merged, depth: 0 };
    for item in &mut select.projection {
        let _ = VisitMut::visit(item, &mut values);
    }
    let _ = VisitMut::visit(&mut select.selection, &mut values);
    let _ = VisitMut::visit(&mut select.group_by, &mut values);
    let _ = VisitMut::visit(&mut select.having, &mut values);
    let _ = VisitMut::visit(&mut select.qualify, &mut values);
    let _ = VisitMut::visit(&mut select.named_window, &mut values);
    if let Some(ast::Distinct::On(exprs)) = &mut select.distinct {
        let _ = VisitMut::visit(exprs, &mut values);
    }
    if let Some(ast::OrderBy { kind: OrderByKind::Expressions(keys), .. }) = order_by {
        for key in keys {
            let is_output = matches!(&key.expr, Expr::Identifier(ident) if named.contains(&plain(ident)));
            if !is_output {
                let _ = VisitMut::visit(key, &mut values);
            }
        }
    }
}

/// `table.*` without the merged columns.
fn others_of(table: &Ident, merged: &Merged) -> SelectItem {
    let names: Vec<String> = merged.values.keys().map(|name| Ident::with_quote('"', name.clone()).to_string()).collect();
    let text = format!("SELECT {table}.* EXCLUDE ({}) FROM x", names.join(", "));
    let parsed = DFParser::parse_sql(&text).ok().and_then(|mut statements| statements.pop_front());
    if let Some(Statement::Statement(inner)) = parsed
        && let ast::Statement::Query(query) = *inner
        && let SetExpr::Select(mut select) = *query.body
        && let Some(item) = select.projection.pop()
    {
        return item;
    }
    SelectItem::Wildcard(ast::WildcardAdditionalOptions::default())
}

struct Values<'a> {
    merged: &'a Merged,
    depth: usize,
}

impl VisitorMut for Values<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(ident) = expr
            && self.depth == 0
            && let Some(value) = self.merged.values.get(&plain(ident))
        {
            *expr = value.clone();
        }
        ControlFlow::Continue(())
    }
}

#[derive(Default)]
struct Aliases {
    names: Vec<String>,
}

impl VisitorMut for Aliases {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &select.projection {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                self.names.push(alias.value.to_ascii_lowercase());
            }
        }
        ControlFlow::Continue(())
    }
}

struct Quoter<'a> {
    columns: &'a [String],
    aliases: &'a [String],
    is_changed: bool,
}

impl Quoter<'_> {
    fn quote(&mut self, ident: &mut Ident) {
        let lower = ident.value.to_ascii_lowercase();
        if ident.quote_style.is_some() || self.columns.contains(&lower) || self.aliases.contains(&lower) {
            return;
        }
        let mut matching = self.columns.iter().filter(|column| column.eq_ignore_ascii_case(&lower));
        if let (Some(column), None) = (matching.next(), matching.next()) {
            ident.value.clone_from(column);
            ident.quote_style = Some('"');
            self.is_changed = true;
        }
    }
}

impl VisitorMut for Quoter<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(ident) = expr {
            self.quote(ident);
        } else if let Expr::CompoundIdentifier(parts) = expr
            && let Some(ident) = parts.last_mut()
        {
            self.quote(ident);
        }
        ControlFlow::Continue(())
    }
}
