//! Types as far as the text of an expression shows them.
//!
//! Comes in: a checked tree and what its result is wanted for. Goes out: nothing, or the first place that no record can
//! make right. A value or a column may have any type; literals, tags, times and results of operators have theirs.
//! Guarantees: what is refused would fail, or mean nothing, for every record. Pure.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, LiteralValue, SourceInfo, operators};

use super::path::path;
use super::{Problem, Wanted, check::at};

/// What a result is for sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Any,
    Bool,
    Number,
    Text,
    List,
    Map,
}

impl Type {
    const fn name(self) -> &'static str {
        match self {
            Self::Any => "anything",
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::List => "a list",
            Self::Map => "a map",
        }
    }

    fn may_be(self, other: Self) -> bool {
        self == Self::Any || other == Self::Any || self == other
    }
}

/// Refuses what no record can make right.
pub(super) fn check(text: &str, places: &SourceInfo, wanted: Wanted, tree: &IdedExpr) -> Result<(), Problem> {
    let walk = Walk { text, places };
    let found = walk.expr(tree)?;
    let (fits, want) = match wanted {
        Wanted::Bool => (found.may_be(Type::Bool), "true or false is wanted"),
        Wanted::Number => (found.may_be(Type::Number), "a number is wanted"),
        Wanted::Scalar => (!matches!(found, Type::List | Type::Map), "a number, bool or text is wanted"),
    };
    if fits { Ok(()) } else { walk.problem(tree, format!("gives {}; {want}", found.name())) }
}

struct Walk<'a> {
    text: &'a str,
    places: &'a SourceInfo,
}

impl Walk<'_> {
    fn problem<T>(&self, e: &IdedExpr, message: String) -> Result<T, Problem> {
        at(self.text, self.places, e, message)
    }

    fn expr(&self, e: &IdedExpr) -> Result<Type, Problem> {
        if let Some(path) = path(e) {
            return Ok(match path.as_slice() {
                ["device"] | ["tags", _] => Type::Text,
                ["time" | "received"] => Type::Number,
                ["values" | "tags"] => Type::Map,
                _ => Type::Any,
            });
        }
        match &e.expr {
            Expr::Literal(LiteralValue::Boolean(_)) => Ok(Type::Bool),
            Expr::Literal(LiteralValue::String(_)) => Ok(Type::Text),
            Expr::Literal(LiteralValue::Double(_) | LiteralValue::Int(_) | LiteralValue::UInt(_)) => {
                Ok(Type::Number)
            }
            Expr::Select(select) => {
                self.expr(&select.operand)?;
                Ok(if select.test { Type::Bool } else { Type::Any })
            }
            Expr::Call(call) => self.call(e, call),
            Expr::List(list) => {
                list.elements.iter().try_for_each(|e| self.expr(e).map(drop))?;
                Ok(Type::List)
            }
            Expr::Map(_) => Ok(Type::Map),
            // Loops are left to the evaluation.
            _ => Ok(Type::Any),
        }
    }

    fn call(&self, e: &IdedExpr, call: &CallExpr) -> Result<Type, Problem> {
        let name = call.func_name.as_str();
        let math = call.target.as_ref().is_some_and(|t| t.expr == Expr::Ident("math".to_owned()));
        let target = match &call.target {
            Some(target) if !math => Some(self.expr(target)?),
            _ => None,
        };
        let types = call.args.iter().map(|e| self.expr(e)).collect::<Result<Vec<_>, _>>()?;
        if let Some(target) = target
            && matches!(name, "startsWith" | "endsWith" | "contains")
        {
            return self.test(e, call, target, &types);
        }
        match (name, types.as_slice(), call.args.as_slice()) {
            (operators::LOGICAL_NOT, [a], [of]) => self.want(of, *a, Type::Bool, "!"),
            (operators::NEGATE, [a], [of]) => self.want(of, *a, Type::Number, "-"),
            (operators::LOGICAL_AND | operators::LOGICAL_OR, [a, b], [left, right]) => {
                let sign = if name == operators::LOGICAL_AND { "&&" } else { "||" };
                self.want(left, *a, Type::Bool, sign)?;
                self.want(right, *b, Type::Bool, sign)
            }
            (operators::CONDITIONAL, [a, b, c], [of, ..]) => {
                self.want(of, *a, Type::Bool, "?")?;
                Ok(if b == c { *b } else { Type::Any })
            }
            (
                operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO,
                [a, b],
                [left, right],
            ) => {
                let sign = &name[1..2];
                self.want(left, *a, Type::Number, sign)?;
                self.want(right, *b, Type::Number, sign)
            }
            (operators::ADD, [a, b], _) => self.add(e, *a, *b),
            (
                operators::EQUALS
                | operators::NOT_EQUALS
                | operators::LESS
                | operators::LESS_EQUALS
                | operators::GREATER
                | operators::GREATER_EQUALS,
                [a, b],
                _,
            ) => {
                if a.may_be(*b) {
                    return Ok(Type::Bool);
                }
                let way = if [*a, *b] == [Type::Text, Type::Number] || [*a, *b] == [Type::Number, Type::Text]
                {
                    "; texts stand in quotes, tags and device are texts"
                } else {
                    ""
                };
                self.problem(e, format!("compares {} with {}{way}", a.name(), b.name()))
            }
            (operators::IN, [_, b], _) => {
                if matches!(b, Type::Bool | Type::Number | Type::Text) {
                    return self.problem(e, format!("in looks into a list or a map, not {}", b.name()));
                }
                Ok(Type::Bool)
            }
            ("size" | "int" | "uint" | "double", ..) => Ok(Type::Number),
            ("string", ..) => Ok(Type::Text),
            ("bool", ..) => Ok(Type::Bool),
            _ => Ok(Type::Any),
        }
    }

    /// `startsWith` and its like.
    fn test(&self, e: &IdedExpr, call: &CallExpr, target: Type, types: &[Type]) -> Result<Type, Problem> {
        let name = call.func_name.as_str();
        if !target.may_be(Type::Text) {
            return self.problem(e, format!("{name} is asked of {}, not of a text", target.name()));
        }
        for (argument, found) in call.args.iter().zip(types) {
            self.want(argument, *found, Type::Text, name)?;
        }
        Ok(Type::Bool)
    }

    fn want(&self, e: &IdedExpr, found: Type, want: Type, sign: &str) -> Result<Type, Problem> {
        if found.may_be(want) {
            return Ok(want);
        }
        self.problem(e, format!("{sign} takes {}, this is {}", want.name(), found.name()))
    }

    fn add(&self, e: &IdedExpr, a: Type, b: Type) -> Result<Type, Problem> {
        let fits = |t: Type| matches!(t, Type::Any | Type::Number | Type::Text | Type::List);
        if !a.may_be(b) || !fits(a) || !fits(b) {
            return self.problem(e, format!("+ cannot join {} and {}", a.name(), b.name()));
        }
        Ok(if a == Type::Any { b } else { a })
    }
}
