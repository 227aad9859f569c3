//! What a query may cost before it runs: bounds on its text, on the plan that it comes to, and on the time to plan it.
//!
//! Parsers and planners recurse over expressions, and some of their work grows with the square of what lies above one
//! another. So the tokens of a text are counted before it is parsed: not how many there are alone, but what stands below
//! each, as it will in the tree. What passes is planned on a stack that is deep enough for the deepest tree allowed, on
//! whichever thread that happens. A plan may be larger than its text, when a table expression is named several times over
//! and so on; that is counted on the plan, without walking through it more often than it has nodes. What remains (work
//! that grows in the optimiser itself) has a limit of time.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Cast, Expr, LogicalPlan, TryCast};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use rustc_hash::FxBuildHasher;

use crate::error::SqlError;
use crate::types::check_width;

/// Most bytes of a text of SQL.
pub(crate) const MAX_TEXT: usize = 1 << 20;
/// Most tokens of a text of SQL.
const MAX_TOKENS: usize = 300_000;
/// Most ANDs and ORs of a text of SQL.
const MAX_CONDITIONS: usize = 20_000;
/// How deep brackets may be nested; the parser allows fifty levels of expressions.
const MAX_NESTING: usize = 128;
/// Most SELECTs of a text.
const MAX_SELECTS: usize = 500;
/// Most work on one text, in terms looked at again because something stands above them. A thousand terms added up are a
/// million; they take a second to plan.
const MAX_WORK: u64 = 1_000_000;

/// Most steps (scans, filters, joins, ..) of a plan with everything in its place.
pub(crate) const MAX_STEPS: usize = 5_000;
/// Most terms of the expressions of a plan.
pub(crate) const MAX_TERMS: usize = 200_000;
/// How deep a plan and its expressions may lie, above one another.
pub(crate) const MAX_DEPTH: usize = 2_000;

/// Most time for one stage of planning: so long that nobody who means well meets it.
const MAX_PLANNING: Duration = Duration::from_secs(20);

/// The stack on which plans are made, run and dropped. It takes memory only as far as it is used: in a build without
/// optimisation a level of an expression takes up to 20 KiB.
const STACK_NBYTES: usize = 256 << 20;

thread_local! {
    /// When planning on this thread ends.
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Do what recurses over plans on a deep stack, in limited time.
pub(crate) fn deep<T>(work: impl FnOnce() -> T) -> T {
    let is_deep = stacker::remaining_stack().is_some_and(|nbytes| nbytes > STACK_NBYTES / 2);
    if is_deep { work() } else { stacker::grow(STACK_NBYTES, work) }
}

/// As [`deep`], with [`MAX_PLANNING`] for what is planned.
pub(crate) fn planning<T>(work: impl FnOnce() -> T) -> T {
    let before = DEADLINE.replace(Some(Instant::now() + MAX_PLANNING));
    let done = deep(work);
    DEADLINE.set(before);
    done
}

fn check_time() -> Result<()> {
    if DEADLINE.get().is_some_and(|deadline| Instant::now() > deadline) {
        let limit = MAX_PLANNING.as_secs();
        return Err(DataFusionError::Plan(format!("the query is too complex: planning it takes more than {limit} s")));
    }
    Ok(())
}

/// A rule of the optimiser that ends when time is up or what it made has grown out of bounds.
#[derive(Debug)]
pub(crate) struct Watched(pub(crate) Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for Watched {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        check_time()?;
        if self.name() == "simplify_expressions" {
            plan.apply_expressions(|expr| check_expr(expr).map(|()| TreeNodeRecursion::Continue))?;
        }
        let rewritten = self.0.rewrite(plan, config)?;
        if rewritten.transformed {
            let mut n_left = MAX_TERMS;
            rewritten.data.apply_expressions(|expr| count_terms(expr, &mut n_left))?;
        }
        Ok(rewritten)
    }
}

fn count_terms(expr: &Expr, n_left: &mut usize) -> Result<TreeNodeRecursion> {
    expr.apply(|_| match n_left.checked_sub(1) {
        Some(n) => {
            *n_left = n;
            Ok(TreeNodeRecursion::Continue)
        }
        None => Err(DataFusionError::Plan(format!("the query is too complex: it has more than {MAX_TERMS} terms"))),
    })
}

/// What a plan with more than [`MAX_STEPS`] gets for an answer.
pub(crate) fn too_many_steps() -> DataFusionError {
    let what = "with everything that it names in its place it has";
    DataFusionError::Plan(format!("the query is too complex: {what} more than {MAX_STEPS} steps"))
}

/// Fails when planning would make an expression much larger, or constants in it that take an absurd amount of memory.
pub(crate) fn check_expr(expr: &Expr) -> Result<()> {
    let mut n_left = MAX_TERMS;
    count_terms(expr, &mut n_left)?;
    if grown(expr)? > MAX_TERMS as u64 {
        let hint = "give one of them all the arguments, or compute it in steps";
        return Err(DataFusionError::Plan(format!(
            "the query is too complex: coalesce, CASE, BETWEEN and IN within one another make more than {MAX_TERMS} terms: {hint}"
        )));
    }
    Ok(())
}

/// Terms of `expr` when what stands for several conditions has been replaced by them: the optimiser writes some operands
/// twice, and within one another they double at every level.
fn grown(expr: &Expr) -> Result<u64> {
    let times = |expr: &Expr, n: u64| grown(expr).map(|terms| terms.saturating_mul(n));
    let mut total = 1_u64;
    let mut add = |terms: Result<u64>| terms.map(|terms| total = total.saturating_add(terms));
    #[expect(clippy::wildcard_enum_match_arm, reason = "DataFusion's enum: whatever else stays as large as it is")]
    match expr {
        Expr::Between(between) => {
            add(times(&between.expr, 2))?;
            add(grown(&between.low))?;
            add(grown(&between.high))?;
        }
        // Longer lists stay lists.
        Expr::InList(within) => {
            let n = if within.list.len() <= MAX_LIST_WRITTEN_OUT { within.list.len() as u64 } else { 1 };
            add(times(&within.expr, n))?;
            within.list.iter().try_for_each(|item| add(grown(item)))?;
        }
        Expr::Case(case) => {
            if let Some(of) = &case.expr {
                add(grown(of))?;
            }
            for (when, then) in &case.when_then_expr {
                add(times(when, 2))?;
                add(grown(then))?;
            }
            if let Some(otherwise) = &case.else_expr {
                add(grown(otherwise))?;
            }
        }
        Expr::ScalarFunction(call) => {
            check_call(call)?;
            let n = if WRITTEN_TWICE.contains(&call.func.name()) { 2 } else { 1 };
            call.args.iter().try_for_each(|argument| add(times(argument, n)))?;
        }
        other => {
            if let Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) = other {
                check_width(field.data_type()).map_err(DataFusionError::Plan)?;
            }
            other.apply_children(|child| {
                add(grown(child))?;
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
    }
    Ok(total)
}

/// Lists that the optimiser replaces by comparisons.
const MAX_LIST_WRITTEN_OUT: usize = 3;

/// Functions that the optimiser replaces by conditions on their arguments.
const WRITTEN_TWICE: [&str; 6] = ["coalesce", "nullif", "nvl", "ifnull", "nvl2", "date_part"];

/// A type given as text is as good as one in a cast.
fn check_call(call: &ScalarFunction) -> Result<()> {
    if !call.func.name().starts_with("arrow_") {
        return Ok(());
    }
    for argument in &call.args {
        if let Expr::Literal(value, _) = argument
            && let Some(Some(name)) = value.try_as_str()
            && let Ok(data_type) = name.parse::<DataType>()
        {
            check_width(&data_type).map_err(DataFusionError::Plan)?;
        }
    }
    Ok(())
}

/// The size of plans that share parts, each part looked at once.
#[derive(Default)]
pub(crate) struct Sizes {
    /// Steps and depth of plans by their addresses, which are valid as long as the plan that holds them.
    known: HashMap<usize, (usize, usize), FxBuildHasher>,
}

impl Sizes {
    /// Fails when `plan`, with what it holds several times counted several times, is larger than planning can bear.
    pub(crate) fn check(&mut self, plan: &LogicalPlan) -> Result<()> {
        let (n_steps, depth) = self.of(plan)?;
        if n_steps > MAX_STEPS {
            return Err(too_many_steps());
        }
        if depth > MAX_DEPTH {
            return Err(DataFusionError::Plan(format!("the query is nested more than {MAX_DEPTH} deep")));
        }
        Ok(())
    }

    /// Steps and depth. Recurses to the depth of the plan: on a deep stack only.
    fn of(&mut self, plan: &LogicalPlan) -> Result<(usize, usize)> {
        let (mut n_steps, mut depth) = (1_usize, 0_usize);
        for input in plan.inputs() {
            let (n, deep) = self.shared(input)?;
            n_steps = n_steps.saturating_add(n);
            depth = depth.max(deep);
        }
        let mut subqueries = Vec::new();
        plan.apply_expressions(|expr| {
            check_expr(expr)?;
            expr.apply(|expr| {
                #[expect(clippy::wildcard_enum_match_arm, reason = "DataFusion's enum: whatever else has no plan within it")]
                match expr {
                    Expr::ScalarSubquery(subquery) => subqueries.push(Arc::clone(&subquery.subquery)),
                    Expr::Exists(exists) => subqueries.push(Arc::clone(&exists.subquery.subquery)),
                    Expr::InSubquery(within) => subqueries.push(Arc::clone(&within.subquery.subquery)),
                    Expr::SetComparison(comparison) => subqueries.push(Arc::clone(&comparison.subquery.subquery)),
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        for subquery in subqueries {
            let (n, deep) = self.shared(&subquery)?;
            n_steps = n_steps.saturating_add(n);
            depth = depth.max(deep);
        }
        Ok((n_steps, depth.saturating_add(1)))
    }

    fn shared(&mut self, plan: &LogicalPlan) -> Result<(usize, usize)> {
        let address = std::ptr::from_ref(plan).addr();
        if let Some(known) = self.known.get(&address) {
            return Ok(*known);
        }
        let size = self.of(plan)?;
        self.known.insert(address, size);
        Ok(size)
    }
}

/// Fails when `text` is longer, deeper or more work to plan than any query should be. Says where.
pub(crate) fn check_text(text: &str) -> std::result::Result<(), SqlError> {
    if text.len() > MAX_TEXT {
        let message =
            format!("the query is {} bytes long, at most {MAX_TEXT} are allowed: put long lists into a file", text.len());
        return Err(SqlError { message, line: None, column: None });
    }
    let mut tokens = Vec::new();
    // What is not a token is for the parser to say.
    let _ = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location_into_buf(&mut tokens);
    let mut tree = Tree { levels: vec![Level::default()], ..Tree::default() };
    for token in &tokens {
        tree.take(&token.token).map_err(|message| at(token, message))?;
    }
    Ok(())
}

fn at(token: &TokenWithSpan, message: String) -> SqlError {
    let start = token.span.start;
    SqlError { message, line: u32::try_from(start.line).ok(), column: u32::try_from(start.column).ok() }
}

/// The tree that tokens will come to, as far as its size goes.
///
/// Nearly every word of SQL may also be a column's name where a term is expected, so words count as what they are called
/// only where they can be nothing else: behind a term, and not behind a period.
#[derive(Default)]
struct Tree {
    n_tokens: usize,
    n_selects: usize,
    n_conditions: usize,
    work: u64,
    /// Of the brackets that are open, from the outermost; the first is the text itself.
    levels: Vec<Level>,
    before: Before,
}

/// What stands between one pair of brackets, or between CASE and END.
#[derive(Default)]
struct Level {
    is_case: bool,
    /// Terms of the expression that is being read: what the next operator will have below it.
    n_terms: u64,
    /// Terms of those before it.
    n_before: u64,
    /// BETWEENs whose AND has not come yet.
    n_between: usize,
}

/// The token before.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Before {
    /// An operator, an opening bracket or nothing: a term comes.
    #[default]
    Operator,
    /// The CASE of an expression.
    Case,
    /// A term, or its end.
    Term,
    /// The first name of `a.b`, and so on.
    Name(u8),
    /// The period of `a.b`, and so on.
    Period(u8),
}

impl Tree {
    fn take(&mut self, token: &Token) -> std::result::Result<(), String> {
        if matches!(token, Token::Whitespace(_) | Token::EOF) {
            return Ok(());
        }
        self.n_tokens += 1;
        if self.n_tokens > MAX_TOKENS {
            return Err(format!("the query has more than {MAX_TOKENS} words and signs: put long lists into a file"));
        }
        let role = Role::of(token, self.before, self.levels.last().is_some_and(|level| level.is_case));
        self.before = self.step(role)?;
        if self.work > MAX_WORK {
            let why = "the expressions of this query are too long or nested too deeply";
            return Err(format!("{why}: shorten them, or compute them in steps, one query over the other"));
        }
        Ok(())
    }

    fn step(&mut self, role: Role) -> std::result::Result<Before, String> {
        match role {
            Role::Open | Role::Case => {
                if self.levels.len() > MAX_NESTING {
                    return Err(format!("the query is nested more than {MAX_NESTING} deep"));
                }
                let is_case = matches!(role, Role::Case);
                self.levels.push(Level { is_case, ..Level::default() });
                return Ok(if is_case { Before::Case } else { Before::Operator });
            }
            Role::Close | Role::EndOfIndex => {
                if self.levels.len() > 1 {
                    let inner = self.levels.pop().unwrap_or_default();
                    let n_terms = inner.n_before + inner.n_terms;
                    self.level().n_terms += n_terms + 1;
                    // What stands above the bracket looks at all within.
                    self.work += n_terms;
                }
                if matches!(role, Role::EndOfIndex) {
                    self.operate();
                }
            }
            Role::Separator => {
                self.separate();
                return Ok(Before::Operator);
            }
            Role::Condition => {
                self.n_conditions += 1;
                if self.n_conditions > MAX_CONDITIONS {
                    let hint = "write `IN (..)`, or join with a table of values";
                    return Err(format!("the query has more than {MAX_CONDITIONS} conditions: {hint}"));
                }
                if self.level().n_between > 0 {
                    self.level().n_between -= 1;
                    self.level().n_terms += 1;
                } else {
                    self.separate();
                }
                return Ok(Before::Operator);
            }
            Role::Between => {
                self.level().n_between += 1;
                self.operate();
                return Ok(Before::Operator);
            }
            Role::Operator => {
                self.operate();
                return Ok(Before::Operator);
            }
            Role::Period(n) => {
                // `a.b` is a name, `a.b.c.d` a way into it.
                if n > 1 {
                    self.operate();
                }
                return Ok(Before::Period(n));
            }
            Role::Select => {
                self.n_selects += 1;
                if self.n_selects > MAX_SELECTS {
                    return Err(format!("the query has more than {MAX_SELECTS} SELECTs"));
                }
                self.level().n_terms += 1;
                return Ok(Before::Operator);
            }
            Role::Name(n) => {
                self.level().n_terms += 1;
                return Ok(Before::Name(n));
            }
            Role::Term => self.level().n_terms += 1,
        }
        Ok(Before::Term)
    }

    fn level(&mut self) -> &mut Level {
        if self.levels.is_empty() {
            self.levels.push(Level::default());
        }
        let last = self.levels.len() - 1;
        &mut self.levels[last]
    }

    /// An operator, above all that its expression has so far.
    fn operate(&mut self) {
        let level = self.level();
        level.n_terms += 1;
        let n_terms = level.n_terms;
        self.work += n_terms;
    }

    /// The expression is over.
    fn separate(&mut self) {
        let level = self.level();
        level.n_before += std::mem::take(&mut level.n_terms);
    }
}

/// What a token does to the tree.
enum Role {
    Open,
    Case,
    Close,
    EndOfIndex,
    Separator,
    Condition,
    Between,
    Operator,
    Period(u8),
    Select,
    Name(u8),
    Term,
}

impl Role {
    fn of(token: &Token, before: Before, is_in_case: bool) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the parser's enums: whatever else is a sign stands between two terms"
        )]
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => Self::Open,
            Token::RParen | Token::RBrace => Self::Close,
            Token::RBracket => Self::EndOfIndex,
            Token::Comma | Token::SemiColon => Self::Separator,
            Token::Period => match before {
                Before::Name(n) => Self::Period(n.saturating_add(1)),
                Before::Operator | Before::Case | Before::Term | Before::Period(_) => Self::Period(1),
            },
            Token::Word(word) => match (word.keyword, before) {
                (_, Before::Period(n)) => Self::Name(n),
                (Keyword::CASE, _) => Self::Case,
                (Keyword::SELECT, _) => Self::Select,
                (Keyword::END, _) if is_in_case => Self::Close,
                (Keyword::WHEN, Before::Case) => Self::Separator,
                (_, Before::Operator | Before::Case) => Self::Name(0),
                (Keyword::AND | Keyword::OR, _) => Self::Condition,
                (Keyword::WHEN | Keyword::THEN | Keyword::ELSE, _) if is_in_case => Self::Separator,
                (Keyword::BETWEEN, _) => Self::Between,
                (
                    Keyword::IS
                    | Keyword::IN
                    | Keyword::LIKE
                    | Keyword::ILIKE
                    | Keyword::RLIKE
                    | Keyword::REGEXP
                    | Keyword::SIMILAR
                    | Keyword::COLLATE
                    | Keyword::AT
                    | Keyword::XOR
                    | Keyword::DIV
                    | Keyword::NOTNULL
                    | Keyword::OVERLAPS
                    | Keyword::OPERATOR
                    | Keyword::UNION
                    | Keyword::INTERSECT
                    | Keyword::EXCEPT
                    | Keyword::MINUS
                    | Keyword::JOIN
                    | Keyword::APPLY
                    | Keyword::PIVOT
                    | Keyword::UNPIVOT,
                    _,
                ) => Self::Operator,
                (_, Before::Term | Before::Name(_)) => Self::Name(0),
            },
            Token::Number(..)
            | Token::Char(_)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::NationalStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::DollarQuotedString(_)
            | Token::Placeholder(_) => Self::Term,
            _ => Self::Operator,
        }
    }
}

#[cfg(test)]
#[path = "bounds_tests.rs"]
mod tests;
