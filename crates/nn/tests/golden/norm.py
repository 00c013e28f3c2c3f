"""Writes norm.json: PyTorch's normalization layers, forward, backward, and what they remember.

Run with PyTorch 2.13.0: python norm.py > norm.json
"""
import json

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval


def numbers(n, scale, shift=0.0):
    """A fixed sequence without pattern: both sides can write it down."""
    return [scale * (((i * 7919 + 13) % 101) / 50.0 - 1.0) + shift for i in range(n)]


def tensor(shape, scale, shift=0.0):
    return torch.tensor(numbers(torch.Size(shape).numel(), scale, shift), dtype=torch.double).view(shape)


def flat(t):
    return t.detach().flatten().tolist()


def run(layer, x):
    """One pass forward and one backward, of the loss Σ y·numbers."""
    layer.zero_grad()
    x = x.clone().requires_grad_()
    y = layer(x)
    (y * tensor(y.shape, 1.0)).sum().backward()
    return {"x": flat(x), "y": flat(y), "grad": flat(x.grad), "params": {k: flat(p.grad) for k, p in layer.named_parameters()}}


def affine(layer):
    with torch.no_grad():
        layer.weight.copy_(tensor(layer.weight.shape, 0.7, 1.1))
        layer.bias.copy_(tensor(layer.bias.shape, 0.4, 0.1))
    return layer


def batch_norm(layer, shape):
    """Two batches to learn from, then a third one to act on."""
    affine(layer.double())
    steps = []
    for scale, shift in [(1.3, 0.5), (0.6, -0.8)]:
        step = run(layer, tensor(shape, scale, shift))
        steps.append(step | {"mean": flat(layer.running_mean), "var": flat(layer.running_var)})
    layer.eval()
    return {"shape": shape, "steps": steps, "acting": run(layer, tensor(shape, 1.0))}


def fused(before, norm, fuse, shape):
    affine(norm.double()).eval()
    before.double().eval()
    with torch.no_grad():
        norm.running_mean.copy_(tensor(norm.running_mean.shape, 0.9, 0.3))
        norm.running_var.copy_(tensor(norm.running_var.shape, 0.5, 1.7))
        before.weight.copy_(tensor(before.weight.shape, 0.8))
        before.bias.copy_(tensor(before.bias.shape, 0.2))
        layer = fuse(before, norm)
        x = tensor(shape, 1.0)
        return {
            "shape": shape, "kernel": list(layer.weight.shape), "weight": flat(layer.weight), "bias": flat(layer.bias),
            "y": flat(norm(before(x))),
        }


print(json.dumps({
    "batch_1d": batch_norm(nn.BatchNorm1d(3), [5, 3]),
    "batch_2d": batch_norm(nn.BatchNorm2d(3), [4, 3, 2, 3]),
    "layer": {"shape": [4, 5]} | run(affine(nn.LayerNorm(5).double()), tensor([4, 5], 1.3, 0.5)),
    "layer_images": {"shape": [2, 3, 2, 4]} | run(affine(nn.GroupNorm(1, 3).double()), tensor([2, 3, 2, 4], 1.3, 0.5)),
    "local_response": {"shape": [2, 7, 2, 2]} | run(nn.LocalResponseNorm(5, 0.3, 0.75, 2.0), tensor([2, 7, 2, 2], 1.3, 0.5)),
    "local_response_even": {"shape": [2, 7, 2, 2]} | run(nn.LocalResponseNorm(4, 0.3, 0.75, 1.0), tensor([2, 7, 2, 2], 1.3)),
    "fused_conv": fused(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), fuse_conv_bn_eval, [2, 2, 4, 4]),
    "fused_linear": fused(nn.Linear(4, 3), nn.BatchNorm1d(3), fuse_linear_bn_eval, [5, 4]),
}))
