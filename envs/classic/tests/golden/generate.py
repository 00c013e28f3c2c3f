"""Writes dynamics.json: steps of Gymnasium's classic control problems, for tests/dynamics.rs.

    python -m venv venv && venv/bin/pip install gymnasium==1.4.0 numpy==2.4.6
    venv/bin/python envs/classic/tests/golden/generate.py

Each row: the state before a step (f64), the action, the reward, whether the episode terminated, the state after, and the
observation after (f32). The policies reach every branch: terminations, walls, clipped speeds and torques.
"""

import json
import pathlib

import gymnasium
import numpy as np

assert gymnasium.__version__ == "1.4.0", gymnasium.__version__


def rows(id, policy, start, steps):
    env = gymnasium.make(id).unwrapped
    env.reset(seed=0)
    env.state = np.array(start)
    out = []
    for t in range(steps):
        before = [float(x) for x in env.state]
        action = policy(t, before)
        obs, reward, terminated, _, _ = env.step(action)
        after = [float(x) for x in env.state]
        number = float(action[0]) if id == "Pendulum-v1" else int(action)
        out.append([before, number, float(reward), terminated, after, [float(x) for x in obs]])
        if terminated:
            break
    return out


rng = np.random.default_rng(7)
random = lambda n: (lambda t, s: rng.integers(n))
constant = lambda a: (lambda t, s: a)
torque = lambda t, s: np.array([rng.uniform(-3, 3)], dtype=np.float32)
hard = lambda t, s: np.array([2.5 if s[1] >= 0 else -2.5], dtype=np.float32)

golden = {
    "gymnasium": gymnasium.__version__,
    "numpy": np.__version__,
    "CartPole": rows("CartPole-v1", random(2), [0.01, -0.02, 0.03, 0.04], 100)
    + rows("CartPole-v1", lambda t, s: int(s[2] + s[3] > 0), [0.0, 0.0, 0.04, 0.0], 60)
    + rows("CartPole-v1", constant(1), [-0.04, 0.01, 0.0, -0.03], 100)
    + rows("CartPole-v1", constant(0), [-2.3, -1.0, 0.1, 0.0], 100),
    "MountainCar": rows("MountainCar-v0", lambda t, s: 2 if s[1] >= 0 else 0, [-0.5, 0.0], 200)
    + rows("MountainCar-v0", random(3), [-0.45, 0.0], 20)
    + rows("MountainCar-v0", constant(0), [-1.1, -0.069], 10),
    "Acrobot": rows("Acrobot-v1", random(3), [0.05, -0.02, 0.1, 0.0], 40)
    + rows("Acrobot-v1", lambda t, s: 2 if s[3] >= 0 else 0, [0.0, 0.1, 0.0, 0.0], 100)
    + rows("Acrobot-v1", constant(2), [3.0, -3.0, 12.0, -28.0], 10),
    "Pendulum": rows("Pendulum-v1", torque, [2.0, 0.5], 30) + rows("Pendulum-v1", hard, [-3.1, 0.1], 60),
}
assert all(any(row[3] for row in golden[id]) for id in ["CartPole", "MountainCar", "Acrobot"])

path = pathlib.Path(__file__).with_name("dynamics.json")
text = json.dumps(golden).replace("]], [[", "]],\n[[")
path.write_text(text + "\n")
