//! Kafka's ids of topics, which rdkafka's safe API does not show: a topic that was deleted and made again has another.
//!
//! Guarantees: no pointer leaves this file; whatever librdkafka hands over is freed here. An unknown id (a broker
//! before 2.8) is empty. On failure: the broker did not answer; ask again.
#![expect(unsafe_code, reason = "DescribeTopics has no safe form in rdkafka 0.39")]

use std::ffi::CString;
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

/// The ids of these topics, in their order: 32 hex digits each.
pub(crate) fn ask<C: ConsumerContext>(
    asker: &BaseConsumer<C>,
    topics: &[&str],
    wait: Duration,
) -> Result<Vec<String>, String> {
    let names: Vec<CString> =
        topics.iter().map(|t| CString::new(*t)).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client lives as long as the borrow, the names until the end of this function; collection, options, queue
    // and event are destroyed once, here, after the last use of what they own.
    unsafe {
        let client = asker.client().native_ptr();
        let queue = sys::rd_kafka_queue_new(client);
        let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = sys::rd_kafka_AdminOptions_new(client, operation);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, wait_ms, ptr::null_mut(), 0);
        sys::rd_kafka_DescribeTopics(client, collection, options, queue);
        let event = sys::rd_kafka_queue_poll(queue, wait_ms);
        let found = if event.is_null() { Err("no answer".to_owned()) } else { read(event, topics.len()) };
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(collection);
        sys::rd_kafka_queue_destroy(queue);
        found
    }
}

/// # Safety
/// The event is one that librdkafka just gave.
unsafe fn read(event: *mut sys::rd_kafka_event_t, wanted: usize) -> Result<Vec<String>, String> {
    // SAFETY: results belong to the event, which the caller keeps until the end of this function.
    unsafe {
        let code: rdkafka::error::RDKafkaErrorCode = sys::rd_kafka_event_error(event).into();
        if code != rdkafka::error::RDKafkaErrorCode::NoError {
            return Err(code.to_string());
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err("an answer of another kind".to_owned());
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if topics.is_null() || count != wanted {
            return Err(format!("{count} topics were described, not {wanted}"));
        }
        let topics = std::slice::from_raw_parts(topics, count);
        let ids = topics.iter().map(|topic| {
            let id = sys::rd_kafka_TopicDescription_topic_id(*topic);
            if id.is_null() {
                return String::new();
            }
            let high = sys::rd_kafka_Uuid_most_significant_bits(id);
            let low = sys::rd_kafka_Uuid_least_significant_bits(id);
            if (high, low) == (0, 0) { String::new() } else { format!("{high:016x}{low:016x}") }
        });
        Ok(ids.collect())
    }
}
