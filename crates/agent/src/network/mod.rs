//! The pod network of this node.

pub(crate) mod addresses;
