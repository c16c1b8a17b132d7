//! Takes chains out of tables that others use too: what to feed to `iptables-restore --noflush`, given what
//! `iptables-save` printed.

use std::fmt::Write as _;

/// Per table: declaring a chain empties it, then the jumps into it go, then the chain. `None` if no such chain is there.
pub fn removal(saved: &str, is_to_go: impl Fn(&str) -> bool) -> Option<String> {
    let mut script = String::new();
    for table in saved.split("\n*").skip_while(|part| part.is_empty()) {
        let Some(table) = table.strip_prefix('*').or_else(|| (!table.starts_with('#')).then_some(table))
        else {
            continue;
        };
        let name = table.lines().next().unwrap_or_default().trim();
        let declared = table.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
        let chains: Vec<&str> = declared.filter(|chain| is_to_go(chain)).collect();
        if chains.is_empty() || name.is_empty() {
            continue;
        }
        // Writing to a String cannot fail.
        _ = writeln!(script, "*{name}");
        for chain in &chains {
            _ = writeln!(script, ":{chain} - [0:0]");
        }
        for rule in table.lines().filter_map(|line| line.strip_prefix("-A ")) {
            let from = rule.split(' ').next().unwrap_or_default();
            if !is_to_go(from) && target(rule).is_some_and(&is_to_go) {
                _ = writeln!(script, "-D {rule}");
            }
        }
        for chain in &chains {
            _ = writeln!(script, "-X {chain}");
        }
        script.push_str("COMMIT\n");
    }
    (!script.is_empty()).then_some(script)
}

/// The chain that a rule leads to.
fn target(rule: &str) -> Option<&str> {
    let mut words = rule.split(' ').skip_while(|word| !matches!(*word, "-j" | "-g"));
    words.nth(1)
}
