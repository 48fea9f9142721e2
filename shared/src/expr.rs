//! Expressions over readings: CEL, compiled once, evaluated for each reading.
//!
//! Comes in: a text, once; then readings. Goes out: a bool or a [`Value`]. An expression sees
//! `device` (a text), `time` and `received` (integers, ms since 1970), `values` and `tags`: `values.t`, `tags.line`,
//! `values['a-b']`, `has(values.t)`, `'t' in values`, `size(values)`. Of CEL it has the operators, `has`, the
//! conversions, the functions of texts but `matches`, those of `math`, and `all`, `exists`, `exists_one`, `map`,
//! `filter` over lists that stand in the text.
//! **Numbers of `values` are floats**, however the device wrote them (75 and 75.0 are the same), and an integer that
//! meets one in `+ - * /` becomes a float too: `values.t * 2` is right. Where an integer is wanted: `int(values.n) % 2`.
//! Beyond 2⁵³ the last digits are lost. Compiled within a [`Scope`] an expression sees `dims.<dimension>.<column>` too, is
//! checked for types as far as its text shows them, and runs over [`Record`]s; a [`Program`] does so fast.
//! Guarantees: pure; nothing of a reading is copied to look at it; work is bounded by the size of the text and of the
//! reading. On failure: a text that cannot be right is refused with the column and the way out; what shows only with
//! a reading (a value that is not there, a text where a number is wanted) is the error of that reading alone.

use std::sync::{Arc, LazyLock};

use cel::common::types::{CelBool, CelDouble, CelInt, CelString, CelUInt};
use cel::common::value::CowVal;
use cel::{Context, Env, ExecutionError, IdedExpr};

use crate::reading::{Reading, Value};

mod check;
mod fast;
mod names;
mod path;
mod program;
mod scope;
mod types;
mod view;

pub use names::{Filled, Names, Row};
pub use path::Field;
pub use program::Program;
pub use scope::{Columns, Derived, Failure, NoColumns, Record, Scope, Wanted, nearest};

use view::View;

/// Longest text, in bytes.
pub const TEXT_BYTES_MAX: usize = 4096;

/// Operators, functions and macros: the same for all expressions, and never changed.
static LANGUAGE: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib().with_optional_support(false);
    env.add_extension(cel::extensions::math).expect("nothing else declares the functions of math");
    Arc::new(env)
});

/// What is wrong with the text of an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {message}")]
pub struct Problem {
    /// Where, in characters from 1.
    pub column: usize,
    /// What is wrong, and the way out.
    pub message: String,
}

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Expression {
    text: String,
    tree: IdedExpr,
}

impl Expression {
    /// Compiles a text.
    ///
    /// # Errors
    /// What cannot be right, whatever the reading.
    pub fn compile(text: &str) -> Result<Self, Problem> {
        Self::parse(text, None)
    }

    /// Compiles a text that may name dimensions, and whose result is used as `wanted`.
    ///
    /// # Errors
    /// What cannot be right, whatever the record; more than [`Self::compile`] finds: types, and names of `dims`.
    pub fn compile_in(text: &str, scope: &Scope, wanted: Wanted) -> Result<Self, Problem> {
        Self::parse(text, Some((scope, wanted)))
    }

    fn parse(text: &str, within: Option<(&Scope, Wanted)>) -> Result<Self, Problem> {
        check::text(text)?;
        let program = LANGUAGE.compile(text).map_err(|errors| check::first(text, &errors))?;
        let mut tree = program.expression().clone();
        check::tree(text, program.source_info(), within.map(|(scope, _)| scope), &mut tree)?;
        if let Some((_, wanted)) = within {
            types::check(text, program.source_info(), wanted, &tree)?;
        }
        Ok(Self { text: text.to_owned(), tree })
    }

    /// The text it was compiled from.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its result for a reading, which must be true or false.
    ///
    /// # Errors
    /// Why it has none.
    pub fn boolean(&self, reading: &Reading<'_>) -> Result<bool, String> {
        self.evaluate(&Record::of(reading), boolean).map_err(|error| self.said(&error))
    }

    /// Its result for a reading, which must be a finite number, a bool or a text.
    ///
    /// # Errors
    /// Why it has none.
    pub fn value(&self, reading: &Reading<'_>) -> Result<Value<'static>, String> {
        self.evaluate(&Record::of(reading), scalar).map_err(|error| self.said(&error))
    }

    fn evaluate<T>(
        &self,
        record: &Record<'_>,
        read: impl FnOnce(&CowVal<'_, '_>) -> Result<T, String>,
    ) -> Result<T, Error> {
        let view = View(*record);
        let mut context = Context::with_env(Arc::clone(&LANGUAGE));
        context.set_variable_resolver(&view);
        match cel::Value::resolve_val(&self.tree, &context) {
            Ok(result) => read(&result).map_err(Error::Result),
            Err(error) => Err(Error::Execution(error)),
        }
    }

    fn said(&self, error: &Error) -> String {
        match error {
            Error::Result(why) => format!("{}: {why}", self.text),
            Error::Execution(error) => format!("{}: {}", self.text, explain(error)),
        }
    }
}

/// Why there is no result.
enum Error {
    /// It is of no use.
    Result(String),
    Execution(ExecutionError),
}

fn boolean(result: &CowVal<'_, '_>) -> Result<bool, String> {
    match result.downcast_ref::<CelBool>() {
        Some(result) => Ok(*result.inner()),
        None => Err(format!("gives {}, not true or false", result.get_type().name())),
    }
}

fn scalar(result: &CowVal<'_, '_>) -> Result<Value<'static>, String> {
    if let Some(v) = result.downcast_ref::<CelDouble>() {
        let v = *v.inner();
        return if v.is_finite() { Ok(Value::Float(v)) } else { Err(format!("gives {v}")) };
    }
    if let Some(v) = result.downcast_ref::<CelInt>() {
        return Ok(u64::try_from(*v.inner()).map_or(Value::Signed(*v.inner()), Value::Unsigned));
    }
    if let Some(v) = result.downcast_ref::<CelUInt>() {
        return Ok(Value::Unsigned(*v.inner()));
    }
    if let Some(v) = result.downcast_ref::<CelBool>() {
        return Ok(Value::Bool(*v.inner()));
    }
    match result.downcast_ref::<CelString<'_>>() {
        Some(v) => Ok(Value::Text(v.inner().to_owned().into())),
        None => Err(format!("gives {}, not a number, bool or text", result.get_type().name())),
    }
}

/// The library's own words quote whole operands; a reading's error names what is wrong with it.
fn explain(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(name) => {
            format!("the reading has no {name}; has(values.{name}) asks for it")
        }
        ExecutionError::UnsupportedBinaryOperator(name, ..) => {
            format!("cannot {name} operands of these types")
        }
        ExecutionError::Overflow(name, ..) => format!("{name} overflows"),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "division by zero".to_owned()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
