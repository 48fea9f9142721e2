//! A reading as CEL sees it: looked up where it stands, never copied.
//!
//! Comes in: names and keys. Goes out: CEL values that borrow from the reading. Guarantees: an evaluation costs what it
//! looks at, however many values the reading has. On failure: a name that the reading lacks is "no such key".

use std::fmt;

use cel::ExecutionError;
use cel::common::traits::{Container, Indexer, Sizer};
use cel::common::types::{CelBool, CelDouble, CelInt, CelString, MAP_TYPE, Type};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;

use super::Record;
use super::path::split;
use crate::reading::Value;

/// Gives the variables of an expression.
pub(super) struct View<'a>(pub(super) Record<'a>);

impl VariableResolver for View<'_> {
    /// CEL asks for the longest name first, so `values.t` is found without `values` in between.
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let record = &self.0;
        let reading = record.reading;
        if let Some(name) = variable.strip_prefix("values.") {
            return record.value(name).map(scalar);
        }
        if let Some(name) = variable.strip_prefix("tags.") {
            return reading.tag(name).map(text);
        }
        Some(match variable {
            "device" => text(&reading.device),
            "time" => CowVal::owned(CelInt::from(reading.time)),
            "received" => CowVal::owned(CelInt::from(reading.received)),
            "values" => CowVal::owned(Members { record: *record, which: Which::Values }),
            "tags" => CowVal::owned(Members { record: *record, which: Which::Tags }),
            "dims" => CowVal::owned(Members { record: *record, which: Which::Dims }),
            _ => return None,
        })
    }
}

fn text<'b, 'v>(text: &'v str) -> CowVal<'b, 'v> {
    CowVal::owned(CelString::from(text))
}

fn scalar<'b, 'v>(value: &'v Value<'_>) -> CowVal<'b, 'v> {
    match value {
        Value::Bool(v) => CowVal::owned(CelBool::from(*v)),
        Value::Unsigned(v) => CowVal::owned(CelDouble::from(*v as f64)),
        Value::Signed(v) => CowVal::owned(CelDouble::from(*v as f64)),
        Value::Float(v) => CowVal::owned(CelDouble::from(*v)),
        Value::Text(v) => text(v),
    }
}

fn owned<'b, 'v>(value: Value<'v>) -> CowVal<'b, 'v> {
    match value {
        Value::Text(v) => CowVal::owned(CelString::from(v)),
        Value::Bool(v) => CowVal::owned(CelBool::from(v)),
        number => CowVal::owned(CelDouble::from(number.number().unwrap_or_default())),
    }
}

#[derive(Clone, Copy, Debug)]
enum Which {
    Values,
    Tags,
    /// Keys are a dimension and a column in one text, see [`join`](super::path::join).
    Dims,
}

/// `values`, `tags` or `dims` as a whole.
#[derive(Clone, Copy)]
struct Members<'a> {
    record: Record<'a>,
    which: Which,
}

impl<'a> Members<'a> {
    fn find<'b>(&self, name: &str) -> Option<CowVal<'b, 'a>> {
        match self.which {
            Which::Values => self.record.value(name).map(scalar),
            Which::Tags => self.record.reading.tag(name).map(text),
            Which::Dims => split(name).and_then(|(d, c)| self.record.dims.column(d, c)).map(owned),
        }
    }

    fn has(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.find(name(key)?).is_some())
    }
}

/// Errors quote it: names say enough.
impl fmt::Debug for Members<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.which)
    }
}

impl Val for Members<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(*self)
    }
}

impl Container for Members<'_> {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        self.has(key)
    }
}

impl Sizer for Members<'_> {
    fn size(&self) -> CelInt {
        let size = match self.which {
            Which::Values => self.record.values(),
            Which::Tags => self.record.reading.tags.len(),
            // The checker lets nobody ask.
            Which::Dims => 0,
        };
        CelInt::from(i64::try_from(size).unwrap_or(i64::MAX))
    }
}

impl Indexer for Members<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let name = name(key)?;
        self.find(name).ok_or_else(|| ExecutionError::no_such_key(name))
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

fn name(key: &dyn Val) -> Result<&str, ExecutionError> {
    key.downcast_ref::<CelString<'_>>().map(CelString::inner).ok_or_else(|| ExecutionError::UnexpectedType {
        got: key.get_type().name().to_owned(),
        want: "string".to_owned(),
    })
}
