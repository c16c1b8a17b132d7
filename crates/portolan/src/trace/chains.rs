//! Rules of the nft variant of iptables, in iptables' words: as expressions of `nf_tables` they are opaque.

use std::collections::HashMap;

use portolan_dataplane::iptables::kernel::legacy_is_used;
use portolan_dataplane::iptables::layout::Table as Which;
use portolan_dataplane::iptables::{self, Kernel as _, Programs, Variant};
use portolan_forward::Family;
use portolan_netlink::netns::Netns;
use portolan_netlink::nft::{self, Handled, Rule, Table};

/// The kernel lists a chain's rules in the order in which `iptables-save` prints them, which says no handles. Nothing where
/// the two do not agree on how many there are, or where the table is not iptables'.
pub(super) fn texts(node: &Netns, table: &Table, rules: &[Handled<Rule>]) -> HashMap<u64, String> {
    let family = match table.family {
        nft::Family::Ip => Family::V4,
        nft::Family::Ip6 => Family::V6,
        _ => return HashMap::new(),
    };
    let Some(which) = Which::ALL.into_iter().find(|which| which.as_str() == &*table.name) else {
        return HashMap::new();
    };
    let saved = node.run(|| Programs::of(Variant::Nft).and_then(|mut programs| programs.save(family, which)));
    match saved {
        Ok(Ok(saved)) => in_order(&saved, rules),
        _ => HashMap::new(),
    }
}

fn in_order(saved: &str, rules: &[Handled<Rule>]) -> HashMap<u64, String> {
    let mut lines: HashMap<&str, Vec<&str>> = HashMap::new();
    for line in saved.lines().filter_map(|line| line.strip_prefix("-A ")) {
        let (chain, rule) = line.split_once(' ').unwrap_or((line, ""));
        lines.entry(chain).or_default().push(rule);
    }
    let mut chains: HashMap<&str, Vec<u64>> = HashMap::new();
    for rule in rules {
        chains.entry(&rule.item.chain).or_default().push(rule.handle);
    }
    let alike = chains.into_iter().filter_map(|(chain, handles)| {
        let lines = lines.get(chain).filter(|lines| lines.len() == handles.len())?;
        Some(handles.into_iter().zip(lines.iter().map(|line| (*line).to_owned())))
    });
    alike.flatten().collect()
}

/// Why nothing is told of the rules that a packet meets in this namespace, if it is for iptables-legacy.
pub(super) fn why_silent(node: &Netns) -> Option<String> {
    let holders = node.run(|| legacy_is_used().then(iptables::holders)).ok()??;
    let is_legacy =
        !holders.is_empty() && holders.iter().all(|holder| holder.contains(Variant::Legacy.as_str()));
    is_legacy.then(|| {
        "The node's rules are iptables-legacy's, and the kernel does not tell which of them a packet meets: the answer, \
         the flow and what others have in nf_tables are all there is to see."
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_matched_by_their_place_in_the_chain() {
        let table = Table::new(nft::Family::Ip, "nat");
        let rule = |chain: &str, handle| Handled { handle, item: Rule::new(&table, chain, Vec::new()) };
        let rules = [rule("OUTPUT", 7), rule("PORTOLAN-IP", 9), rule("OUTPUT", 4), rule("SHORT", 5)];
        let saved = "*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -j A\n-A OUTPUT -j B\n-A PORTOLAN-IP\nCOMMIT\n";
        let texts = in_order(saved, &rules);
        let expected = [(7, "-j A"), (4, "-j B"), (9, "")].map(|(handle, text)| (handle, text.to_owned()));
        assert_eq!(texts, HashMap::from(expected));
    }
}
