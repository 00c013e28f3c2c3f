"""Writes lstm.json: PyTorch's LSTM through three sequences of which one ends on the way, forward and backward.

Run with PyTorch 2.13.0: python lstm.py > lstm.json
"""
import json

import torch

STEPS, N, INPUTS, WIDTH = 4, 3, 2, 5
ENDS = {(2, 1)}  # sequence 1 starts anew before step 2


def numbers(n, scale, shift=0.0):
    """A fixed sequence without pattern: both sides can write it down."""
    return [scale * (((i * 7919 + 13) % 101) / 50.0 - 1.0) + shift for i in range(n)]


cell = torch.nn.LSTMCell(INPUTS, WIDTH).double()
params = {
    "weight_ih": numbers(4 * WIDTH * INPUTS, 0.7),
    "weight_hh": numbers(4 * WIDTH * WIDTH, 0.5, 0.02),
    "bias": numbers(4 * WIDTH, 0.3, 0.1),
}
with torch.no_grad():
    cell.weight_ih.copy_(torch.tensor(params["weight_ih"]).view_as(cell.weight_ih))
    cell.weight_hh.copy_(torch.tensor(params["weight_hh"]).view_as(cell.weight_hh))
    cell.bias_ih.copy_(torch.tensor(params["bias"]))
    cell.bias_hh.zero_()

x = torch.tensor(numbers(STEPS * N * INPUTS, 1.0), dtype=torch.double).view(STEPS, N, INPUTS)
h = torch.tensor(numbers(N * WIDTH, 0.4), dtype=torch.double).view(N, WIDTH)
c = torch.tensor(numbers(N * WIDTH, 0.9), dtype=torch.double).view(N, WIDTH)
start = {"h": h.flatten().tolist(), "c": c.flatten().tolist()}
outputs = []
for t in range(STEPS):
    keep = torch.tensor([[0.0 if (t, i) in ENDS else 1.0] for i in range(N)], dtype=torch.double)
    h, c = cell(x[t], (h * keep, c * keep))
    outputs.append(h)
y = torch.stack(outputs)
weights = torch.tensor(numbers(y.numel(), 1.0), dtype=torch.double).view_as(y)
(y * weights).sum().backward()
print(json.dumps({
    "params": params,
    "x": x.flatten().tolist(),
    "start": start,
    "outputs": y.flatten().tolist(),
    "end": {"h": h.flatten().tolist(), "c": c.flatten().tolist()},
    "weights": weights.flatten().tolist(),
    "grads": {
        "weight_ih": cell.weight_ih.grad.flatten().tolist(),
        "weight_hh": cell.weight_hh.grad.flatten().tolist(),
        "bias": cell.bias_ih.grad.flatten().tolist(),
    },
}))
