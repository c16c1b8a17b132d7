//! The iptables data plane under test, over either variant of iptables.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

use portolan_dataplane::iptables::layout::Table;
use portolan_dataplane::iptables::{self, Config, Fake, Kernel as _, Key, Object, Programs, Variant};
use portolan_forward::Family;

use super::{Plane, Sabotage};

/// Over the variant that this machine uses.
pub enum Iptables {}

/// Over the legacy variant.
pub enum IptablesLegacy {}

type Faked = iptables::Iptables<Fake>;
type Real = iptables::Iptables<Programs>;

fn real(programs: Result<Programs, iptables::Error>) -> Real {
    iptables::Iptables::new(programs.expect("the tests need iptables"), Config::default())
}

macro_rules! plane {
    ($name:ident, $programs:expr) => {
        impl Plane for $name {
            type Real = Real;
            type Fake = Faked;

            // The chain that picks, whatever happens to it.
            const CHANGE_COSTS: (usize, usize, usize) = (1, 1, 1);

            fn open() -> Real {
                real($programs)
            }

            fn fake() -> Faked {
                iptables::Iptables::new(Fake::new(), Config::default())
            }

            fn restart(before: &mut Faked) -> Faked {
                iptables::Iptables::new(std::mem::take(before.kernel()), Config::default())
            }

            fn fail_next(plane: &mut Faked) {
                plane.kernel().fail_next();
            }

            fn sabotages() -> Vec<Sabotage<Faked>> {
                sabotages()
            }

            fn content(key: &Key, object: &Object) -> String {
                format!("{key:?} = {object:?}")
            }

            fn endpoints(family: Family) -> usize {
                let saved = real($programs).kernel().save(family, Table::Nat).unwrap();
                saved.lines().filter(|line| line.contains("-j DNAT")).count()
            }

            fn remembered(family: Family) -> BTreeSet<IpAddr> {
                remembered(family)
            }
        }
    };
}

plane!(Iptables, Programs::find());
plane!(IptablesLegacy, Programs::of(Variant::Legacy));

fn sabotages() -> Vec<Sabotage<Faked>> {
    fn chain<'a>(plane: &'a mut Faked, table: Table, name: &str) -> &'a mut Vec<String> {
        plane.kernel().chain(Family::V4, table, name).unwrap()
    }
    vec![
        ("flush the root", |plane| chain(plane, Table::Nat, "PORTOLAN-IP").clear()),
        ("flush what refuses", |plane| chain(plane, Table::Filter, "PORTOLAN-REFUSE").clear()),
        ("unhook", |plane| chain(plane, Table::Filter, "FORWARD").clear()),
        ("hook twice", |plane| chain(plane, Table::Nat, "OUTPUT").push("-j PORTOLAN-SERVICES".into())),
        ("a rule of their own", |plane| {
            chain(plane, Table::Nat, "PORTOLAN-IP").push("-m limit --limit 1/sec -j LOG".into());
        }),
        ("delete it all", |plane| plane.kernel().flush(Family::V4, Table::Nat)),
    ]
}

/// Every list of ours names its clients one a line: `src=10.0.0.1 ttl: 64 last_seen: ...`.
fn remembered(family: Family) -> BTreeSet<IpAddr> {
    let mut clients = BTreeSet::new();
    for list in fs::read_dir("/proc/thread-self/net/xt_recent").unwrap().flatten() {
        let text = fs::read_to_string(list.path()).unwrap();
        let sources = text.lines().filter_map(|line| line.strip_prefix("src=")?.split(' ').next());
        clients.extend(sources.map(|source| source.parse::<IpAddr>().unwrap()));
    }
    clients.retain(|client| Family::of(*client) == family);
    clients
}
