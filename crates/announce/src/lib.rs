//! Announces load-balancer addresses to the network's own hosts: one node answers for each address.
//!
//! ```text
//! watch caches --> claims (pure): who may announce what --> tenure (pure): who does, now --> layer2: ARP, NDP
//!                                                             ^ beats of the other nodes
//! ```
//!
//! [`claims`] needs only the API, and every node computes the same from it. [`tenure`] adds who is alive, which nodes
//! tell each other by [`beat`]s ten times a second: it is what makes failover fast, and what settles which of two wins.
//! [`layer2`] makes and reads frames. `speaker` is the thread that carries all of it out, [`run`] feeds it;
//! [`metrics`] says how it goes.
//!
//! Nothing is added to interfaces, and no route: a node answers for an address, and the packets that come then meet the
//! proxy's rules. Another way of announcing, such as BGP, would take the same claims.
//!
//! Start at [`claims`].

pub mod beat;
pub mod claims;
mod ears;
mod feed;
pub mod key;
pub mod layer2;
mod lease;
pub mod metrics;
pub mod objects;
mod run;
mod speaker;
pub mod tenure;

pub use metrics::{Health, Metrics};
pub use run::{Config, Error, PORT, run};
