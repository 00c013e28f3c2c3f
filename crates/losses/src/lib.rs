//! The formulas of reinforcement learning on tensors, one pure function each.
//!
//! Names are DQN Zoo's: `r_t` and `discount_t` belong to the step *into* time t; a discount is 0 where the task ended.
//! Time is the first axis, environments the second. Each function states its shapes and its source; its test
//! compares it with values computed by hand or by PyTorch.

pub mod distributional;
pub mod policy_gradient;
pub mod q_learning;
pub mod returns;
pub mod softmax;
