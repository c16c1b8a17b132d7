//! A small iptables: it takes what `iptables-restore --noflush` takes from us, refuses what the kernel would refuse, and
//! prints what `iptables-save` prints.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use portolan_forward::Family;

use super::kernel::{Error, Kernel};
use super::layout::Table;
use super::rules::Rule;

type Chains = BTreeMap<String, Vec<String>>;

#[derive(Debug, Default)]
pub struct Fake {
    tables: BTreeMap<(Family, Table), Chains>,
    refuse_next: bool,
    /// As the legacy variant does.
    pub forgets_counts: bool,
    /// Everything that was fed, one script after the other.
    pub scripts: Vec<String>,
}

const BUILTIN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

impl Fake {
    pub fn new() -> Self {
        Self::default()
    }

    /// The next write fails, and changes nothing.
    pub fn fail_next(&mut self) {
        self.refuse_next = true;
    }

    /// The rules of a table's chain, to look at or to spoil.
    pub fn chain(&mut self, family: Family, table: Table, chain: &str) -> Option<&mut Vec<String>> {
        self.tables.get_mut(&(family, table))?.get_mut(chain)
    }

    /// Removes all chains of a table that are not iptables' own, and every rule.
    pub fn flush(&mut self, family: Family, table: Table) {
        self.tables.remove(&(family, table));
    }
}

fn builtin() -> Chains {
    BUILTIN.iter().map(|name| ((*name).to_owned(), Vec::new())).collect()
}

impl Kernel for Fake {
    fn families(&self) -> Vec<Family> {
        Family::ALL.to_vec()
    }

    fn keeps_counting(&self) -> bool {
        !self.forgets_counts
    }

    fn save(&mut self, family: Family, table: Table) -> Result<String, Error> {
        let chains = self.tables.entry((family, table)).or_insert_with(builtin);
        let mut text = format!("*{}\n", table.as_str());
        for name in chains.keys() {
            // Writing to a String cannot fail.
            _ = writeln!(text, ":{name} - [0:0]");
        }
        for (name, rules) in chains {
            for rule in rules {
                _ = writeln!(text, "-A {name} {rule}");
            }
        }
        Ok(text + "COMMIT\n")
    }

    fn restore(&mut self, family: Family, script: &str) -> Result<(), Error> {
        self.scripts.push(script.to_owned());
        if std::mem::take(&mut self.refuse_next) {
            return Err(refused("told to fail"));
        }
        let (mut table, mut chains) = (Table::Nat, builtin());
        for line in script.lines() {
            match line {
                "*nat" | "*filter" => {
                    table = if line == "*nat" { Table::Nat } else { Table::Filter };
                    chains = self.tables.get(&(family, table)).cloned().unwrap_or_else(builtin);
                }
                "COMMIT" => {
                    check(&chains)?;
                    self.tables.insert((family, table), std::mem::take(&mut chains));
                }
                line => apply(&mut chains, line)?,
            }
        }
        Ok(())
    }
}

fn apply(chains: &mut Chains, line: &str) -> Result<(), Error> {
    if let Some(declared) = line.strip_prefix(':') {
        let name = declared.split(' ').next().unwrap_or_default();
        if name.len() > super::layout::CHAIN_NAME_MAX {
            return Err(refused(&format!("chain name {name} is too long")));
        }
        chains.insert(name.to_owned(), Vec::new());
        return Ok(());
    }
    let (verb, rest) = line.split_once(' ').ok_or_else(|| refused(line))?;
    let (name, rule) = rest.split_once(' ').unwrap_or((rest, ""));
    let chain = chains.get_mut(name).ok_or_else(|| refused(&format!("no chain {name}: {line}")))?;
    match verb {
        "-A" => chain.push(rule.to_owned()),
        "-I" => chain.insert(0, rule.strip_prefix("1 ").unwrap_or(rule).to_owned()),
        "-D" => {
            let place = chain.iter().position(|held| held == rule);
            chain.remove(place.ok_or_else(|| refused(&format!("no such rule: {line}")))?);
        }
        "-X" if chain.is_empty() => drop(chains.remove(name)),
        _ => return Err(refused(line)),
    }
    Ok(())
}

/// Every rule leads to a chain that exists.
fn check(chains: &Chains) -> Result<(), Error> {
    for (name, rules) in chains {
        for rule in rules {
            if let Some(target) = Rule::parse(rule).leads_to().filter(|t| !chains.contains_key(t.as_str())) {
                return Err(refused(&format!("{name} leads to {target}, which does not exist")));
            }
        }
    }
    Ok(())
}

fn refused(said: &str) -> Error {
    Error::Refused { program: "fake".into(), said: said.to_owned() }
}
