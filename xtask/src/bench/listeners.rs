//! Who on this machine listens for changes of nftables rules.
//!
//! The kernel tells listeners of every element that a transaction adds, and whether there are any it knows of all
//! network namespaces together: one listener anywhere slows every large transaction of the machine down.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// `NETLINK_NETFILTER`, and the bit of its group of nftables.
const NETFILTER: &str = "12";
const NFTABLES: u32 = 1 << 6;

/// Sockets in the group, over the network namespaces of all processes and their threads.
pub(crate) fn count() -> usize {
    let mut seen = BTreeSet::new();
    let mut found = 0;
    for process in directories(Path::new("/proc")) {
        for thread in directories(&process.join("task")) {
            let Ok(namespace) = fs::read_link(thread.join("ns/net")) else { continue };
            if seen.insert(namespace) {
                found += fs::read_to_string(thread.join("net/netlink")).map_or(0, |text| of_table(&text));
            }
        }
    }
    found
}

/// Those named by a number.
fn directories(of: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(of).into_iter().flatten().flatten();
    let numbered = entries.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    numbered.map(|entry| entry.path()).collect()
}

fn of_table(text: &str) -> usize {
    let listens = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let of_netfilter = fields.next() == Some(NETFILTER);
        let groups = fields.nth(1).and_then(|groups| u32::from_str_radix(groups, 16).ok());
        of_netfilter && groups.is_some_and(|groups| groups & NFTABLES != 0)
    };
    text.lines().skip(1).filter(listens).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_in_the_group_are_counted() {
        let text = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
            ffff8b1b03f7a000 0   2187       00000551 0        0        0     2        0        19443\n\
            ffff8b1b03f7a800 12  2187       00000040 0        0        0     2        0        19444\n\
            ffff8b1b03f7b000 12  2188       00000000 0        0        0     2        0        19445\n";
        assert_eq!(of_table(text), 1);
    }
}
