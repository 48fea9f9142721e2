//! Elasticsearch: documents under ids of their own, then the commit to Kafka.
//!
//! Comes in: guards and troubles ([`model`]). Goes out: what each guard is good for ([`tests`]).
//! Guarantees: follows `cloud/src/sinks/elasticsearch.rs` and `dead_letters.rs` step by step ([`worker`]) against a
//! [`store`] that carries out the documents of a request one by one and late, while workers die and are taken for dead
//! and transactions are left behind ([`troubles`]).
//! Left out: more than one partition in a batch, several indices, documents that the mapping refuses (their letter is
//! that of a record which does not decode), and deletes, of which there are none.

mod model;
mod store;
mod tests;
mod troubles;
mod worker;
