//! Tables made by hand, changed and read again; what the kernel says of them is in `tests/legacy.rs`.

use portolan_netlink::xtables::{Blob, Counters, Info};
use proptest::prelude::*;

use super::encode::Layout;
use super::ruleset::Ruleset;
use super::*;

/// A table as the kernel gives it.
type Whole = (Info, Vec<u8>);

/// A table with iptables' own chains and nothing else.
fn empty(layout: Layout) -> Whole {
    let policy = layout.entry(&Rule::parse("-j ACCEPT")).unwrap().bytes;
    let step = policy.len() as u32;
    let mut bytes = policy.repeat(4);
    bytes.extend(layout.chain_head("ERROR"));
    let places = [0, step, 0, 2 * step, 3 * step];
    let size = bytes.len() as u32;
    (Info { valid_hooks: 0b11011, hook_entry: places, underflow: places, entries: 5, size }, bytes)
}

/// What a script makes of a table, and whose counters its entries get.
fn run(layout: Layout, (info, bytes): &Whole, script: &str) -> Option<(Whole, Vec<Counters>)> {
    let mut ruleset = Ruleset::parse(layout, *info, bytes).expect("a table");
    for line in script.lines() {
        apply(layout, &mut ruleset, line)?;
    }
    let mut blob = Blob::default();
    let built = ruleset.build(&mut blob)?;
    let old: Vec<_> = (0..u64::from(info.entries)).map(|n| Counters { packets: n + 1, bytes: 0 }).collect();
    Some(((built.info, blob.entries().to_vec()), built.origins.counters(&old)))
}

const FIRST: &str = ":PORTOLAN-B - [0:0]\n:PORTOLAN-A - [0:0]\n-I PREROUTING 1 -j PORTOLAN-B\n\
    -A PORTOLAN-B -p tcp -g PORTOLAN-A\n-A PORTOLAN-B -m recent --remove --name X --rsource\n\
    -A PORTOLAN-A -p tcp -j DNAT --to-destination 10.0.0.1:80";

#[test]
fn a_table_is_taken_apart_and_put_together_as_it_was() {
    for layout in Family::ALL.map(Layout::of) {
        let table = empty(layout);
        assert_eq!(run(layout, &table, "").unwrap().0, table);
    }
    let table = run(Layout::of(Family::V4), &empty(Layout::of(Family::V4)), FIRST).unwrap().0;
    let (again, counters) = run(Layout::of(Family::V4), &table, "").unwrap();
    assert_eq!(again, table);
    let expected: Vec<u64> = (1..=u64::from(table.0.entries)).collect();
    assert_eq!(counters.iter().map(|counted| counted.packets).collect::<Vec<_>>(), expected);
}

#[test]
fn one_chain_changes_and_the_others_keep_what_they_counted() {
    let layout = Layout::of(Family::V4);
    let table = run(layout, &empty(layout), FIRST).unwrap().0;
    let script = ":PORTOLAN-A - [0:0]\n-A PORTOLAN-A -p tcp -j DNAT --to-destination 10.0.0.2:80\n-A PORTOLAN-A -j RETURN";
    let (changed, counters) = run(layout, &table, script).unwrap();
    assert_eq!(changed.0.entries, table.0.entries + 1);
    let counters: Vec<_> = counters.iter().map(|counted| counted.packets).collect();
    // The hook's rule and four policies, A's head, two new rules, A's tail, B whole, the end.
    assert_eq!(counters, [1, 2, 3, 4, 5, 6, 0, 0, 8, 9, 10, 11, 12, 13]);
    let back = ":PORTOLAN-A - [0:0]\n-A PORTOLAN-A -p tcp -j DNAT --to-destination 10.0.0.1:80";
    assert_eq!(run(layout, &changed, back).unwrap().0, table);
}

#[test]
fn what_is_removed_leaves_the_table_as_it_was() {
    for layout in Family::ALL.map(Layout::of) {
        let before = empty(layout);
        let script = ":PORTOLAN-A - [0:0]\n-I OUTPUT 1 -m conntrack --ctstate NEW -j PORTOLAN-A\n-A PORTOLAN-A -j DROP";
        let table = run(layout, &before, script).unwrap().0;
        let removal =
            ":PORTOLAN-A - [0:0]\n-D OUTPUT -m conntrack --ctstate NEW -j PORTOLAN-A\n-X PORTOLAN-A";
        assert_eq!(run(layout, &table, removal).unwrap().0, before);
    }
}

#[test]
fn what_would_leave_a_hole_is_left_to_the_program() {
    let layout = Layout::of(Family::V4);
    let table = run(layout, &empty(layout), FIRST).unwrap().0;
    for script in [
        "-A PORTOLAN-NOWHERE -j DROP",
        "-A PORTOLAN-A -j PORTOLAN-NOWHERE",
        "-X PORTOLAN-A",
        ":PORTOLAN-A - [0:0]\n-X PORTOLAN-A",
        "-D PREROUTING -j PORTOLAN-A",
        "-A PORTOLAN-A -m limit --limit 1/sec -j DROP",
        "-A PORTOLAN-A -d fd00::1/128 -j DROP",
        ":PREROUTING ACCEPT [0:0]",
        "-F PORTOLAN-A",
    ] {
        assert!(run(layout, &table, script).is_none(), "{script}");
    }
}

proptest! {
    /// What the kernel gives is trusted to be whole, but never to the point of a panic.
    #[test]
    fn no_bytes_make_it_panic(
        at in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        entries in 0..20_u32,
    ) {
        let layout = Layout::of(Family::V6);
        let (mut info, mut bytes) = run(layout, &empty(layout), ":PORTOLAN-A - [0:0]\n-I OUTPUT 1 -j PORTOLAN-A").unwrap().0;
        for (index, byte) in at {
            let place = index.index(bytes.len());
            bytes[place] = byte;
        }
        info.entries = entries;
        if let Some(ruleset) = Ruleset::parse(layout, info, &bytes) {
            ruleset.build(&mut Blob::default());
        }
    }
}
