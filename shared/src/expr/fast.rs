//! The common shapes of expressions over numbered values, without the library.
//!
//! Comes in: a checked tree; then the values of a record. Goes out: what the library would give, or that it gives none,
//! and of which kind that failure is: its words come from the library. Shapes: comparisons, `&&`, `||`, `!`, `?:`,
//! `+ - * /`, `has`, `in` over literals, `double`, `startsWith`, `endsWith`, `contains`.
//! Guarantees: property-tested against the library; nothing is allocated but joined texts; as deep as the tree.
//! On failure: a tree of any other shape is `None`, and the library evaluates it.

use std::borrow::Cow;
use std::cmp::Ordering;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, LiteralValue, operators};

use super::names::{Filled, Names, Slot};
use super::path::{self, Field};

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Missing,
    Wrong,
}

/// A result.
#[derive(Clone, Debug)]
pub(super) enum Val<'a> {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Cow<'a, str>),
}

/// A literal.
#[derive(Clone, Debug)]
pub(super) enum Constant {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Box<str>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Test {
    Starts,
    Ends,
    Contains,
}

/// A part of an expression.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Constant(Constant),
    Slot(u32),
    Device,
    Time,
    Received,
    Has(u32),
    Not(Box<Self>),
    Negate(Box<Self>),
    Double(Box<Self>),
    And(Box<[Self; 2]>),
    Or(Box<[Self; 2]>),
    Equal(Box<[Self; 2]>, bool),
    /// True where the order is the first; or is not, if the bool says so.
    Order(Box<[Self; 2]>, Ordering, bool),
    /// The same of a value and a number.
    SlotOrder(u32, f64, Ordering, bool),
    /// Whether a value equals a literal, or not.
    SlotEqual(u32, Constant, bool),
    DeviceEqual(Box<str>, bool),
    SlotIn(u32, Box<[Constant]>),
    Arithmetic(Box<[Self; 2]>, Operator),
    In(Box<Self>, Box<[Constant]>),
    Text(Box<[Self; 2]>, Test),
    Choose(Box<[Self; 3]>),
}

/// A tree without the library, where its shape allows.
pub(super) fn node(e: &IdedExpr, names: &mut Names) -> Option<Node> {
    if let Some(field) = path::path(e).and_then(|path| path::field(&path)) {
        return match field {
            Field::Device => Some(Node::Device),
            field => names.number(&field).map(Node::Slot),
        };
    }
    match &e.expr {
        Expr::Literal(literal) => constant(literal).map(Node::Constant),
        Expr::Ident(name) if name == "time" => Some(Node::Time),
        Expr::Ident(name) if name == "received" => Some(Node::Received),
        Expr::Select(select) if select.test => {
            let mut path = path::path(&select.operand)?;
            path.push(&select.field);
            names.number(&path::field(&path)?).map(Node::Has)
        }
        Expr::Call(call) => self::call(call, names),
        _ => None,
    }
}

fn constant(literal: &LiteralValue) -> Option<Constant> {
    Some(match literal {
        LiteralValue::Boolean(v) => Constant::Bool(*v.inner()),
        LiteralValue::Int(v) => Constant::Int(*v.inner()),
        LiteralValue::Double(v) => Constant::Double(*v.inner()),
        LiteralValue::String(v) => Constant::Text(v.inner().into()),
        LiteralValue::UInt(_) | LiteralValue::Bytes(_) | LiteralValue::Null => return None,
    })
}

fn call(call: &CallExpr, names: &mut Names) -> Option<Node> {
    if let Some(target) = &call.target {
        let test = match call.func_name.as_str() {
            "startsWith" => Test::Starts,
            "endsWith" => Test::Ends,
            "contains" => Test::Contains,
            _ => return None,
        };
        let [argument] = call.args.as_slice() else { return None };
        return Some(Node::Text(Box::new([node(target, names)?, node(argument, names)?]), test));
    }
    match (call.func_name.as_str(), call.args.as_slice()) {
        (operators::LOGICAL_NOT, [a]) => Some(Node::Not(Box::new(node(a, names)?))),
        (operators::NEGATE, [a]) => Some(Node::Negate(Box::new(node(a, names)?))),
        ("double", [a]) => Some(Node::Double(Box::new(node(a, names)?))),
        (operators::IN, [a, list]) => within(a, list, names),
        (operators::CONDITIONAL, [a, b, c]) => {
            Some(Node::Choose(Box::new([node(a, names)?, node(b, names)?, node(c, names)?])))
        }
        (name, [a, b]) => {
            let both = Box::new([node(a, names)?, node(b, names)?]);
            Some(match name {
                operators::LOGICAL_AND => Node::And(both),
                operators::LOGICAL_OR => Node::Or(both),
                operators::EQUALS => same(both, true),
                operators::NOT_EQUALS => same(both, false),
                operators::LESS => order(both, Ordering::Less, true),
                operators::GREATER => order(both, Ordering::Greater, true),
                operators::LESS_EQUALS => order(both, Ordering::Greater, false),
                operators::GREATER_EQUALS => order(both, Ordering::Less, false),
                operators::ADD => Node::Arithmetic(both, Operator::Add),
                operators::SUBSTRACT => Node::Arithmetic(both, Operator::Subtract),
                operators::MULTIPLY => Node::Arithmetic(both, Operator::Multiply),
                operators::DIVIDE => Node::Arithmetic(both, Operator::Divide),
                _ => return None,
            })
        }
        _ => None,
    }
}

fn order(both: Box<[Node; 2]>, order: Ordering, is: bool) -> Node {
    match &*both {
        [Node::Slot(slot), Node::Constant(Constant::Double(v))] => Node::SlotOrder(*slot, *v, order, is),
        [Node::Slot(slot), Node::Constant(Constant::Int(v))] => Node::SlotOrder(*slot, *v as f64, order, is),
        _ => Node::Order(both, order, is),
    }
}

fn same(both: Box<[Node; 2]>, is: bool) -> Node {
    match &*both {
        [Node::Slot(slot), Node::Constant(v)] | [Node::Constant(v), Node::Slot(slot)] => {
            Node::SlotEqual(*slot, v.clone(), is)
        }
        [Node::Device, Node::Constant(Constant::Text(v))] => Node::DeviceEqual(v.clone(), is),
        _ => Node::Equal(both, is),
    }
}

fn within(a: &IdedExpr, list: &IdedExpr, names: &mut Names) -> Option<Node> {
    match (&a.expr, &list.expr) {
        (_, Expr::List(list)) => {
            let literal = |e: &IdedExpr| match &e.expr {
                Expr::Literal(literal) => constant(literal),
                _ => None,
            };
            let constants = list.elements.iter().map(literal).collect::<Option<Vec<_>>>()?;
            Some(match node(a, names)? {
                Node::Slot(slot) => Node::SlotIn(slot, constants.into()),
                a => Node::In(Box::new(a), constants.into()),
            })
        }
        (Expr::Literal(LiteralValue::String(key)), Expr::Ident(map)) => {
            names.number(&path::field(&[map, key.inner()])?).map(Node::Has)
        }
        _ => None,
    }
}

impl Constant {
    /// Whether a value is this one.
    #[inline]
    fn is(&self, slot: &Slot<'_>) -> Result<bool, Stop> {
        Ok(match (slot, self) {
            (Slot::Missing, _) => return Err(Stop::Missing),
            (Slot::Bool(a), Self::Bool(b)) => a == b,
            (Slot::Number(a), Self::Double(b)) => a == b,
            (Slot::Number(a), Self::Int(b)) => *a == *b as f64,
            (Slot::Text(a), Self::Text(b)) => **a == **b,
            _ => false,
        })
    }

    fn value(&self) -> Val<'_> {
        match self {
            Self::Bool(v) => Val::Bool(*v),
            Self::Int(v) => Val::Int(*v),
            Self::Double(v) => Val::Double(*v),
            Self::Text(v) => Val::Text(Cow::Borrowed(v)),
        }
    }
}

impl Node {
    /// True or false.
    pub(super) fn boolean(&self, record: &Filled<'_>) -> Result<bool, Stop> {
        match self {
            Self::SlotOrder(slot, limit, order, is) => match &record.slots[*slot as usize] {
                Slot::Number(v) => {
                    v.partial_cmp(limit).map(|found| (found == *order) == *is).ok_or(Stop::Wrong)
                }
                Slot::Missing => Err(Stop::Missing),
                Slot::Bool(_) | Slot::Text(_) => Err(Stop::Wrong),
            },
            Self::SlotEqual(slot, v, is) => v.is(&record.slots[*slot as usize]).map(|found| found == *is),
            Self::DeviceEqual(v, is) => Ok((*record.device == **v) == *is),
            Self::SlotIn(slot, list) => {
                let slot = &record.slots[*slot as usize];
                if *slot == Slot::Missing {
                    return Err(Stop::Missing);
                }
                Ok(list.iter().any(|v| v.is(slot) == Ok(true)))
            }
            Self::Has(slot) => Ok(record.slots[*slot as usize] != Slot::Missing),
            Self::Not(a) => a.boolean(record).map(|v| !v),
            Self::And(both) => absorb(both, record, false),
            Self::Or(both) => absorb(both, record, true),
            Self::Equal(both, is) => Ok(equal(&both[0].value(record)?, &both[1].value(record)?) == *is),
            Self::Order(both, order, is) => {
                let (a, b) = (both[0].value(record)?, both[1].value(record)?);
                Ok((compare(&a, &b).ok_or(Stop::Wrong)? == *order) == *is)
            }
            Self::In(a, list) => {
                let a = a.value(record)?;
                Ok(list.iter().any(|b| equal(&b.value(), &a)))
            }
            Self::Text(both, test) => {
                // The library evaluates the argument first.
                let b = both[1].value(record)?;
                let (Val::Text(a), Val::Text(b)) = (both[0].value(record)?, b) else {
                    return Err(Stop::Wrong);
                };
                Ok(match test {
                    Test::Starts => a.starts_with(&*b),
                    Test::Ends => a.ends_with(&*b),
                    Test::Contains => a.contains(&*b),
                })
            }
            Self::Choose(three) => {
                if three[0].boolean(record)? {
                    three[1].boolean(record)
                } else {
                    three[2].boolean(record)
                }
            }
            _ => match self.value(record)? {
                Val::Bool(v) => Ok(v),
                _ => Err(Stop::Wrong),
            },
        }
    }

    /// Whatever it gives.
    pub(super) fn value<'a>(&'a self, record: &'a Filled<'_>) -> Result<Val<'a>, Stop> {
        match self {
            Self::Constant(v) => Ok(v.value()),
            Self::Slot(slot) => match &record.slots[*slot as usize] {
                Slot::Missing => Err(Stop::Missing),
                Slot::Bool(v) => Ok(Val::Bool(*v)),
                Slot::Number(v) => Ok(Val::Double(*v)),
                Slot::Text(v) => Ok(Val::Text(Cow::Borrowed(v))),
            },
            Self::Device => Ok(Val::Text(Cow::Borrowed(record.device))),
            Self::Time => Ok(Val::Int(record.time)),
            Self::Received => Ok(Val::Int(record.received)),
            Self::Negate(a) => match a.value(record)? {
                Val::Int(v) => v.checked_neg().map(Val::Int).ok_or(Stop::Wrong),
                Val::Double(v) => Ok(Val::Double(-v)),
                Val::Bool(_) | Val::Text(_) => Err(Stop::Wrong),
            },
            Self::Double(a) => match a.value(record)? {
                Val::Int(v) => Ok(Val::Double(v as f64)),
                Val::Double(v) => Ok(Val::Double(v)),
                Val::Text(v) => v.parse().map(Val::Double).map_err(|_| Stop::Wrong),
                Val::Bool(_) => Err(Stop::Wrong),
            },
            Self::Arithmetic(both, operator) => {
                arithmetic(both[0].value(record)?, both[1].value(record)?, *operator)
            }
            Self::Choose(three) => {
                if three[0].boolean(record)? {
                    three[1].value(record)
                } else {
                    three[2].value(record)
                }
            }
            _ => self.boolean(record).map(Val::Bool),
        }
    }
}

/// `&&` and `||`: one side that decides makes up for the failure of the other.
fn absorb(both: &[Node; 2], record: &Filled<'_>, decides: bool) -> Result<bool, Stop> {
    let left = both[0].boolean(record);
    if left == Ok(decides) {
        return left;
    }
    let right = match both[1].value(record)? {
        Val::Bool(right) => right,
        _ => return Err(left.err().unwrap_or(Stop::Wrong)),
    };
    match left {
        Ok(_) => Ok(right),
        Err(_) if right == decides => Ok(right),
        Err(stop) => Err(stop),
    }
}

fn compare(a: &Val<'_>, b: &Val<'_>) -> Option<Ordering> {
    match (a, b) {
        (Val::Double(a), Val::Double(b)) => a.partial_cmp(b),
        (Val::Int(a), Val::Int(b)) => Some(a.cmp(b)),
        (Val::Int(a), Val::Double(b)) => (*a as f64).partial_cmp(b),
        (Val::Double(a), Val::Int(b)) => a.partial_cmp(&(*b as f64)),
        (Val::Text(a), Val::Text(b)) => Some(a.cmp(b)),
        (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn equal(a: &Val<'_>, b: &Val<'_>) -> bool {
    compare(a, b) == Some(Ordering::Equal)
}

fn arithmetic<'a>(a: Val<'a>, b: Val<'a>, operator: Operator) -> Result<Val<'a>, Stop> {
    match (a, b) {
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(match operator {
            Operator::Add => a + b,
            Operator::Subtract => a - b,
            Operator::Multiply => a * b,
            Operator::Divide => a / b,
        })),
        (Val::Int(a), Val::Int(b)) => match operator {
            Operator::Add => a.checked_add(b),
            Operator::Subtract => a.checked_sub(b),
            Operator::Multiply => a.checked_mul(b),
            Operator::Divide => a.checked_div(b),
        }
        .map(Val::Int)
        .ok_or(Stop::Wrong),
        (Val::Text(a), Val::Text(b)) if matches!(operator, Operator::Add) => {
            Ok(Val::Text(Cow::Owned(a.into_owned() + &b)))
        }
        _ => Err(Stop::Wrong),
    }
}
