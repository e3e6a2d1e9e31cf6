//! Every way in which links of a small cluster can be cut, one direction at a time (hazard 10): a leader that can work stays, one
//! that cannot gives way, nobody stirs up term after term; and once all links are back, the cluster goes on.

mod harness;

use balsa_raft::{Config, Membership, NodeId, Term};
use harness::Cluster;

fn rounds(cluster: &mut Cluster, nodes: u64, count: usize) {
    for _ in 0..count {
        for id in (1..=nodes).map(NodeId) {
            cluster.input(id, |raft| raft.tick());
        }
        cluster.settle();
    }
}

fn highest_term(cluster: &Cluster) -> Term {
    cluster
        .nodes
        .values()
        .filter_map(|node| node.raft.as_ref())
        .map(|raft| raft.term())
        .max()
        .unwrap_or_default()
}

/// Whether some node reaches, and is reached by, a majority.
fn has_centre(nodes: u64, cut: impl Fn(u64, u64) -> bool) -> bool {
    (1..=nodes).any(|a| {
        let both_ways = (1..=nodes).filter(|&b| a == b || (!cut(a, b) && !cut(b, a))).count() as u64;
        both_ways * 2 > nodes
    })
}

/// Proposes to every leader there is, and tells whether one of them commits.
fn makes_progress(cluster: &mut Cluster, nodes: u64) -> bool {
    let before = cluster.oracle.max_committed();
    for id in (1..=nodes).map(NodeId) {
        cluster.propose(id, "x");
    }
    rounds(cluster, nodes, 4);
    cluster.oracle.max_committed() > before
}

fn every_matrix(nodes: u64, matrices: impl Iterator<Item = u64>) {
    let pairs: Vec<(u64, u64)> =
        (1..=nodes).flat_map(|a| (1..=nodes).filter(move |b| *b != a).map(move |b| (a, b))).collect();
    for matrix in matrices {
        let membership = Membership::of_voters((1..=nodes).map(NodeId));
        let mut cluster = Cluster::founded(Config::with_defaults(NodeId(1), matrix), &membership);
        rounds(&mut cluster, nodes, 60);
        assert!(makes_progress(&mut cluster, nodes), "no progress before the cut, matrix {matrix:b}");

        let is_cut = |a: u64, b: u64| {
            pairs.iter().position(|pair| *pair == (a, b)).is_some_and(|bit| matrix >> bit & 1 == 1)
        };
        for &(a, b) in pairs.iter().filter(|(a, b)| is_cut(*a, *b)) {
            cluster.cut.insert((NodeId(a), NodeId(b)));
        }
        rounds(&mut cluster, nodes, 150);
        let term = highest_term(&cluster);
        let progress = makes_progress(&mut cluster, nodes);
        assert!(
            progress || !has_centre(nodes, is_cut),
            "no progress with matrix {matrix:b}, cut {:?}",
            cluster.cut
        );
        rounds(&mut cluster, nodes, 60);
        if progress {
            assert!(highest_term(&cluster) <= term, "no rest with matrix {matrix:b}, cut {:?}", cluster.cut);
        }

        cluster.cut.clear();
        rounds(&mut cluster, nodes, 80);
        assert!(makes_progress(&mut cluster, nodes), "no progress after healing, matrix {matrix:b}");
    }
}

#[test]
fn three_nodes_in_every_matrix() {
    every_matrix(3, 0..64);
}

#[test]
fn four_nodes_in_many_matrices() {
    every_matrix(4, (0..4096).step_by(3));
}
