//! Statements and requests of tests to the stores: preparing them, damaging them, looking into them.
//!
//! Comes in: what is asked, as the store wants it. Goes out: its answer. On failure: an error with the store's words.

use anyhow::{Context, ensure};
use mysql_async::prelude::Queryable;

use super::{Oracle, clickhouse, elasticsearch};
use crate::addresses::{MYSQL_ADMIN, MYSQL_USER};

impl Oracle {
    /// Runs one statement in MySQL, for preparing or damaging it; gives the number of rows it touched.
    ///
    /// # Errors
    /// The server's.
    pub fn in_mysql(&self, statement: &str) -> anyhow::Result<u64> {
        self.runtime.block_on(async {
            let mut connection = self.mysql.get_conn().await.context("MySQL")?;
            connection.query_drop(statement).await.with_context(|| statement.to_owned())?;
            Ok(connection.affected_rows())
        })
    }

    /// The same, by a user who may do anything.
    ///
    /// # Errors
    /// The server's.
    pub fn as_admin_in_mysql(&self, statement: &str) -> anyhow::Result<()> {
        let url = self.addresses.mysql_url.replace(&format!("//{MYSQL_USER}:"), &format!("//{MYSQL_ADMIN}:"));
        self.runtime.block_on(async {
            let mut connection = mysql_async::Conn::from_url(url).await.context("MySQL")?;
            connection.query_drop(statement).await.with_context(|| statement.to_owned())?;
            Ok(connection.disconnect().await?)
        })
    }

    /// The first column of a SELECT in MySQL, as texts.
    ///
    /// # Errors
    /// The server's.
    pub fn rows_in_mysql(&self, select: &str) -> anyhow::Result<Vec<String>> {
        self.runtime.block_on(async {
            let mut connection = self.mysql.get_conn().await.context("MySQL")?;
            connection.query(select).await.with_context(|| select.to_owned())
        })
    }

    /// Runs one statement in ClickHouse and gives its answer.
    ///
    /// # Errors
    /// The server's.
    pub fn in_clickhouse(&self, statement: &str) -> anyhow::Result<String> {
        let url = &self.addresses.clickhouse_url;
        let answer = self.runtime.block_on(clickhouse::execute(&self.http, url, statement))?;
        String::from_utf8(answer).context("answer of ClickHouse")
    }

    /// Posts one request to Elasticsearch and gives its answer.
    ///
    /// # Errors
    /// The server's.
    pub fn in_elasticsearch(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<serde_json::Value> {
        let url = format!("{}/{path}", self.addresses.elasticsearch_url);
        self.runtime.block_on(elasticsearch::post(&self.http, &url, body))
    }

    /// Gets something from Elasticsearch.
    ///
    /// # Errors
    /// The server's.
    pub fn get_from_elasticsearch(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let url = format!("{}/{path}", self.addresses.elasticsearch_url);
        self.runtime.block_on(elasticsearch::get(&self.http, &url))
    }

    /// Lets searches in Elasticsearch find everything that is in.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn refresh_elasticsearch(&self) -> anyhow::Result<()> {
        self.runtime.block_on(elasticsearch::refresh(&self.http, &self.addresses.elasticsearch_url))
    }

    /// Puts something, as settings, into Elasticsearch.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn put_in_elasticsearch(&self, path: &str, body: &serde_json::Value) -> anyhow::Result<()> {
        let url = format!("{}/{path}", self.addresses.elasticsearch_url);
        self.runtime.block_on(elasticsearch::put(&self.http, &url, body)).map(drop)
    }

    /// Deletes an index of Elasticsearch, if it is there.
    ///
    /// # Errors
    /// The server's.
    pub fn remove_in_elasticsearch(&self, index: &str) -> anyhow::Result<()> {
        let url = format!("{}/{index}?ignore_unavailable=true", self.addresses.elasticsearch_url);
        self.runtime.block_on(async {
            let answer = self.http.delete(url).send().await.context("Elasticsearch")?;
            ensure!(
                answer.status().is_success(),
                "Elasticsearch, delete of {index}: {}",
                answer.text().await?
            );
            Ok(())
        })
    }

    /// Deletes one document of Elasticsearch, by its index and id.
    ///
    /// # Errors
    /// The server's.
    pub fn delete_in_elasticsearch(&self, index: &str, id: &str) -> anyhow::Result<()> {
        let url = format!("{}/{index}/_doc/{id}?refresh=true", self.addresses.elasticsearch_url);
        self.runtime.block_on(async {
            let answer = self.http.delete(url).send().await.context("Elasticsearch")?;
            ensure!(answer.status().is_success(), "Elasticsearch, delete of {id}: {}", answer.text().await?);
            Ok(())
        })
    }
}
