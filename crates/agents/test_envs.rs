//! Environments for the tests of settings, which create none.

use playfield_core::{ActionSpace, Dtype, EnvFactory, EnvSpec, Result, VecEnv};

/// Environments that only say how many they are.
pub struct Envs(pub EnvSpec, pub usize);

impl EnvFactory for Envs {
    fn spec(&self) -> &EnvSpec {
        &self.0
    }
    fn num_envs(&self) -> usize {
        self.1
    }
    fn vec(&self, _: &[u64]) -> Result<Box<dyn VecEnv>> {
        unreachable!()
    }
    fn can_split(&self) -> bool {
        true
    }
}

/// `n` environments with two numbers to observe and three actions.
pub fn envs(n: usize) -> Envs {
    Envs(EnvSpec::new("t", &[2], Dtype::F32, ActionSpace::Discrete { n: 3 }), n)
}
