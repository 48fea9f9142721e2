//! What can be said of an expression before the first reading: its limits, its names, its numbers.
//!
//! Comes in: the text and the parsed tree. Goes out: the tree with integers made floats where they meet values.
//! Guarantees: an accepted tree is shallow enough for any stack, calls only what exists, and works no more than its
//! length times the length of its lists. On failure: the first problem with its column and the way out.

use cel::ParseErrors;
use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, SourceInfo, operators};
use cel::{IdedExpr, common::types::CelDouble};

use super::path::{join, path};
use super::{Problem, Scope, TEXT_BYTES_MAX};

/// Deepest nesting: of brackets in the text, and of operations in the tree.
const DEPTH_MAX: usize = 48;
/// Most operators that may stand in a row without brackets before the parser has made a tree of them.
const OPERATORS_MAX: usize = 400;

const VARIABLES: [&str; 5] = ["device", "time", "values", "tags", "received"];
const FUNCTIONS: [&str; 10] =
    ["size", "contains", "startsWith", "endsWith", "int", "uint", "double", "string", "bool", "dyn"];
const MATH: [&str; 18] = [
    "@max",
    "@min",
    "ceil",
    "floor",
    "round",
    "trunc",
    "isInf",
    "isNaN",
    "isFinite",
    "abs",
    "sign",
    "sqrt",
    "bitAnd",
    "bitOr",
    "bitXor",
    "bitNot",
    "bitShiftLeft",
    "bitShiftRight",
];

/// Bounds what the parser, which recurses, gets to see.
pub(super) fn text(text: &str) -> Result<(), Problem> {
    let problem =
        |at: usize, message: String| Err(Problem { column: text[..at].chars().count() + 1, message });
    if text.trim().is_empty() {
        return problem(0, "is empty; write a condition, for example \"values.t > 30.0\"".to_owned());
    }
    if text.len() > TEXT_BYTES_MAX {
        return problem(0, format!("{} bytes, at most {TEXT_BYTES_MAX} are taken", text.len()));
    }
    // Names that hold "in" count too: nobody has so many.
    let (mut depth, mut operations) = (0_usize, text.matches("in").count());
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '!' | '-' | '+' | '*' | '/' | '%' | '?' | '.' | '<' | '>' | '=' | '&' | '|' => operations += 1,
            _ => {}
        }
        if depth > DEPTH_MAX {
            return problem(at, format!("brackets more than {DEPTH_MAX} deep; split it into several"));
        }
        if operations > OPERATORS_MAX {
            return problem(
                at,
                format!("more than {OPERATORS_MAX} signs of operators; split it into several"),
            );
        }
    }
    Ok(())
}

/// The first of the parser's problems.
pub(super) fn first(text: &str, errors: &ParseErrors) -> Problem {
    let first = errors.errors.iter().min_by_key(|e| e.pos);
    let (line, column) = first.map_or((1, 1), |e| e.pos);
    let before: usize = text
        .split_inclusive('\n')
        .take(usize::try_from(line - 1).unwrap_or(0))
        .map(|l| l.chars().count())
        .sum();
    let message = first.map_or("is not CEL", |e| &e.msg);
    Problem { column: before + usize::try_from(column).unwrap_or(0).max(1), message: plain(message) }
}

/// The parser's words without its list of everything that it would have taken.
fn plain(message: &str) -> String {
    let message = message.split(" expecting ").next().unwrap_or(message);
    if message.contains("<EOF>") {
        return "ends too early: something is missing here".to_owned();
    }
    message.replace('\n', " ")
}

/// Checks the tree, and makes floats of integers that meet values.
pub(super) fn tree(
    text: &str,
    places: &SourceInfo,
    scope: Option<&Scope>,
    tree: &mut IdedExpr,
) -> Result<(), Problem> {
    Walk { text, places, scope, locals: Vec::new() }.expr(tree, 0).map(drop)
}

/// A problem at a part of the tree.
pub(super) fn at<T>(text: &str, places: &SourceInfo, e: &IdedExpr, message: String) -> Result<T, Problem> {
    let start = places.offset_for(e.id).map_or(0, |(start, _)| start as usize);
    Err(Problem { column: (start + 1).min(text.chars().count()), message })
}

/// What is known of a result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An integer for sure.
    Integer,
    /// Anything.
    Any,
}

struct Walk<'a> {
    text: &'a str,
    places: &'a SourceInfo,
    /// What there is besides the reading.
    scope: Option<&'a Scope>,
    /// Variables of the macro that is open.
    locals: Vec<String>,
}

impl Walk<'_> {
    fn problem<T>(&self, at: &IdedExpr, message: String) -> Result<T, Problem> {
        self::at(self.text, self.places, at, message)
    }

    fn expr(&mut self, e: &mut IdedExpr, depth: usize) -> Result<Kind, Problem> {
        if depth > DEPTH_MAX {
            return self
                .problem(e, format!("more than {DEPTH_MAX} operations deep; split it, or use brackets"));
        }
        let depth = depth + 1;
        if self.column(e)? {
            return Ok(Kind::Any);
        }
        match &mut e.expr {
            Expr::Literal(LiteralValue::Int(_) | LiteralValue::UInt(_)) => return Ok(Kind::Integer),
            Expr::Literal(LiteralValue::Bytes(_)) => {
                return self.problem(e, "bytes are not known here".to_owned());
            }
            Expr::Literal(_) => {}
            Expr::Ident(name) => {
                let name = name.clone();
                return self.ident(e, &name);
            }
            Expr::Select(select) => drop(self.expr(&mut select.operand, depth)?),
            Expr::Call(_) => return self.call(e, depth),
            Expr::List(list) => {
                for element in &mut list.elements {
                    self.expr(element, depth)?;
                }
            }
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    let EntryExpr::MapEntry(entry) = &mut entry.expr else { continue };
                    self.expr(&mut entry.key, depth)?;
                    self.expr(&mut entry.value, depth)?;
                }
            }
            Expr::Comprehension(_) => self.comprehension(e, depth)?,
            Expr::Struct(_) | Expr::Unspecified => {
                return self.problem(e, "structures are not known here".to_owned());
            }
        }
        Ok(Kind::Any)
    }

    /// Checks a column of a dimension, or `has` of one, and brings it into the form that the view looks up.
    fn column(&self, e: &mut IdedExpr) -> Result<bool, Problem> {
        let Some(scope) = self.scope.filter(|_| !self.locals.iter().any(|local| local == "dims")) else {
            return Ok(false);
        };
        let test = matches!(&e.expr, Expr::Select(select) if select.test);
        let path = match &e.expr {
            Expr::Select(select) if test => path(&select.operand).map(|mut path| {
                path.push(&select.field);
                path
            }),
            _ => path(e),
        };
        let Some(["dims", rest @ ..]) = path.as_deref() else { return Ok(false) };
        if let Some(message) = scope.refuse(rest) {
            return self.problem(e, message);
        }
        let part = |expr| IdedExpr { id: e.id, expr };
        let dims = part(Expr::Ident("dims".to_owned()));
        let key = part(Expr::Literal(LiteralValue::String(join(rest[0], rest[1]).into())));
        let (func_name, args) =
            if test { (operators::IN, vec![key, dims]) } else { (operators::INDEX, vec![dims, key]) };
        e.expr = Expr::Call(CallExpr { func_name: func_name.to_owned(), target: None, args });
        Ok(true)
    }

    fn ident(&self, e: &IdedExpr, name: &str) -> Result<Kind, Problem> {
        if self.locals.iter().any(|local| local == name) || name.starts_with('@') {
            return Ok(Kind::Any);
        }
        if !VARIABLES.contains(&name) {
            let mut known = VARIABLES.join(", ");
            if self.scope.is_some() {
                known.push_str(", dims");
            }
            return self.problem(
                e,
                format!("{name:?} is not known; values are values.{name}, and there are {known}"),
            );
        }
        Ok(if matches!(name, "time" | "received") { Kind::Integer } else { Kind::Any })
    }

    fn call(&mut self, e: &mut IdedExpr, depth: usize) -> Result<Kind, Problem> {
        let Expr::Call(call) = &e.expr else { return Ok(Kind::Any) };
        let math = call.target.as_ref().is_some_and(|t| t.expr == Expr::Ident("math".to_owned()));
        let name = call.func_name.as_str();
        let plain = name.trim_start_matches("math.");
        let known =
            if math || plain.len() < name.len() { MATH.contains(&plain) } else { FUNCTIONS.contains(&name) };
        if !known && name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let all = FUNCTIONS.join(", ");
            return self
                .problem(e, format!("there is no function {name:?} here; there are has, {all} and math.…"));
        }
        let Expr::Call(call) = &mut e.expr else { return Ok(Kind::Any) };
        if let Some(target) = call.target.as_mut().filter(|_| !math) {
            self.expr(target, depth)?;
        }
        let mut kinds = Vec::with_capacity(call.args.len());
        for argument in &mut call.args {
            kinds.push(self.expr(argument, depth)?);
        }
        Ok(match (call.func_name.as_str(), kinds.as_slice()) {
            (
                operators::ADD | operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE,
                [left, right],
            ) => {
                match (left, right) {
                    (Kind::Integer, Kind::Integer) => return Ok(Kind::Integer),
                    (Kind::Integer, Kind::Any) => float(&mut call.args[0]),
                    (Kind::Any, Kind::Integer) => float(&mut call.args[1]),
                    (Kind::Any, Kind::Any) => {}
                }
                Kind::Any
            }
            (operators::CONDITIONAL, [_, Kind::Integer, Kind::Integer])
            | (operators::MODULO | "int" | "uint" | "size", _) => Kind::Integer,
            (operators::NEGATE, [kind]) => *kind,
            _ => Kind::Any,
        })
    }

    /// A loop goes over a list that stands in the text, and holds no loop: so its work is bounded by the text.
    fn comprehension(&mut self, e: &mut IdedExpr, depth: usize) -> Result<(), Problem> {
        let Expr::Comprehension(c) = &e.expr else { return Ok(()) };
        if !self.locals.is_empty() {
            return self.problem(e, "a loop in a loop; name the elements one by one".to_owned());
        }
        if !matches!(c.iter_range.expr, Expr::List(_)) {
            let way = "loops go over a list in the text, for example [values.a, values.b].all(x, x > 0.0)";
            return self.problem(e, way.to_owned());
        }
        let Expr::Comprehension(c) = &mut e.expr else { return Ok(()) };
        self.expr(&mut c.iter_range, depth)?;
        self.locals = vec![c.iter_var.clone(), c.accu_var.clone()];
        self.locals.extend(c.iter_var2.clone());
        for part in [&mut c.accu_init, &mut c.loop_cond, &mut c.loop_step, &mut c.result] {
            self.expr(part, depth)?;
        }
        self.locals.clear();
        Ok(())
    }
}

/// Makes a float of an integer.
fn float(e: &mut IdedExpr) {
    let literal = match &e.expr {
        Expr::Literal(LiteralValue::Int(v)) => Some(*v.inner() as f64),
        Expr::Literal(LiteralValue::UInt(v)) => Some(*v.inner() as f64),
        _ => None,
    };
    e.expr = match literal {
        Some(v) => Expr::Literal(LiteralValue::Double(CelDouble::from(v))),
        None => {
            let inner = IdedExpr { id: e.id, expr: std::mem::take(&mut e.expr) };
            Expr::Call(CallExpr { func_name: "double".to_owned(), target: None, args: vec![inner] })
        }
    };
}
