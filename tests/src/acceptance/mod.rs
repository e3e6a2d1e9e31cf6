//! The bars that a release must clear, each on real processes with data on a real disk.
//!
//! A bar prints its figures as it goes and ends with one line: its name, the verdict, what was measured. What it finds
//! wrong ends it at once, with what the nodes said last.
//!
//! Modules in reading order: [`verdict`], [`disk`], [`seed_curl`], [`docs`], [`openapi`], [`bad_input`], [`crash_loop`], [`failover`],
//! [`membership`], [`nemesis`], [`bench_ratio`], [`limping`], [`soak`], [`leases`], [`locks`], [`watch`],
//! [`backup`], [`overload`]; on a Kubernetes cluster: [`k8s_chart`],
//! [`k8s_account`], [`k8s_install`], [`k8s_metrics`], [`k8s_deploy`], [`k8s_upgrade`], [`k8s_failover`], [`k8s_scale`],
//! [`k8s_heal`], [`k8s_quorum_loss`]. The simulator's bar is a program of its own, `simulate`.

pub mod verdict;

pub mod docs;
pub mod openapi;
pub mod seed_curl;

pub mod bad_input;
pub mod connections;

pub mod crash_loop;
pub mod writers;

pub mod failover;

pub mod backup;
pub mod bench_ratio;
pub mod closed_loop;
pub mod disk;
pub mod etcd;
pub mod fdatasync;
pub mod leases;
pub mod limping;
pub mod load;
pub mod locks;
pub mod many_keys;
pub mod membership;
pub mod nemesis;
pub mod overload;
pub mod paced;
pub mod soak;
pub mod watch;

pub mod k8s_account;
pub mod k8s_chart;
pub mod k8s_deploy;
pub mod k8s_failover;
pub mod k8s_heal;
pub mod k8s_install;
pub mod k8s_metrics;
pub mod k8s_quorum_loss;
pub mod k8s_scale;
pub mod k8s_upgrade;
