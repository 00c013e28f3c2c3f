"""Writes network.json: policies, values and gradients of the published networks, by PyTorch's own modules in float64.

Weights and frames come from `numbers`, which the test generates, too: the file holds results only. A gradient is
represented by its norm and its product with another such sequence, which sees every element's place.
Run with PyTorch 2.13.0: python network.py > network.json
"""
import json
import math

import torch
from torch import nn

N, ACTIONS = 3, 6
MASK = (1 << 32) - 1


def numbers(n, seed):
    """`n` numbers in [0, 1), multiples of 2**-24: the bits of a hashed counter."""
    h = ((torch.arange(n) + seed * 1_000_003) * 2_654_435_761) & MASK
    h = ((h ^ (h >> 15)) * 2_246_822_519) & MASK
    return ((h ^ (h >> 13)) >> 8).double() / (1 << 24)


def case(name, convs, flat, width):
    channels, layers = 4, []
    for outputs, size, stride in convs:
        layers += [nn.Conv2d(channels, outputs, size, stride), nn.ReLU()]
        channels = outputs
    torso = nn.Sequential(*layers).double()
    fc, policy, value = nn.Linear(flat, width).double(), nn.Linear(width, ACTIONS).double(), nn.Linear(width, 1).double()
    modules = {f"torso.conv{i + 1}": torso[2 * i] for i in range(len(convs))}
    modules |= {"torso.fc": fc, "policy": policy, "value": value}
    params = {f"{m}.{p}": getattr(module, p) for m, module in modules.items() for p in ("weight", "bias")}
    for i, key in enumerate(sorted(params)):
        module = modules[key.rsplit(".", 1)[0]]
        bound = 1 / math.sqrt(module.weight[0].numel())
        p = params[key]
        p.data = ((2 * numbers(p.numel(), i) - 1) * bound).float().double().view(p.shape)

    frames = torch.floor(numbers(N * 84 * 84 * 4, 99) * 256).view(N, 84, 84, 4)
    x = torso(frames.permute(0, 3, 1, 2) / 255)
    # The flattened features lie as (height, width, channel).
    x = torch.relu(fc(x.permute(0, 2, 3, 1).flatten(1)))
    logits, values = policy(x), value(x).squeeze(1)
    (logits.square().sum() + values.sum()).backward()
    return {
        "torso": name,
        "logits": logits.flatten().tolist(),
        "values": values.tolist(),
        "gradients": {
            key: [p.grad.norm().item(), (p.grad.flatten() @ (2 * numbers(p.numel(), 100 + i) - 1)).item()]
            for i, (key, p) in enumerate(sorted(params.items()))
        },
    }


print(json.dumps([
    case("nature", [(32, 8, 4), (64, 4, 2), (64, 3, 1)], 7 * 7 * 64, 512),
    case("nips", [(16, 8, 4), (32, 4, 2)], 9 * 9 * 32, 256),
], indent=1))
