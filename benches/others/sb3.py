"""Agent steps per second of Stable-Baselines3 on Pong with RL Baselines3 Zoo's settings, without start-up.

  sb3.py ppo|a2c|dqn
"""

import sys
import time

import ale_py
import gymnasium
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

# Environments, steps before the clock starts, steps in all, settings. DQN's buffer is a tenth of the zoo's: it is not filled here.
RUNS = {
    "ppo": (PPO, 8, 1_024, 7_168, {"n_steps": 128, "batch_size": 256, "n_epochs": 4, "learning_rate": 2.5e-4,
                                   "clip_range": 0.1, "vf_coef": 0.5, "ent_coef": 0.01}),
    "a2c": (A2C, 16, 1_600, 12_000, {"ent_coef": 0.01, "vf_coef": 0.25,
                                     "policy_kwargs": {"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"eps": 1e-5}}}),
    "dqn": (DQN, 1, 1_200, 3_500, {"buffer_size": 100_000, "learning_rate": 1e-4, "batch_size": 32, "learning_starts": 1_000,
                                   "target_update_interval": 1_000, "train_freq": 4, "gradient_steps": 1,
                                   "exploration_fraction": 0.1, "exploration_final_eps": 0.01}),
}


class Clock(BaseCallback):
    """Starts between two rollouts, after `warm_up` steps."""

    def __init__(self, warm_up):
        super().__init__()
        self.warm_up, self.start = warm_up, None

    def _on_rollout_start(self):
        if self.start is None and self.num_timesteps >= self.warm_up:
            self.start = (self.num_timesteps, time.perf_counter())

    def _on_step(self):
        return True


def main():
    algorithm, envs, warm_up, steps, settings = RUNS[sys.argv[1]]
    gymnasium.register_envs(ale_py)
    env = make_atari_env("PongNoFrameskip-v4", n_envs=envs, seed=0, vec_env_cls=DummyVecEnv)
    model = algorithm("CnnPolicy", VecFrameStack(env, n_stack=4), device="cpu", **settings)
    clock = Clock(warm_up)
    model.learn(steps, callback=clock)
    first, start = clock.start
    print(f"steps/s {(model.num_timesteps - first) / (time.perf_counter() - start):.1f}")


if __name__ == "__main__":
    main()
