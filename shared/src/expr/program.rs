//! An expression made ready for many records: over numbered values where it can be, else by the library.
//!
//! Comes in: an expression and the names it shares with others; then records. Goes out: its result.
//! Guarantees: the same result, and the same kind of failure, as the library's own evaluation (property-tested).
//! On failure: a [`Failure`]; its words quote nothing of the record, which may be masked.

use cel::ExecutionError;

use super::fast::{self, Node, Stop};
use super::names::{Filled, Names};
use super::path::{self, Field};
use super::{Error, Expression, Failure, Record};
use crate::reading::Value;

/// An expression ready to run.
#[derive(Clone, Debug)]
pub struct Program {
    expression: Expression,
    fast: Option<Node>,
    looks_at: Vec<Field>,
}

impl Program {
    /// Makes an expression ready; the names it looks at are numbered.
    #[must_use]
    pub fn new(expression: Expression, names: &mut Names) -> Self {
        let mut looks_at = Vec::new();
        path::fields(&expression.tree, &mut looks_at);
        looks_at.sort();
        looks_at.dedup();
        let fast = fast::node(&expression.tree, names);
        Self { expression, fast, looks_at }
    }

    /// Whether the library is not needed.
    #[must_use]
    pub const fn is_fast(&self) -> bool {
        self.fast.is_some()
    }

    /// Everything it looks at, each once.
    #[must_use]
    pub fn looks_at(&self) -> &[Field] {
        &self.looks_at
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.expression.text
    }

    /// True or false.
    ///
    /// # Errors
    /// Why there is no such result.
    #[inline]
    pub fn boolean(&self, filled: &Filled<'_>, record: &Record<'_>) -> Result<bool, Failure> {
        if let Some(fast) = &self.fast {
            match fast.boolean(filled) {
                Ok(result) => return Ok(result),
                Err(Stop::Missing) => return Err(Failure::Missing),
                Err(Stop::Wrong) => {}
            }
        }
        self.slow(record, super::boolean)
    }

    /// A number that is finite.
    ///
    /// # Errors
    /// Why there is no such result.
    #[inline]
    pub fn number(&self, filled: &Filled<'_>, record: &Record<'_>) -> Result<f64, Failure> {
        if let Some(fast) = &self.fast {
            match fast.value(filled) {
                Ok(fast::Val::Double(v)) if v.is_finite() => return Ok(v),
                Ok(fast::Val::Int(v)) => return Ok(v as f64),
                Err(Stop::Missing) => return Err(Failure::Missing),
                Ok(_) | Err(Stop::Wrong) => {}
            }
        }
        self.slow(record, |result| {
            let value = super::scalar(result)?;
            value.number().ok_or_else(|| format!("gives {}, not a number", result.get_type().name()))
        })
    }

    /// A finite number, a bool or a text.
    ///
    /// # Errors
    /// Why there is no such result.
    #[inline]
    pub fn value(&self, filled: &Filled<'_>, record: &Record<'_>) -> Result<Value<'static>, Failure> {
        if let Some(fast) = &self.fast {
            match fast.value(filled) {
                Ok(fast::Val::Double(v)) if v.is_finite() => return Ok(Value::Float(v)),
                Ok(fast::Val::Int(v)) => {
                    return Ok(u64::try_from(v).map_or(Value::Signed(v), Value::Unsigned));
                }
                Ok(fast::Val::Bool(v)) => return Ok(Value::Bool(v)),
                Ok(fast::Val::Text(v)) => return Ok(Value::Text(v.into_owned().into())),
                Err(Stop::Missing) => return Err(Failure::Missing),
                Ok(fast::Val::Double(_)) | Err(Stop::Wrong) => {}
            }
        }
        self.slow(record, super::scalar)
    }

    /// By the library, which also finds the words for what went wrong.
    #[cold]
    fn slow<T>(
        &self,
        record: &Record<'_>,
        read: impl FnOnce(&cel::common::value::CowVal<'_, '_>) -> Result<T, String>,
    ) -> Result<T, Failure> {
        self.expression.evaluate(record, read).map_err(|error| match error {
            Error::Execution(ExecutionError::NoSuchKey(_)) => Failure::Missing,
            Error::Execution(error) => Failure::Wrong(format!("{}: {}", self.text(), words(&error))),
            Error::Result(why) => Failure::Wrong(format!("{}: {why}", self.text())),
        })
    }
}

/// What went wrong, without the values it went wrong with.
fn words(error: &ExecutionError) -> String {
    match error {
        ExecutionError::UnsupportedBinaryOperator(name, ..) => {
            format!("cannot {name} operands of these types")
        }
        ExecutionError::Overflow(name, ..) => format!("{name} overflows"),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "division by zero".to_owned()
        }
        // Its arguments are types.
        ExecutionError::NoSuchOverload(error) => error.to_string(),
        ExecutionError::UnexpectedType { got, want } => format!("{got} where {want} is wanted"),
        ExecutionError::FunctionError { function, .. } => {
            format!("{function} cannot take this value")
        }
        ExecutionError::IndexOutOfBounds(_) => "an index is beyond the list".to_owned(),
        _ => "something has a type that does not fit".to_owned(),
    }
}

#[cfg(test)]
mod tests;
