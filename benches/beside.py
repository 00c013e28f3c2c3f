#!/usr/bin/env python3
"""playfield and other libraries on Pong in turn, in agent steps per second. README.md in this folder says how to install them.

  benches/beside.py [--turns N] [--avx2] [--python FILE] [ppo] [paac] [dqn] [a3c]

--avx2 limits all of them to AVX2. --python is the interpreter that has the other libraries (default: target/others/bin/python).
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

from training import PLAYFIELD, ROOT, steps_per_second

# Configuration, steps (limited to AVX2), and scripts of `others`.
ROWS = {
    "ppo": ("configs/ppo/pong.toml", "20k", "12k", ["sb3.py ppo"]),
    "paac": ("configs/bench/paac.toml", "60k", "30k", ["sb3.py a2c", "torch_paac.py", "torch_paac.py --bf16"]),
    "dqn": ("configs/bench/dqn.toml", "10k", "6k", ["sb3.py dqn"]),
    "a3c": ("configs/bench/a3c.toml", "30k", "30k", ["pfrl_a3c.py"]),
}


def other(python, script, environment):
    """The rate that a script of `others` prints."""
    name, *arguments = script.split()
    command = [python, Path(__file__).parent / "others" / name, *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    rate = re.search(r"steps/s ([\d.]+)", result.stdout)
    if result.returncode != 0 or rate is None:
        sys.exit(f"{script} failed:\n{result.stderr[-2000:]}")
    return float(rate[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--avx2", action="store_true")
    parser.add_argument("--python", default=ROOT / "target/others/bin/python")
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}; all by default")
    arguments = parser.parse_args()
    for row in arguments.rows:
        if row not in ROWS:
            parser.error(f"no row '{row}': choose from {', '.join(ROWS)}")
    for file, make in ((PLAYFIELD, "make build"), (arguments.python, "see benches/README.md")):
        if not Path(file).exists():
            parser.error(f"{file} is missing: {make}")
    environment, limit = dict(os.environ), []
    if arguments.avx2:
        environment.update(ATEN_CPU_CAPABILITY="avx2", ONEDNN_MAX_CPU_ISA="AVX2")
        limit = ["--cpu", "avx2"]
    for row in arguments.rows or ROWS:
        config, steps, limited_steps, scripts = ROWS[row]
        scripts = [script for script in scripts if not (arguments.avx2 and "--bf16" in script)]
        ratios = {script: [] for script in scripts}
        for turn in range(1, arguments.turns + 1):
            own = steps_per_second(config, limited_steps if arguments.avx2 else steps, *limit)
            print(f"{row}, turn {turn}: playfield {own:.0f}", end="", flush=True)
            for script in scripts:
                rate = other(arguments.python, script, environment)
                ratios[script].append(own / rate)
                print(f", {script} {rate:.0f} ({own / rate:.2f})", end="", flush=True)
            print()
        for script, values in ratios.items():
            print(f"{row} / {script}: {statistics.median(values):.2f}, the median of {arguments.turns} ratios")


if __name__ == "__main__":
    main()
