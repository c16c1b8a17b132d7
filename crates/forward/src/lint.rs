//! What must hold in any table; a finding is a defect of the compiler, not of the input.

use std::collections::HashMap;

use crate::model::{Endpoint, Family, Frontend, FrontendKind, PoolScope, PortTable, Route, ServiceKey};
use crate::table::{Claim, Table};

/// One broken invariant, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub service: ServiceKey,
    pub what: String,
}

/// Checks every entry and what holds between entries.
pub fn lint(table: &Table) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut owners: HashMap<Claim, ServiceKey> = HashMap::new();
    for service in table.iter() {
        let mut say = |what: String| findings.push(Finding { service: service.key.clone(), what });
        for port in &service.ports {
            lint_port(port, &mut say);
            for frontend in &port.frontends {
                let claim = Claim::of(port, frontend);
                if let Some(other) = owners.insert(claim, service.key.clone()) {
                    say(format!("{claim} is also held by {other}"));
                }
            }
        }
    }
    findings
}

fn lint_port(port: &PortTable, say: &mut dyn FnMut(String)) {
    for (name, pool) in [("cluster", &port.cluster), ("local", &port.local)] {
        if !pool.windows(2).all(|pair| (pair[0].address, pair[0].port) < (pair[1].address, pair[1].port)) {
            say(format!("{name} pool is not sorted, or holds an endpoint twice"));
        }
        if pool.iter().any(|endpoint| Family::of(endpoint.address) != port.key.family || endpoint.port == 0) {
            say(format!("{name} pool holds an endpoint of the other family or without a port"));
        }
    }
    if port.local.iter().any(|endpoint: &Endpoint| !endpoint.local) {
        say("local pool holds an endpoint of another node".into());
    }
    for frontend in &port.frontends {
        lint_frontend(port, frontend, say);
    }
}

fn lint_frontend(port: &PortTable, frontend: &Frontend, say: &mut dyn FnMut(String)) {
    let routes = &frontend.routes;
    for route in [routes.pod, routes.node, routes.outside] {
        if let Route::Forward { pool, .. } = route
            && port.pool(pool).is_empty()
        {
            say(format!("{:?} forwards to an empty {pool:?} pool", frontend.kind));
        }
        if matches!(route, Route::Drop) && frontend.kind == FrontendKind::NodePort && port.local.len() > 1 {
            say("drops although endpoints are local".into());
        }
    }
    if frontend.kind.address().is_some_and(|ip| Family::of(ip) != port.key.family) {
        say(format!("{:?} is of the other family", frontend.kind));
    }
    if frontend.guard.is_some() && !matches!(frontend.kind, FrontendKind::LoadBalancerIp(_)) {
        say(format!("{:?} has source ranges; only load-balancer addresses may", frontend.kind));
    }
    if matches!(routes.outside, Route::Forward { pool: PoolScope::Local, masquerade: true })
        && !matches!(frontend.kind, FrontendKind::ClusterIp(_))
    {
        say("policy Local masquerades outside clients".into());
    }
}
