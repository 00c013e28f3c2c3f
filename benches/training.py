"""The speed of a training run of playfield."""

import csv
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLAYFIELD = ROOT / "target/release/playfield"


def steps_per_second(config, steps, *arguments):
    """Of `playfield train config` after the first quarter of its steps, start-up excluded."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [PLAYFIELD, "train", config, "--steps", steps, "--run-dir", run, *arguments]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(run / "progress.csv", encoding="utf-8") as file:
            rows = [(float(r["time/time_elapsed"]), float(r["time/total_timesteps"])) for r in csv.DictReader(file)]
    first = next(row for row in rows if row[1] >= rows[-1][1] / 4)
    return (rows[-1][1] - first[1]) / (rows[-1][0] - first[0])
