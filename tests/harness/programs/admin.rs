//! The admin ports of the programs, over HTTP.
//!
//! Comes in: an address. Goes out: pages, and the metrics on them as numbers.
//! On failure: no answer within two seconds, or another than 200, is `None`.

use std::time::Duration;

use tokio::runtime::Runtime;
use weir_shared::metrics::page;

/// Asks admin ports.
pub struct Admin {
    runtime: Runtime,
    http: reqwest::Client,
}

impl Admin {
    /// Opens nothing yet.
    ///
    /// # Errors
    /// When the operating system refuses a runtime.
    pub fn new() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // A connection that is kept may lead to a process that was killed since.
        let http =
            reqwest::Client::builder().timeout(Duration::from_secs(2)).pool_max_idle_per_host(0).build()?;
        Ok(Self { runtime, http })
    }

    /// The page, whatever it says; empty when nobody answers.
    #[must_use]
    pub fn words(&self, address: &str, path: &str) -> String {
        self.runtime.block_on(async {
            let answer = self.http.get(format!("http://{address}{path}")).send().await;
            match answer {
                Ok(answer) => answer.text().await.unwrap_or_default(),
                Err(_) => String::new(),
            }
        })
    }

    /// The page, if it is there and says 200.
    #[must_use]
    pub fn page(&self, address: &str, path: &str) -> Option<String> {
        self.runtime.block_on(async {
            let answer = self.http.get(format!("http://{address}{path}")).send().await.ok()?;
            if answer.status().is_success() { answer.text().await.ok() } else { None }
        })
    }
}

/// One line of a metrics page.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its name.
    pub name: String,
    /// Its labels: `name="value"`, with commas between.
    pub labels: String,
    /// Its value.
    pub value: f64,
}

/// A metrics page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<Sample>);

impl Samples {
    /// Reads a page; comments and what is no sample are left out.
    #[must_use]
    pub fn parse(page: &str) -> Self {
        let owned = |sample: page::Sample<'_>| {
            let labels: Vec<_> =
                sample.labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
            Sample { name: sample.name.to_owned(), labels: labels.join(","), value: sample.value }
        };
        Self(page::samples(page).map(owned).collect())
    }

    /// The sum over all samples of this name whose labels contain `label` (empty: all of them).
    #[must_use]
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        self.named(name).filter(|s| s.labels.contains(label)).map(|s| s.value).sum()
    }

    /// The largest of the samples of this name whose labels contain `label`.
    pub fn max(&self, name: &str, label: &str) -> Option<f64> {
        let values = self.named(name).filter(|s| s.labels.contains(label)).map(|s| s.value);
        values.reduce(f64::max)
    }

    /// All samples of this name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |s| s.name == name)
    }

    /// The value below which the share `q` (0 to 1) of a histogram lies, in its unit, from its buckets: linear
    /// within a bucket, as Prometheus' `histogram_quantile` does. `None` when it is empty or `q` lies beyond the
    /// last bound.
    #[must_use]
    pub fn quantile(&self, histogram: &str, label: &str, q: f64, since: &Self) -> Option<f64> {
        let name = format!("{histogram}_bucket");
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self.named(&name).filter(|s| s.labels.contains(label)) {
            let bound = sample.labels.split("le=\"").nth(1)?.split('"').next()?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            let before = since.named(&name).find(|s| s.labels == sample.labels).map_or(0.0, |s| s.value);
            let value = sample.value - before;
            match buckets.iter_mut().find(|(b, _)| b.total_cmp(&bound).is_eq()) {
                Some((_, sum)) => *sum += value,
                None => buckets.push((bound, value)),
            }
        }
        quantile(&mut buckets, q)
    }
}

fn quantile(buckets: &mut [(f64, f64)], q: f64) -> Option<f64> {
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total = buckets.last()?.1;
    let (wanted, mut below) = (q * total, (0.0, 0.0));
    for &(bound, count) in buckets.iter() {
        if count >= wanted && count > below.1 {
            let share = (wanted - below.1) / (count - below.1);
            return bound.is_finite().then_some(below.0 + (bound - below.0) * share);
        }
        below = (bound, count);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# TYPE a_total counter\na_total{topic=\"x\"} 2\na_total{topic=\"y\"} 3\nb 1.5\n\n\
        h_seconds_bucket{sink=\"m\",le=\"0.1\"} 50\nh_seconds_bucket{sink=\"m\",le=\"0.2\"} 99\n\
        h_seconds_bucket{sink=\"m\",le=\"+Inf\"} 100\nh_seconds_sum{sink=\"m\"} 9\n";

    #[test]
    fn sums_and_quantiles() {
        let page = Samples::parse(PAGE);
        assert!((page.sum("a_total", "") - 5.0).abs() < 1e-9);
        assert!((page.sum("a_total", "topic=\"y\"") - 3.0).abs() < 1e-9);
        assert!((page.sum("b", "") - 1.5).abs() < 1e-9);
        let none = Samples::default();
        let q = |q| page.quantile("h_seconds", "sink=\"m\"", q, &none);
        assert!((q(0.5).unwrap() - 0.1).abs() < 1e-9);
        assert!((q(0.99).unwrap() - 0.2).abs() < 1e-9);
        assert_eq!(q(0.999), None);
        assert_eq!(page.quantile("h_seconds", "", 0.5, &page), None);
    }
}
