//! Inserts on their way at the same time.
//!
//! Guarantees: small ones go together, as they wait for the server's disk more than they work; of large ones there are two,
//! of which the server reads one while it writes the other. When one fails, the others are waited for: an insert that is cut
//! short is harder to mend than one that arrived or did not. Dropping this cuts them short.

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::super::Failure;

/// Most of them.
const AT_A_TIME: usize = 8;
/// Most bytes of them, where there are more than two.
const BYTES: usize = 4 << 20;

/// See the module.
pub(super) struct Inserts<'a> {
    runtime: &'a Handle,
    flying: JoinSet<(usize, Result<(), Failure>)>,
    bytes: usize,
}

impl<'a> Inserts<'a> {
    pub(super) fn on(runtime: &'a Handle) -> Self {
        Self { runtime, flying: JoinSet::new(), bytes: 0 }
    }

    /// Sends one more of so many bytes as soon as there is room.
    pub(super) async fn push(
        &mut self,
        bytes: usize,
        insert: impl Future<Output = Result<(), Failure>> + Send + 'static,
    ) -> Result<(), Failure> {
        while self.flying.len() >= AT_A_TIME || (self.flying.len() >= 2 && self.bytes + bytes > BYTES) {
            self.one().await?;
        }
        self.bytes += bytes;
        self.flying.spawn_on(async move { (bytes, insert.await) }, self.runtime);
        Ok(())
    }

    /// Waits for all.
    pub(super) async fn arrive(&mut self) -> Result<(), Failure> {
        while !self.flying.is_empty() {
            self.one().await?;
        }
        Ok(())
    }

    async fn one(&mut self) -> Result<(), Failure> {
        let inserted = match self.flying.join_next().await {
            Some(Ok((bytes, inserted))) => {
                self.bytes -= bytes;
                inserted
            }
            Some(Err(error)) => Err(Failure::Store(format!("insert not awaited: {error}"))),
            None => Ok(()),
        };
        if inserted.is_err() {
            while self.flying.join_next().await.is_some() {}
        }
        inserted
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// The most that were on their way at a time.
    fn most_of(sizes: &[usize]) -> usize {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        runtime.block_on(async {
            let mut inserts = Inserts::on(runtime.handle());
            for bytes in sizes {
                let (now, most) = (Arc::clone(&now), Arc::clone(&most));
                let insert = async move {
                    most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    now.fetch_sub(1, Ordering::Relaxed);
                    Ok(())
                };
                inserts.push(*bytes, insert).await.unwrap();
            }
            inserts.arrive().await.unwrap();
        });
        assert_eq!(now.load(Ordering::Relaxed), 0, "all were waited for");
        most.load(Ordering::Relaxed)
    }

    #[test]
    fn small_ones_go_together_and_large_ones_in_twos() {
        assert_eq!(most_of(&[1000; 30]), AT_A_TIME);
        assert_eq!(most_of(&[BYTES; 5]), 2);
        assert_eq!(most_of(&[BYTES / 4; 9]), 4);
    }

    #[test]
    fn after_a_failure_the_others_are_waited_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let arrived = Arc::new(AtomicUsize::new(0));
        let done = runtime.block_on(async {
            let mut inserts = Inserts::on(runtime.handle());
            inserts.push(1, async { Err(Failure::Store("refused".to_owned())) }).await?;
            let arrived = Arc::clone(&arrived);
            let slow = async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                arrived.fetch_add(1, Ordering::Relaxed);
                Ok(())
            };
            inserts.push(1, slow).await?;
            inserts.arrive().await
        });
        assert!(matches!(done, Err(Failure::Store(why)) if why == "refused"));
        assert_eq!(arrived.load(Ordering::Relaxed), 1);
    }
}
