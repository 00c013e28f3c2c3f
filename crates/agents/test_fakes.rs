//! What the tests of the algorithms have in common: environments that are never created, and a group of processes without connections.
#![allow(dead_code)] // no test needs all of it

use playfield_core::group::{GradientPrecision, Reduce};
use playfield_core::{ActionSpace, Dtype, EnvFactory, EnvSpec, Error, Group, Result, VecEnv};

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

/// Rank 0 of two, which has lost the other one.
#[derive(Debug)]
pub struct Lost;

impl Lost {
    fn error<T>() -> Result<T> {
        Err(Error::other("the connection is lost"))
    }
}

impl Group for Lost {
    fn rank(&self) -> usize {
        0
    }
    fn world_size(&self) -> usize {
        2
    }
    fn all_reduce(&self, _: &mut [f64], _: Reduce) -> Result<()> {
        Self::error()
    }
    fn sum(&self, _: &mut [f32], _: GradientPrecision) -> Result<()> {
        Self::error()
    }
    fn broadcast(&self, _: &mut Vec<u8>) -> Result<()> {
        Self::error()
    }
    fn gather(&self, _: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        Self::error()
    }
}

/// One of two ranks with the same values.
#[derive(Debug)]
pub struct Twin;

impl Group for Twin {
    fn rank(&self) -> usize {
        0
    }
    fn world_size(&self) -> usize {
        2
    }
    fn all_reduce(&self, values: &mut [f64], reduce: Reduce) -> Result<()> {
        values.iter_mut().for_each(|x| *x *= if reduce == Reduce::Sum { 2.0 } else { 1.0 });
        Ok(())
    }
    fn sum(&self, values: &mut [f32], _: GradientPrecision) -> Result<()> {
        values.iter_mut().for_each(|x| *x *= 2.0);
        Ok(())
    }
    fn broadcast(&self, _: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }
    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        Ok(vec![bytes.clone(), bytes])
    }
}
