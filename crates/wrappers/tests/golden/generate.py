"""Writes area.json: frames converted to gray and reduced by INTER_AREA in OpenCV, for tests/resize.rs.

    python -m venv venv && venv/bin/pip install opencv-python-headless==5.0.0.93 numpy==2.4.6
    venv/bin/python crates/wrappers/tests/golden/generate.py

(4.12.0.88 writes the same.) The test generates the same input frames, so only results are stored:
all pixels of a small frame; of a large one, the sum of `pixel * (1 + index % 251)` and every 37th pixel.
"""

import json
import pathlib

import cv2
import numpy as np


def frame(kind, shape):
    """Pixels from a linear congruential generator: noise, black and white, or white."""
    x, out = 12345, []
    for _ in range(int(np.prod(shape))):
        x = (x * 1664525 + 1013904223) % 2**32
        byte = x >> 24
        out.append({"noise": byte, "binary": 255 * (byte >> 7), "white": 255}[kind])
    return np.array(out, dtype=np.uint8).reshape(shape)


def case(kind, shape, to):
    pixels = frame(kind, shape)
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if len(shape) == 3 else pixels
    out = cv2.resize(gray, (to[1], to[0]), interpolation=cv2.INTER_AREA).ravel()
    checksum = int((out.astype(np.int64) * (1 + np.arange(out.size) % 251)).sum())
    kept = out if out.size <= 300 else out[::37]
    return {"kind": kind, "from": shape, "to": to, "checksum": checksum, "pixels": kept.tolist()}


sizes = [
    ([210, 160], [84, 84]),  # Atari's way
    ([250, 160], [84, 84]),
    ([210, 160], [42, 40]),
    ([210, 160, 3], [84, 84]),
    ([168, 168], [84, 84]),  # by 2: halves up
    ([20, 16], [10, 8]),
    ([20, 16, 3], [10, 8]),
    ([12, 12], [6, 3]),  # by other whole numbers: halves to even
    ([30, 24], [10, 8]),
    ([10, 8], [10, 4]),
    ([10, 7], [10, 3]),  # one side stays
    ([7, 10], [3, 10]),
    ([7, 5], [6, 4]),
    ([9, 9], [9, 9]),  # nothing changes
    ([16, 12, 3], [16, 12]),  # colors alone
    ([5, 5], [1, 1]),
    ([13, 11], [1, 4]),
]
golden = {
    "opencv": cv2.__version__,
    "cases": [case(kind, *size) for size in sizes for kind in ["noise", "binary", "white"]],
}
path = pathlib.Path(__file__).with_name("area.json")
path.write_text(json.dumps(golden).replace('}, {"kind"', '},\n{"kind"') + "\n")
