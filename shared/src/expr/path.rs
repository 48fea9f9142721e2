//! Names in a tree: `values.t`, `values['a-b']`, `dims.devices.site`.
//!
//! Comes in: a part of a tree. Goes out: the names it consists of, and all that an expression looks at. Pure; cannot fail.

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr, LiteralValue, operators};

/// Stands between a dimension and its column where one text names both.
const BETWEEN: char = '\u{1f}';

/// Something of a record that an expression looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// `device`.
    Device,
    /// `values.<name>`.
    Value(String),
    /// Some value: which one shows only with a record.
    AnyValue,
    /// `tags.<name>`.
    Tag(String),
    /// Some tag.
    AnyTag,
    /// `dims.<dimension>.<column>`.
    Column(String, String),
}

/// A dimension and a column as one text.
pub(super) fn join(dimension: &str, column: &str) -> String {
    format!("{dimension}{BETWEEN}{column}")
}

/// The two again.
pub(super) fn split(name: &str) -> Option<(&str, &str)> {
    name.split_once(BETWEEN)
}

/// The names that a part of a tree consists of, if it is nothing else.
pub(super) fn path(e: &IdedExpr) -> Option<Vec<&str>> {
    match &e.expr {
        Expr::Ident(name) => Some(vec![name]),
        Expr::Select(select) if !select.test => {
            let mut path = path(&select.operand)?;
            path.push(&select.field);
            Some(path)
        }
        Expr::Call(call) if call.func_name == operators::INDEX && call.args.len() == 2 => {
            let Expr::Literal(LiteralValue::String(name)) = &call.args[1].expr else { return None };
            let mut path = path(&call.args[0])?;
            path.push(name.inner());
            Some(path)
        }
        _ => None,
    }
}

/// The field that a path names.
pub(super) fn field(path: &[&str]) -> Option<Field> {
    match path {
        ["device"] => Some(Field::Device),
        ["values", name] => Some(Field::Value((*name).to_owned())),
        ["tags", name] => Some(Field::Tag((*name).to_owned())),
        ["dims", name] => split(name).map(|(d, c)| Field::Column(d.to_owned(), c.to_owned())),
        _ => None,
    }
}

/// Adds all that a tree looks at.
pub(super) fn fields(e: &IdedExpr, out: &mut Vec<Field>) {
    if let Some(field) = path(e).and_then(|path| field(&path)) {
        out.push(field);
        return;
    }
    match &e.expr {
        Expr::Ident(name) if name == "values" => out.push(Field::AnyValue),
        Expr::Ident(name) if name == "tags" => out.push(Field::AnyTag),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => {}
        Expr::Select(select) => {
            let whole = if select.test { path(&select.operand) } else { None };
            match whole.and_then(|mut whole| {
                whole.push(&select.field);
                field(&whole)
            }) {
                Some(field) => out.push(field),
                None => fields(&select.operand, out),
            }
        }
        Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::IN, [IdedExpr { expr: Expr::Literal(LiteralValue::String(key)), .. }, map]) if matches!(&map.expr, Expr::Ident(name) if matches!(name.as_str(), "values" | "tags" | "dims")) =>
            {
                let Expr::Ident(map) = &map.expr else { return };
                out.extend(field(&[map, key.inner()]));
            }
            (_, args) => call.target.iter().map(|target| &**target).chain(args).for_each(|e| fields(e, out)),
        },
        Expr::List(list) => list.elements.iter().for_each(|e| fields(e, out)),
        Expr::Map(map) => {
            for entry in &map.entries {
                let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
                fields(&entry.key, out);
                fields(&entry.value, out);
            }
        }
        Expr::Comprehension(c) => {
            for part in [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result] {
                fields(part, out);
            }
        }
    }
}
