//! Whether the kernel of the node holds exactly what the explanation says, as far as this Service is concerned.

use portolan_dataplane::ipvs::{self, Kernel as _, Machine};
use portolan_dataplane::{Change, Driver, Iptables, Ipvs, Nftables, Objects, Words, iptables, nftables};
use portolan_forward::{Family, ServiceKey, Table};
use portolan_netlink::ipvs::is_loaded;
use portolan_netlink::netns::Netns;
use portolan_netlink::nft::Socket;

use super::answer::Aimed;
use super::report::{KernelPart, KernelState};

pub(crate) fn not_looked_at(why: impl Into<String>) -> KernelPart {
    KernelPart {
        state: KernelState::NotLookedAt,
        compared: 0,
        missing: Vec::new(),
        unexpected: Vec::new(),
        different: Vec::new(),
        note: Some(why.into()),
    }
}

/// Compares within the node's namespace.
pub(crate) fn look(netns: &Netns, aimed: &Aimed) -> KernelPart {
    let family = Family::of(aimed.packet.destination);
    let compared = netns.run(|| compare(&aimed.table, aimed.service.as_ref(), family));
    match compared {
        Ok(Ok(part)) => part,
        Ok(Err(why)) => not_looked_at(why),
        Err(error) => not_looked_at(error.to_string()),
    }
}

/// Whatever mode the proxy of this node is in: what it wrote says it.
fn compare(table: &Table, service: Option<&ServiceKey>, family: Family) -> Result<KernelPart, String> {
    let root = |error: std::io::Error| format!("{error}; reading the kernel's rules needs root");
    if let Some(part) = compare_ipvs(table, service, family)? {
        return Ok(part);
    }
    let nftables = Nftables::new(Socket::open().map_err(root)?, nftables::Config::default());
    if let Some(part) = compare_with(nftables, table, service, family)? {
        return Ok(part);
    }
    if let Ok(programs) = iptables::Programs::find() {
        let iptables = Iptables::new(programs, iptables::Config::default());
        if let Some(part) = compare_with(iptables, table, service, family)? {
            return Ok(part);
        }
    }
    Err("there is no table of Portolan's: is its proxy running on this node?".into())
}

/// Mode ipvs comes first: the rules before IPVS may be those of another mode with other contents.
fn compare_ipvs(
    table: &Table,
    service: Option<&ServiceKey>,
    family: Family,
) -> Result<Option<KernelPart>, String> {
    let machine = || Machine::open().map_err(|error| error.to_string());
    if !is_loaded() || !machine()?.ranges().is_ok_and(|ranges| ranges.contains(&family)) {
        return Ok(None);
    }
    let config = || ipvs::Config { families: vec![family], ..ipvs::Config::default() };
    if let Ok(socket) = Socket::open() {
        let place = nftables::Config { place: nftables::Place::BeforeIpvs, ..nftables::Config::default() };
        let plane = Ipvs::new(Nftables::new(socket, place), machine()?, config());
        if let Some(part) = compare_with(plane, table, service, family)? {
            return Ok(Some(part));
        }
    }
    let Ok(programs) = iptables::Programs::find() else { return Ok(None) };
    let front = Iptables::new(programs, iptables::Config::default());
    compare_with(Ipvs::new(front, machine()?, config()), table, service, family)
}

/// `None` where nothing was written by this data plane.
fn compare_with<D: Words>(
    plane: D,
    table: &Table,
    service: Option<&ServiceKey>,
    family: Family,
) -> Result<Option<KernelPart>, String> {
    let mut driver = Driver::new(plane);
    let changes = driver.differences(table).map_err(|error| error.to_string())?;
    let has_no_ground = |change: &Change<D::Key, D::Value>| {
        change.from.is_none() && D::is_ground(&change.key) && D::family(&change.key) == family
    };
    if changes.iter().any(has_no_ground) {
        return Ok(None);
    }
    let entry = service.and_then(|key| table.get(key));
    let wanted = wanted(driver.plane(), table, service, family);
    let concerned = changes.into_iter().filter(|change| {
        D::family(&change.key) == family && D::concerns(change, &wanted, entry.map(|table| &**table))
    });
    Ok(Some(part::<D>(concerned, wanted.len())))
}

/// Every object that the Service and the node need, in this family.
fn wanted<D: Words>(
    plane: &D,
    table: &Table,
    service: Option<&ServiceKey>,
    family: Family,
) -> Objects<D::Key, D::Value> {
    let mut wanted = Objects::new();
    plane.base(table.node(), &mut wanted);
    if let Some(service) = service.and_then(|key| table.get(key)) {
        let entry = plane.lower(service, None);
        plane.objects(table.node(), service, &entry, &mut wanted);
    }
    wanted.retain(|key, _| D::family(key) == family);
    wanted
}

fn part<D: Words>(changes: impl Iterator<Item = Change<D::Key, D::Value>>, compared: usize) -> KernelPart {
    let mut part = KernelPart {
        state: KernelState::Same,
        compared,
        missing: Vec::new(),
        unexpected: Vec::new(),
        different: Vec::new(),
        note: None,
    };
    let mut settings = false;
    for Change { key, from, to } in changes {
        part.state = KernelState::Drifted;
        settings |= D::depends_on_settings(&key);
        match (&from, &to) {
            (None, _) => part.missing.push(D::describe(&key, to.as_ref())),
            (Some(from), None) => part.unexpected.push(D::describe(&key, Some(from))),
            (Some(from), Some(to)) => {
                let held = D::describe(&key, Some(from));
                part.different.push(format!("{held}, should be {}", D::describe(&key, Some(to))));
            }
        }
    }
    if part.state == KernelState::Drifted {
        part.note = Some(
            if settings {
                "Settings differ: give trace the proxy's own (--proxy-config, or --cluster-cidr and its like)."
            } else {
                "A proxy that runs mends this within a second: is it running on this node? Its log says more."
            }
            .into(),
        );
    }
    part
}
