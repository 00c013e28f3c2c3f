"""Writes reviews.txt: sentences of product reviews with the sentiment that people heard in them.

From amazonReviewSnippets_GroundTruth.txt in vaderSentiment 3.3.2's source distribution on PyPI (MIT, C. J. Hutto 2016; the
sentences are from the reviews collected by Hu and Liu 2004, each rated from -4 to 4 by twenty people):

    pip download vaderSentiment==3.3.2 --no-deps --no-binary :all:
    tar xzf vaderSentiment-3.3.2.tar.gz
    tar xzf vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz
    python reviews.py hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt

A line is a sentence, after `+` where its mean rating is 1 or more, `-` where it is -1 or less, and `0` in between.
"""

import sys

with open(sys.argv[1], encoding="utf-8", errors="replace") as rows, open("reviews.txt", "w", encoding="ascii") as out:
    for row in rows:
        _, rating, text = row.rstrip("\n").split("\t")
        sign = "+" if float(rating) >= 1 else "-" if float(rating) <= -1 else "0"
        out.write(f"{sign}\t{text.encode('ascii', 'ignore').decode().strip()}\n")
