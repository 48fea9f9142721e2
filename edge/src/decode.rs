//! Decoding: bytes from a source to readings and rejections.
//!
//! Comes in: the payload and topic of one message, with its arrival. Goes out: for each reading in it either the
//! JSON that Kafka will get, with its device, or a [`Rejection`] with the raw bytes; never nothing.
//! Guarantees: no panic and memory bounded by the message, whatever the bytes; one bad reading rejects itself
//! alone; a number stays an integer if it was one. Pure: no clock, no I/O.

pub(crate) mod json;
pub(crate) mod rejection;

pub(crate) use json::{Decoder, Mapping};
pub(crate) use rejection::{Reason, Rejection};

use weir_shared::clock::Now;

/// One message as a source hands it over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    /// Where it came in, for example an MQTT topic.
    pub topic: &'a str,
    /// Its bytes, unchanged.
    pub payload: &'a [u8],
    /// When it arrived.
    pub arrived: Now,
}

/// A reading, ready to be journaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The Kafka key.
    pub device: String,
    /// The Kafka value, as in `weir_shared::wire`.
    pub value: Vec<u8>,
}

/// What one reading of a message became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// It is good.
    Reading(Reading),
    /// It is not, and why.
    Rejection(Rejection),
}
