//! balsa-node
