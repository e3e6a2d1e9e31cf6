//! The bars that a release must clear, each on real processes.
