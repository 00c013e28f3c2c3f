"""Plain Python loops that playfield's environments must equal."""

import gymnasium
import numpy as np


def episodes(name, seeds, actions, limit):
    """Steps one environment per seed by `actions[t][i]`, each reset where its episode ended.

    Returns the first observations and, for each step, `(observations, rewards, terminated, truncated, final)`, where
    observations are bytes of float32 and `final` holds those of ended episodes by row.
    """
    limits = {"max_episode_steps": limit} if limit else {}
    envs = [gymnasium.make(name, **limits) for _ in seeds]
    first = [env.reset(seed=seed)[0].astype(np.float32).tobytes() for env, seed in zip(envs, seeds)]
    steps = []
    for row in actions:
        observations, rewards, terminations, truncations, final = [], [], [], [], {}
        for i, (env, action) in enumerate(zip(envs, row)):
            space = env.action_space
            if isinstance(space, gymnasium.spaces.Box):
                action = np.clip(np.array(action, space.dtype), space.low, space.high)
            else:
                action = int(action)
            observation, reward, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                final[i] = observation.astype(np.float32).tobytes()
                observation, _ = env.reset()
            observations.append(observation.astype(np.float32).tobytes())
            rewards.append(float(reward))
            terminations.append(bool(terminated))
            truncations.append(bool(truncated))
        steps.append((observations, rewards, terminations, truncations, final))
    return first, steps


def atari_batch(game, seeds, actions, limit_steps, sticky=0.0):
    """ALE's vector environment with the options that playfield uses, but with its own time limit.

    Returns the reset's `(observations, lives, frames)` and for each step `(observations, rewards, terminated, truncated,
    lives, frames, final)`: bytes of all rows, and `frames` the emulator frames since each row's episode began.
    """
    from ale_py.vector_env import AtariVectorEnv
    from gymnasium.vector import AutoresetMode

    vec = AtariVectorEnv(
        game,
        len(seeds),
        stack_num=1,
        autoreset_mode=AutoresetMode.SAME_STEP,
        reward_clipping=False,
        num_threads=2,
        max_num_frames_per_episode=4 * limit_steps,
        repeat_action_probability=sticky,
    )
    observation, info = vec.reset(seed=np.array(seeds, np.int32))
    first = observation.tobytes(), info["lives"].tolist(), info["episode_frame_number"].tolist()
    steps = []
    for row in actions:
        observation, reward, terminated, truncated, info = vec.step(np.array(row, np.int64))
        final = info["final_obs"].tobytes() if "final_obs" in info else b""
        lives, frames = info["lives"].tolist(), info["episode_frame_number"].tolist()
        ended = terminated.tolist(), truncated.tolist()
        steps.append((observation.tobytes(), reward.tolist(), *ended, lives, frames, final))
    return first, steps


def atari_preprocessing(name, seed, actions, limit_steps):
    """Gymnasium's wrappers, which press no FIRE, around one game.

    Returns `(stacked observation, no-ops)` of the first reset, and for each step `(stacked observation, reward, terminated,
    truncated, lives, next)`, where `next` is what the reset that followed the end of an episode returned.
    """
    import ale_py  # noqa: F401  (registers its games)
    from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation, TimeLimit

    env = gymnasium.make(name, frameskip=1, repeat_action_probability=0.0, full_action_space=False)
    env = TimeLimit(AtariPreprocessing(env, noop_max=30), limit_steps)
    env = FrameStackObservation(env, 4, padding_type="zero")

    def start(**seed):
        observation, info = env.reset(**seed)
        return observation.tobytes(), info["episode_frame_number"]

    first, steps = start(seed=seed), []
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        following = start() if terminated or truncated else None
        steps.append((observation.tobytes(), float(reward), terminated, truncated, info["lives"], following))
    return first, steps
