//! What every data plane asks of a Service port.

use portolan_forward::{Frontend, FrontendKind, PoolScope, PortTable, Route};

/// Whether any frontend of the port picks from this pool.
pub(crate) fn uses(port: &PortTable, scope: PoolScope) -> bool {
    let routes = port.frontends.iter().flat_map(|f| [f.routes.pod, f.routes.node, f.routes.outside]);
    routes.into_iter().any(|route| matches!(route, Route::Forward { pool, .. } if pool == scope))
}

/// The frontend that stands for the port's pools: its ClusterIP if it has one. No two ports share a frontend.
pub(crate) fn primary(port: &PortTable) -> Option<&Frontend> {
    let rank = |frontend: &&Frontend| (!matches!(frontend.kind, FrontendKind::ClusterIp(_)), frontend.kind);
    port.frontends.iter().min_by_key(rank)
}
