#!/usr/bin/env python3
"""Benchmarks of this machine, as tables and as target/bench.json (with processor, instructions, threads and commit).

Each kernel, a step of the optimizer, recurrent layers against libtorch's, networks by own kernels and by libtorch, one update of PAAC and
of DQN, the replay buffer, A3C's shared parameters, Atari's emulator alone, a step of Gymnasium environments (empty, and of 1 ms) by
playfield, in plain Python and by Gymnasium's vector environments, then whole training runs on Pong, RUNS times each: PPO, 8
environments x 128 steps, 4 epochs; PAAC, 32 environments x 5 steps; DQN, one environment, an update of 32 every 4 steps (all three with
the nature network); A3C, two actor-learners, the nips network. docs/performance.md has results; beside.py compares with other libraries.

  benches/bench.py [RUNS]
"""

import json
import os
import re
import statistics
import subprocess
import sys

from training import PLAYFIELD, ROOT, steps_per_second

BENCHES = [
    ("kernels", "layers"),
    ("nn", "optimizer"),
    ("nn", "low_rank"),
    ("nn", "sequence"),
    ("nn", "torso"),
    ("paac", "update"),
    ("dqn", "update"),
    ("replay", "replay"),
    ("hogwild", "sharing"),
]
# Number of environments, threads, steps.
ATARI = [("1", "1", "20000"), ("8", "2", "5000"), ("32", "2", "2000")]
# Number of environments, seconds of a step, steps.
GYMNASIUM = [("32", "0", "2000"), ("8", "0.001", "500")]
# Configuration, steps.
TRAINING = [
    ("configs/ppo/pong.toml", "16k"),
    ("configs/bench/paac.toml", "60k"),
    ("configs/bench/dqn.toml", "10k"),
    ("configs/bench/a3c.toml", "30k"),
]


def show(title, *command):
    """Runs a command, prints what it prints, and returns its lines as cells."""
    print(f"\n{title}", flush=True)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    rows = []
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.strip():
            rows.append(re.split(r"\s{2,}", line.strip()))
    if process.wait() != 0:
        sys.exit(f"{' '.join(command)} failed")
    return rows


def example(name):
    """The command that runs an example of the Gymnasium crate."""
    return ["cargo", "run", "--quiet", "--release", "--locked", "-p", "playfield-gymnasium", "--example", name, "--"]


def main():
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    paths = show("Own kernels and libtorch's", PLAYFIELD, "doctor", "--bench")
    result = {"machine": paths[0][0], "threads": os.cpu_count(), "commit": commit, "tables": {"paths": paths[1:]}}
    for crate, bench in BENCHES:
        command = ["cargo", "bench", "--quiet", "--locked", "-p", f"playfield-{crate}", "--bench", bench]
        result["tables"][f"{crate}/{bench}"] = show(f"{crate}, {bench}", *command)
    for row in ATARI:
        title = "Pong under random actions: environments {}, threads {}, steps {}".format(*row)
        result["tables"][title] = show(title, *example("atari_speed"), "ALE/Pong-v5", *row)
    python = [".venv/bin/python", "envs/gymnasium/examples/vector_speed.py"]
    for row in GYMNASIUM:
        title = "Gymnasium: {} environments, a step of {} s, {} steps".format(*row)
        result["tables"][title] = show(f"{title}, plain Python", *python, *row) + show(f"{title}, playfield", *example("vector_speed"), *row)
    print("\nTraining on Pong, agent steps per second", flush=True)
    rates = {config: [] for config, _ in TRAINING}
    for _ in range(runs):
        for config, steps in TRAINING:
            rates[config].append(steps_per_second(config, steps))
            print(f"{config:<26}{rates[config][-1]:>8.0f}", flush=True)
    result["steps_per_second"] = rates
    for config, values in rates.items():
        print(f"{config:<26}{statistics.median(values):>8.0f}   median of {runs}")
    path = ROOT / "target" / "bench.json"
    path.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"\nwritten: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
