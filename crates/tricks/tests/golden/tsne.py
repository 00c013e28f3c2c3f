"""Writes tsne.json: divergences that scikit-learn's exact t-SNE ends with on the first 150 digits, over seeds and perplexities.

scikit-learn 1.9.1, NumPy of any version. From this folder:
python tsne.py ../../data/digits.bin > tsne.json
"""

import json
import sys

import numpy as np
import sklearn
from sklearn.manifold import TSNE

assert sklearn.__version__ == "1.9.1", sklearn.__version__
records = np.frombuffer(open(sys.argv[1], "rb").read(), np.uint8).reshape(-1, 65)
x = (records[:150, :64] / 16).astype(np.float32)


def divergence(perplexity, seed):
    return float(TSNE(perplexity=perplexity, method="exact", init="random", random_state=seed).fit(x).kl_divergence_)


print(json.dumps([{"perplexity": p, "divergences": [divergence(p, s) for s in range(5)]} for p in (5.0, 15.0, 40.0)]))
