//! The model against the paragraphs of docs/semantics.md: each test carries the id of the paragraph it shows.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world must stop")]

mod aff;
mod build;
mod eps;
mod explain;
mod fam;
mod lb;
mod masq;
mod np;
mod paragraphs;
mod pol;
mod properties;
mod svc;
