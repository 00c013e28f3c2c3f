"""Writes optim.json: steps of PyTorch's optimizers on fixed parameters and gradients.

Run with PyTorch 2.13.0: python optim.py > optim.json
"""
import json

import torch

START = [0.5, -1.0, 2.0, 0.0]
GRADIENTS = [[0.1, -0.2, 0.3, 0.0], [-0.4, 0.05, 2.5, 1e-4], [0.0, 1.0, -1.5, -1e-4], [3.0, -2.0, 0.25, 0.5]]


def run(make, clip=None, repeat=1):
    p = torch.nn.Parameter(torch.tensor(START))
    optimizer = make([p])
    steps = []
    for g in GRADIENTS * repeat:
        p.grad = torch.tensor(g)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_([p], clip)
        optimizer.step()
        steps.append(p.detach().tolist())
    return steps


print(json.dumps({
    "torch": torch.__version__,
    "start": START,
    "gradients": GRADIENTS,
    "rmsprop": run(lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.99, eps=1e-5)),
    "rmsprop_clipped": run(lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.99, eps=0.1), clip=0.5),
    "rmsprop_centred": run(lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.95, eps=0.01, centered=True)),
    "adam": run(lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.9, 0.999), eps=1e-5)),
    "sgd": run(lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)),
    "sgd_decayed": run(lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.1)),
    "adam_decayed": run(lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.9, 0.999), eps=1e-5, weight_decay=0.1)),
    "rmsprop_decayed_clipped": run(
        lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.99, eps=0.1, weight_decay=0.1), clip=0.5
    ),
    "adamw": run(lambda p: torch.optim.AdamW(p, lr=0.01)),
    # RAdam rectifies from the sixth update on.
    "radam": run(lambda p: torch.optim.RAdam(p, lr=0.01), repeat=3),
    "radam_decayed": run(lambda p: torch.optim.RAdam(p, lr=0.01, weight_decay=0.1), repeat=3),
}, indent=1))
