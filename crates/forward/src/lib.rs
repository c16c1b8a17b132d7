//! The forwarding model: what happens to a packet that reaches for a Service, as pure values.
//!
//! Start at [`model`] (the words), then [`compile`] (views of API objects in, a [`ServiceTable`] out), [`table`]
//! (all Services of a node, shared entry by entry), [`trace`] (what a packet meets: the reference for every data
//! plane), [`explain`](mod@explain) (why) and [`lint`] (what must hold in any table); [`algorithm`]: what a Service may
//! ask for beyond chance.
//!
//! Nothing here is async, reads a clock, touches the kernel or knows the Kubernetes API's types.

pub mod algorithm;
pub mod compile;
pub mod explain;
pub mod lint;
pub mod model;
pub mod select;
pub mod table;
pub mod trace;
pub mod view;

pub use algorithm::{ALGORITHM_ANNOTATION, Algorithm};
pub use compile::compile;
pub use explain::{Explanation, explain};
pub use model::{
    Affinity, Endpoint, Family, Frontend, FrontendKind, Guard, HealthCheck, Note, NoteKind, Origin,
    PoolScope, PortTable, Protocol, Route, Routes, ServiceKey, ServicePortKey, ServiceTable,
};
pub use table::{Delta, ServiceChange, Table};
pub use trace::{Outcome, Packet, Trace, trace};
pub use view::{
    EndpointPort, EndpointView, LocalTraffic, NodePortAddresses, NodeView, Policy, ServicePortView,
    ServiceView,
};
