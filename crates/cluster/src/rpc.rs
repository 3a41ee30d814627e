//! How nodes talk: TLS connections in both directions, and refusals that survive the journey.

pub mod dial;
pub mod leader;
pub mod link;
pub mod listen;
pub mod status;
