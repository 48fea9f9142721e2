//! Cuts ways on loopback, with a table of its own in nftables.
//!
//! Comes in: ports. Goes out: packets to and from them are dropped, or connections reset. Guarantees: nothing but
//! loopback is touched; the table is gone when the [`Cut`] is dropped, and after [`sweep`].

use super::run;

const TABLE: &str = "weir_chaos";

/// How a way is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Packets vanish.
    Drop,
    /// Connections are reset.
    Reset,
}

/// A way that is cut while this lives.
#[derive(Debug)]
pub struct Cut(());

impl Cut {
    /// Cuts the way to these ports on loopback.
    ///
    /// # Errors
    /// What `nft` says.
    pub fn ports(ports: &[u16], how: How) -> anyhow::Result<Self> {
        sweep()?;
        run(&["nft", "add", "table", "inet", TABLE])?;
        let cut = Self(());
        let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let chain = "{ type filter hook output priority 0; }";
        run(&["nft", "add", "chain", "inet", TABLE, "out", chain])?;
        let verdict: &[&str] = match how {
            How::Drop => &["drop"],
            How::Reset => &["reject", "with", "tcp", "reset"],
        };
        for side in ["dport", "sport"] {
            let ports = format!("{{ {list} }}");
            let rule = ["nft", "add", "rule", "inet", TABLE, "out", "oif", "lo", "tcp", side, &ports];
            run(&[&rule, verdict].concat())?;
        }
        Ok(cut)
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let _told_by_the_next_cut = sweep();
    }
}

/// Removes the table that a killed run left.
///
/// # Errors
/// What `nft` says.
pub fn sweep() -> anyhow::Result<()> {
    // To add what is there is no error, so the deletion never is one.
    run(&["nft", "add", "table", "inet", TABLE])?;
    run(&["nft", "delete", "table", "inet", TABLE])
}
