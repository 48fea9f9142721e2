//! What a process costs the machine, and which program it is: metrics under the names that all of Prometheus' clients use.
//!
//! Goes out, at each scrape: `process_…` (CPU, memory, descriptors, threads, start) and
//! `process_network_{receive,transmit}_bytes_total`, which the kernel counts for the whole network namespace: a container's own,
//! on a gateway those of the machine; `weir_build_info`, `weir_live`, `weir_ready`. On failure: what /proc does not say is left
//! out.

use metrics::{counter, gauge};
use metrics_process::Collector;

use crate::admin::Health;

/// Asks the kernel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine(Collector);

impl Machine {
    /// Brings the metrics up to date.
    pub(crate) fn collect(&self, live: &Health, ready: &Health) {
        self.0.collect();
        if let Some((received, sent)) =
            std::fs::read_to_string("/proc/self/net/netstat").ok().and_then(|t| octets(&t))
        {
            counter!("process_network_receive_bytes_total").absolute(received);
            counter!("process_network_transmit_bytes_total").absolute(sent);
        }
        gauge!("weir_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        gauge!("weir_live").set(f64::from(u8::from(live.is_good())));
        gauge!("weir_ready").set(f64::from(u8::from(ready.is_good())));
    }
}

/// Bytes that came in and went out; a line with names stands before each line with numbers.
fn octets(netstat: &str) -> Option<(u64, u64)> {
    let mut lines = netstat.lines().filter(|line| line.starts_with("IpExt:"));
    let (names, numbers) = (lines.next()?.split_whitespace(), lines.next()?.split_whitespace());
    let of = |wanted: &str| {
        let mut pairs = names.clone().zip(numbers.clone());
        pairs.find(|(name, _)| *name == wanted)?.1.parse().ok()
    };
    Some((of("InOctets")?, of("OutOctets")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_by_their_names() {
        let text = "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 3 4 5\n";
        assert_eq!(octets(text), Some((4, 5)));
        assert_eq!(octets("IpExt: InOctets\nIpExt: x\n"), None);
        assert_eq!(octets(""), None);
        let own = std::fs::read_to_string("/proc/self/net/netstat").unwrap();
        assert!(octets(&own).is_some());
    }
}
