"""Writes digits.bin from scikit-learn's copy of the digits (1797 images of 8×8 pixels, 0 to 16, with their labels).

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, licensed CC BY 4.0; the test part of it, as scikit-learn 1.9.1 (BSD-3-Clause) ships it in
sklearn/datasets/data/digits.csv.gz. Unchanged but for the format.

Format: 1797 records of 65 bytes: 64 pixels, row by row, then the label. Run with any Python, no packages needed:
python digits.py path/to/digits.csv.gz > digits.bin
"""
import gzip
import sys

with gzip.open(sys.argv[1], "rt") as file:
    for line in file:
        sys.stdout.buffer.write(bytes(int(float(number)) for number in line.split(",")))
