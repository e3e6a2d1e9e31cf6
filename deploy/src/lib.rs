//! balsa-deploy: what a StatefulSet cannot do for a Balsa cluster on Kubernetes. Works as `kubectl balsa`.
//!
//! Every command is a pure plan and a thin execution, so that a controller with a custom resource can drive the same
//! functions: [`observed`] is all that is known of an installation at one moment, a plan is a function of it
//! ([`status`], [`scale`], [`upgrade`], [`backup`], [`recover`], [`restore`]), and [`context`] is the only module that talks to a
//! cluster.
//!
//! Modules in reading order: [`observed`], [`status`], [`scale`], [`upgrade`], [`backup`], [`recover`], [`restore`],
//! [`failover`],//! [`render`], [`context`], [`progress`], [`cli`].
//!
//! What this crate never does: change membership (the nodes follow their StatefulSet by themselves), delete a volume, or
//! go on where a step failed.

pub mod observed;
pub mod status;

pub mod scale;
pub mod upgrade;

pub mod backup;
pub mod recover;
pub mod restore;

mod errand;

pub mod failover;

pub mod render;

pub mod context;
pub mod progress;

pub mod cli;

#[cfg(test)]
mod sample;

/// Why a command ended without having done what it should: a sentence for a person, with what to do next.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// What a command comes to.
pub type Outcome<T> = Result<T, Failure>;
