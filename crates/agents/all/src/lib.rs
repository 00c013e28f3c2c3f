//! The algorithms that come with playfield: the one list that the command line and the lab read. Add a new one here.

use playfield_a3c::A3c;
use playfield_core::algorithm::Entry;
use playfield_dqn::Dqn;
use playfield_paac::Paac;
use playfield_ppo::Ppo;

/// Every algorithm, in the order in which they are listed.
pub const ALGORITHMS: [Entry; 4] = [Entry::of::<Ppo>(), Entry::of::<Paac>(), Entry::of::<A3c>(), Entry::of::<Dqn>()];
