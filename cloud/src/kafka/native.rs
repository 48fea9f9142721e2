//! What librdkafka can do and rdkafka's safe API does not show: the generation and id of a group member, the offset of an
//! end-of-partition event, and the log's end as the last fetch saw it.
//!
//! Guarantees: no pointer leaves this file; whatever librdkafka hands over is freed here.
#![expect(unsafe_code, reason = "four calls into librdkafka that rdkafka 0.39 has no safe form of")]

use std::ffi::{CStr, CString};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;

/// The member's generation; negative while it is no member. `None` when the client has no group.
pub(crate) fn generation<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<i32> {
    // SAFETY: the client lives as long as the borrow; the metadata is destroyed once, here.
    unsafe {
        let metadata = sys::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if metadata.is_null() {
            return None;
        }
        let generation = sys::rd_kafka_consumer_group_metadata_generation_id(metadata);
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        Some(generation)
    }
}

/// The member's id in its group; `None` while it has none.
pub(crate) fn member<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<String> {
    // SAFETY: the client lives as long as the borrow; the text is copied before it is freed once, here.
    unsafe {
        let client = consumer.client().native_ptr();
        let id = sys::rd_kafka_memberid(client);
        if id.is_null() {
            return None;
        }
        let text = CStr::from_ptr(id).to_string_lossy().into_owned();
        sys::rd_kafka_mem_free(client, id.cast());
        (!text.is_empty()).then_some(text)
    }
}

/// End of the log of a partition that is being fetched, as the last answer showed it; `None` before the first.
pub(crate) fn cached_end<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
) -> Option<i64> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client lives as long as the borrow, the name until the end of this function; no I/O is done.
    let error = unsafe {
        sys::rd_kafka_get_watermark_offsets(
            consumer.client().native_ptr(),
            topic.as_ptr(),
            partition,
            &raw mut low,
            &raw mut high,
        )
    };
    (error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}

/// What one poll of a consumer with assigned partitions brought.
pub(crate) enum Polled {
    /// A record of a topic and partition.
    Record {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// Key; empty when it has none.
        key: Vec<u8>,
        /// Value; `None` is a tombstone.
        value: Option<Vec<u8>>,
    },
    /// Everything of this topic and partition before the offset has been read.
    End(String, i32, i64),
    /// Nothing within the time.
    Nothing,
    /// An error of the client.
    Error(RDKafkaErrorCode),
}

/// Polls a consumer that reads only what it was assigned (no rebalances): unlike [`BaseConsumer::poll`] this tells
/// the offset of an end-of-partition event.
pub(crate) fn poll_assigned<C: ConsumerContext>(consumer: &BaseConsumer<C>, wait: Duration) -> Polled {
    let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client lives as long as the borrow. The message is valid until destroyed at the end; key and
    // payload are copied before. A null pointer with length 0 is not made a slice.
    unsafe {
        let message = sys::rd_kafka_consumer_poll(consumer.client().native_ptr(), wait_ms);
        let Some(seen) = message.as_ref() else { return Polled::Nothing };
        let copy =
            |at: *const u8, len: usize| (!at.is_null()).then(|| std::slice::from_raw_parts(at, len).to_vec());
        let topic = || {
            if seen.rkt.is_null() {
                return String::new();
            }
            CStr::from_ptr(sys::rd_kafka_topic_name(seen.rkt)).to_string_lossy().into_owned()
        };
        let polled = match seen.err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Polled::Record {
                topic: topic(),
                partition: seen.partition,
                key: copy(seen.key.cast(), seen.key_len).unwrap_or_default(),
                value: copy(seen.payload.cast(), seen.len),
            },
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                Polled::End(topic(), seen.partition, seen.offset)
            }
            error => Polled::Error(error.into()),
        };
        sys::rd_kafka_message_destroy(message);
        polled
    }
}
