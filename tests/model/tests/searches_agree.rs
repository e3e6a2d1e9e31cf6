//! The two searches see the same states, and nothing is broken in the smallest bounds.

use balsa_model::bounds;
use balsa_model::checker::Checked;
use balsa_model::search::{End, Limits, search};
use balsa_model::world::Model;
use stateright::{Checker, Model as _};
use std::sync::Mutex;
use std::time::Duration;

const LIMITS: Limits = Limits { states: 5_000_000, time: Duration::from_secs(300) };

#[test]
fn stateright_sees_what_our_search_sees() {
    let smallest = bounds::small().swap_remove(0);
    let ours = search(&mut Model::new(smallest.clone()), LIMITS, |_| {});
    assert_eq!(ours.end, End::Fixpoint, "{ours:?}");
    let theirs = Checked(Mutex::new(Model::new(smallest))).checker().spawn_bfs().join();
    theirs.assert_properties();
    assert_eq!(theirs.unique_state_count(), ours.states);
    println!("{} states in both", ours.states);
}

/// A look at each of the larger ones: equal runs see equal states.
#[test]
fn searches_repeat() {
    for bounds in bounds::large() {
        let limits = Limits { states: 20_000, ..LIMITS };
        let look = || search(&mut Model::new(bounds.clone()), limits, |_| {});
        let (one, other) = (look(), look());
        assert_eq!(one.end, End::Limit, "{}", bounds.name);
        assert_eq!((one.states, one.steps, one.depth), (other.states, other.steps, other.depth));
    }
}
