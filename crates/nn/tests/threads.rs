//! Threads that libtorch starts.
#![cfg(target_os = "linux")]

use playfield_nn::sharding::{Shards, use_one_core};
use tch::{Device, Kind, Tensor};

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Forward and backward passes on the threads of shards start no OpenMP threads.
#[test]
fn shards_compute_on_one_core_each() {
    use_one_core();
    let mut shards = Shards::new(vec![(), ()]);
    let before = threads();
    for _ in 0..3 {
        shards.run(
            2,
            || (),
            |_, ()| {
                let [x, w] = [(); 2].map(|()| Tensor::randn([256, 256], (Kind::Float, Device::Cpu)));
                let w = w.set_requires_grad(true);
                x.matmul(&w).relu().sum(Kind::Float).backward();
            },
        );
    }
    assert_eq!(threads(), before);
}
