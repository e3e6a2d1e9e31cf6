//! Balsa on a real Kubernetes cluster, through what its users have: kubectl, helm, the chart, the image.
//!
//! [`Lab`] is the cluster and its tools, [`Namespace`] a place in it that is gone afterwards, [`Release`] an installed
//! chart and the questions that tests ask of it, [`Load`] a Pod with the client's steady load, [`Forward`] a port-forward,
//! [`Prometheus`] one that scrapes it, [`deploy`] the deploy tool,
//! [`process`] what this machine sees of containers. Nothing here waits for a time: it polls a condition until a
//! deadline.

mod attached;
mod command;
mod forward;
mod lab;
mod load;
mod namespace;
pub mod process;
mod prometheus;
mod release;
mod tool;

pub use attached::Attached;
pub use command::run as run_command;
pub use forward::Forward;
pub use lab::Lab;
pub use load::{Load, LoadReport, Pause, Steady};
pub use namespace::Namespace;
pub use prometheus::Prometheus;
pub use release::{Pod, Release, chart};
pub use tool::deploy;

/// Selects the Pods of nodes among those of a release.
pub const NODE_PODS: &str = "app.kubernetes.io/component=node";
/// The name that bars give their release, and so to its StatefulSet.
pub const NAME: &str = "balsa";
