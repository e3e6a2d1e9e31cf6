//! The same model for stateright's checker, as a second opinion on the small bounds.
//!
//! stateright keeps whole states and asks through a shared reference, so the tables sit behind a lock; the large bounds
//! have a search of their own ([`crate::search`]), which keeps 20 bytes a state.

use crate::world::{Action, Model, World};
use stateright::Property;
use std::sync::{Mutex, PoisonError};

/// A model to be checked by stateright.
#[derive(Debug)]
pub struct Checked(pub Mutex<Model>);

/// A world, or the property that was broken on the way to it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// All is well.
    World(World),
    /// Which, and how.
    Broken(String),
}

impl Checked {
    fn model(&self) -> std::sync::MutexGuard<'_, Model> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl stateright::Model for Checked {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::World(self.model().initial())]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if let State::World(world) = state {
            self.model().actions(world, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let State::World(world) = state else { return None };
        match self.model().next(world, action) {
            Ok(next) => next.map(State::World),
            Err(broken) => Some(State::Broken(broken.0)),
        }
    }

    fn properties(&self) -> Vec<Property<Checked>> {
        vec![Property::always("safe", |_, state| matches!(state, State::World(_)))]
    }
}
