//! Classes: the finite number of ways in which a new connection can be treated.
//!
//! Frontends with the same routes, the same number of endpoints and the same affinity share a class, however many
//! Services there are. A class is a chain (or plainly a drop); its number, by which `frontends` and `classes` know it,
//! is a hash of the chain's name, and the name says everything that the rules depend on. So numbers need no allocator
//! and are the same after a restart.

use std::fmt::Write;

use portolan_forward::{Affinity, Algorithm, Family, Frontend, FrontendKind, PoolScope, PortTable, Route};
use portolan_netlink::nft::Verdict;

use super::layout::REFUSE;

/// By which map the frontend is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entrance {
    /// `frontends`: address . protocol . port
    Address,
    /// `nodeports`: protocol . port
    NodePort,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Masquerade {
    Never,
    Always,
    UnlessPod,
}

/// How an endpoint is picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Choice {
    Random,
    /// Counted per chain, so by all Services that share it.
    RoundRobin,
    /// By a hash of the client's address.
    SourceHash,
}

impl Choice {
    /// What comes closest to what the Service asks for. All endpoints weigh the same here.
    pub fn of(algorithm: Option<Algorithm>) -> Self {
        match algorithm {
            Some(Algorithm::RoundRobin | Algorithm::WeightedRoundRobin) => Self::RoundRobin,
            Some(Algorithm::SourceHash) => Self::SourceHash,
            _ => Self::Random,
        }
    }

    /// Whether that is what the Service asks for.
    pub fn does(algorithm: Algorithm) -> bool {
        algorithm == Algorithm::Random || Self::of(Some(algorithm)) != Self::Random
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Random => "",
            Self::RoundRobin => "-round-robin",
            Self::SourceHash => "-source-hash",
        }
    }
}

/// One endpoint out of `count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pick {
    pub scope: PoolScope,
    pub count: u32,
    pub masquerade: Masquerade,
    pub affinity: Option<Affinity>,
    pub choice: Choice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    Pick(Pick),
    Reject,
    Drop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Body {
    Same(Target),
    /// Each origin its own way.
    ByOrigin {
        pod: Target,
        node: Target,
        outside: Target,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Class {
    pub family: Family,
    pub entrance: Entrance,
    /// Only sources in `sources` may pass.
    pub guarded: bool,
    pub body: Body,
}

impl Class {
    /// `detects`: whether this node can tell local traffic in this family; if it cannot, no packet comes from a pod.
    pub fn of(port: &PortTable, frontend: &Frontend, detects: bool) -> Self {
        let entrance = match frontend.kind {
            FrontendKind::NodePort => Entrance::NodePort,
            _ => Entrance::Address,
        };
        let routes = frontend.routes;
        let pod = if detects { routes.pod } else { routes.node };
        let target = |route| Target::of(port, route);
        let (pod, node, outside) = (target(pod), target(routes.node), target(routes.outside));
        let body = match (pod, node, outside) {
            (pod, node, outside) if pod == node && node == outside => Body::Same(pod),
            (Target::Pick(pod), Target::Pick(rest), outside)
                if outside == node
                    && (Pick { masquerade: Masquerade::Always, ..pod }) == rest
                    && pod.masquerade == Masquerade::Never =>
            {
                Body::Same(Target::Pick(Pick { masquerade: Masquerade::UnlessPod, ..pod }))
            }
            _ => Body::ByOrigin { pod, node, outside },
        };
        Self { family: port.key.family, entrance, guarded: frontend.guard.is_some(), body }.normalized()
    }

    /// Where no endpoint is picked, how the frontend was found makes no difference, unless its guard needs to know.
    fn normalized(self) -> Self {
        match self.body {
            Body::Same(Target::Reject | Target::Drop) if !self.guarded => {
                Self { entrance: Entrance::Address, ..self }
            }
            _ => self,
        }
    }

    pub fn name(&self) -> String {
        let mut name = String::new();
        if self.guarded {
            name.push_str("guard-");
        }
        if self.entrance == Entrance::NodePort {
            name.push_str("nodeport-");
        }
        match self.body {
            Body::Same(target) => target.write_long(&mut name),
            Body::ByOrigin { pod, node, outside } => {
                name.push_str("origin");
                for target in [pod, node, outside] {
                    target.write_short(&mut name);
                }
                let pick = [pod, node, outside].iter().find_map(|target| target.pick());
                write_rest(&mut name, pick);
            }
        }
        name
    }

    /// A hash of the name (FNV-1a).
    pub fn number(&self) -> u32 {
        let hash = self
            .name()
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        hash.max(1)
    }

    pub fn verdict(&self) -> Verdict {
        match self.body {
            Body::Same(Target::Drop) if !self.guarded => Verdict::Drop,
            _ => Verdict::goto(self.name()),
        }
    }

    /// The class behind the guard.
    #[must_use]
    pub fn unguarded(&self) -> Self {
        Self { guarded: false, ..*self }.normalized()
    }

    /// The class that treats every origin like this.
    #[must_use]
    pub fn only(&self, target: Target) -> Self {
        Self { guarded: false, body: Body::Same(target), ..*self }.normalized()
    }

    /// The same with one endpoint more, and with one less: what the next change may well ask for.
    pub fn neighbours(&self) -> Vec<Self> {
        let Body::Same(Target::Pick(pick)) = self.body else { return Vec::new() };
        let counts = [pick.count - 1, pick.count + 1].into_iter().filter(|count| *count > 0);
        counts.map(|count| self.only(Target::Pick(Pick { count, ..pick }))).collect()
    }

    /// The classes whose chains this one's rules go to.
    pub fn needs(&self) -> Vec<Self> {
        match self.body {
            _ if self.guarded => vec![self.unguarded()],
            Body::Same(_) => Vec::new(),
            Body::ByOrigin { pod, node, outside } => {
                let mut needs: Vec<_> = [pod, node, outside].map(|target| self.only(target)).into();
                needs.dedup();
                needs
            }
        }
    }
}

impl Target {
    fn of(port: &PortTable, route: Route) -> Self {
        match route {
            Route::Reject => Self::Reject,
            Route::Drop => Self::Drop,
            Route::Forward { pool: scope, masquerade } => {
                // The table promises endpoints here. Without any there would be nothing to pick from.
                let count = port.pool(scope).len() as u32;
                if count == 0 {
                    return Self::Drop;
                }
                let masquerade = if masquerade { Masquerade::Always } else { Masquerade::Never };
                Self::Pick(Pick {
                    scope,
                    count,
                    masquerade,
                    affinity: port.affinity,
                    choice: Choice::of(port.algorithm),
                })
            }
        }
    }

    fn pick(self) -> Option<Pick> {
        match self {
            Self::Pick(pick) => Some(pick),
            _ => None,
        }
    }

    fn write_long(self, name: &mut String) {
        match self {
            Self::Reject => name.push_str(REFUSE),
            Self::Drop => name.push_str("drop"),
            Self::Pick(pick) => {
                let scope = if pick.scope == PoolScope::Local { "local-" } else { "" };
                let masquerade = match pick.masquerade {
                    Masquerade::Never => "",
                    Masquerade::Always => "-masquerade",
                    Masquerade::UnlessPod => "-masquerade-unless-pod",
                };
                let _ = write!(name, "pick-{scope}{}{masquerade}", pick.count);
                write_rest(name, Some(pick));
            }
        }
    }

    fn write_short(self, name: &mut String) {
        match self {
            Self::Reject => name.push_str("-refuse"),
            Self::Drop => name.push_str("-drop"),
            Self::Pick(pick) => {
                let scope = if pick.scope == PoolScope::Local { "local" } else { "cluster" };
                let masquerade = if pick.masquerade == Masquerade::Never { "" } else { "m" };
                let _ = write!(name, "-{scope}{}{masquerade}", pick.count);
            }
        }
    }
}

/// How many endpoints of the Cluster and of the Local pool a class picks from, by its name; those of session affinity
/// have maps of their own.
pub fn pool_sizes(name: &str) -> [u32; 2] {
    let mut sizes = [0; 2];
    if name.contains("-affinity-") {
        return sizes;
    }
    let mut local = false;
    for word in name.split('-') {
        let (number, at) = match (word.strip_prefix("cluster"), word.strip_prefix("local")) {
            (Some(number), _) => (number, 0),
            // `pick-local-3`
            (_, Some("")) => {
                local = true;
                continue;
            }
            (_, Some(number)) => (number, 1),
            _ => (word, usize::from(local)),
        };
        let size = number.trim_end_matches('m').parse().unwrap_or(0);
        sizes[at] = size.max(sizes[at]);
    }
    sizes
}

/// What all picks of a Service port have in common.
fn write_rest(name: &mut String, pick: Option<Pick>) {
    let Some(pick) = pick else { return };
    name.push_str(pick.choice.suffix());
    if let Some(affinity) = pick.affinity {
        let _ = write!(name, "-affinity-{}", affinity.timeout_seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_sizes_of_its_pools() {
        let pick = |scope, count| {
            Target::Pick(Pick {
                scope,
                count,
                masquerade: Masquerade::Always,
                affinity: None,
                choice: Choice::SourceHash,
            })
        };
        let (cluster, local) = (pick(PoolScope::Cluster, 12), pick(PoolScope::Local, 3));
        let bodies = [
            (Body::Same(cluster), [12, 0]),
            (Body::Same(local), [0, 3]),
            (Body::Same(Target::Reject), [0, 0]),
            (Body::ByOrigin { pod: cluster, node: cluster, outside: local }, [12, 3]),
            (Body::ByOrigin { pod: cluster, node: cluster, outside: Target::Drop }, [12, 0]),
        ];
        for (body, sizes) in bodies {
            for (entrance, guarded) in [(Entrance::Address, true), (Entrance::NodePort, false)] {
                let class = Class { family: Family::V4, entrance, guarded, body };
                assert_eq!(pool_sizes(&class.name()), sizes, "{}", class.name());
            }
        }
        let affinity = Some(Affinity { timeout_seconds: 10 });
        let Target::Pick(pick) = cluster else { unreachable!() };
        let body = Body::Same(Target::Pick(Pick { affinity, ..pick }));
        let class = Class { family: Family::V6, entrance: Entrance::Address, guarded: false, body };
        assert_eq!(pool_sizes(&class.name()), [0, 0], "{}", class.name());
    }
}
