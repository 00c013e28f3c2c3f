"""Writes recurrent.json: PyTorch's RNN, GRU and LSTM on padded batches, one and both directions, two layers; and an LSTM with
peepholes after ONNX's formula, written out here by hand because PyTorch has none.

Run with PyTorch 2.13.0: python recurrent.py > recurrent.json
"""
import json

import torch

STEPS, N, INPUTS, WIDTH = 5, 3, 2, 4
LENGTHS = [5, 2, 3]
torch.set_default_dtype(torch.double)


def numbers(n, scale, shift=0.0, start=0):
    """A fixed sequence without pattern: both sides can write it down."""
    return [scale * ((((i + start) * 7919 + 13) % 101) / 50.0 - 1.0) + shift for i in range(n)]


def tensor(shape, scale, shift=0.0, start=0):
    count = 1
    for size in shape:
        count *= size
    return torch.tensor(numbers(count, scale, shift, start)).view(shape)


def case(kind, layers, bidirectional):
    """One PyTorch module on the padded batch: outputs, final states, and the gradients of a fixed weighting of the outputs."""
    module = getattr(torch.nn, kind.upper())(INPUTS, WIDTH, layers, bidirectional=bidirectional)
    for start, (name, param) in enumerate(module.named_parameters()):
        with torch.no_grad():
            # Where playfield has one bias, PyTorch's second is 0.
            zero = name.startswith("bias_hh") and kind != "gru"
            param.copy_(tensor(param.shape, 0.0 if zero else 0.6, 0.0, 17 * start))
    x = tensor((STEPS, N, INPUTS), 1.0)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(LENGTHS), enforce_sorted=False)
    y, state = module(packed)
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=STEPS)
    (y * tensor(y.shape, 1.0, 0.0, 5)).sum().backward()
    state = state if isinstance(state, tuple) else (state,)
    flat = lambda t: t.detach().flatten().tolist()
    return {
        "kind": kind,
        "layers": layers,
        "bidirectional": bidirectional,
        "params": {name: flat(param) for name, param in module.named_parameters()},
        "grads": {name: flat(param.grad) for name, param in module.named_parameters()},
        "outputs": flat(y),
        "state": [flat(s) for s in state],
    }


def peephole():
    """ONNX's LSTM operator with P (opset 14, its gates i, o, f, c written in PyTorch's order i, f, g, o):

    it = σ(Xt·Wiᵀ + Ht-1·Riᵀ + Pi ⊙ Ct-1 + b)        ct = tanh(Xt·Wcᵀ + Ht-1·Rcᵀ + b)
    ft = σ(Xt·Wfᵀ + Ht-1·Rfᵀ + Pf ⊙ Ct-1 + b)        Ct = ft ⊙ Ct-1 + it ⊙ ct
    ot = σ(Xt·Woᵀ + Ht-1·Roᵀ + Po ⊙ Ct + b)          Ht = ot ⊙ tanh(Ct)
    """
    shapes = {"weight_ih": (4 * WIDTH, INPUTS), "weight_hh": (4 * WIDTH, WIDTH), "bias": (4 * WIDTH,), "peephole": (3, WIDTH)}
    params = {n: tensor(s, 0.6, 0.0, 29 * i).requires_grad_() for i, (n, s) in enumerate(shapes.items())}
    w, r, b, p = params.values()
    x = tensor((STEPS, N, INPUTS), 1.0)
    outputs, finals = [], []
    for i, length in enumerate(LENGTHS):
        h, c, steps = torch.zeros(WIDTH), torch.zeros(WIDTH), []
        for t in range(length):
            part = lambda k: w[k * WIDTH:(k + 1) * WIDTH] @ x[t, i] + r[k * WIDTH:(k + 1) * WIDTH] @ h + b[k * WIDTH:(k + 1) * WIDTH]
            it = torch.sigmoid(part(0) + p[0] * c)
            ft = torch.sigmoid(part(1) + p[1] * c)
            c_new = ft * c + it * torch.tanh(part(2))
            h = torch.sigmoid(part(3) + p[2] * c_new) * torch.tanh(c_new)
            c = c_new
            steps.append(h)
        steps += [torch.zeros(WIDTH)] * (STEPS - length)
        outputs.append(torch.stack(steps))
        finals.append((h, c))
    y = torch.stack(outputs, 1)
    (y * tensor(y.shape, 1.0, 0.0, 5)).sum().backward()
    flat = lambda t: t.detach().flatten().tolist()
    return {
        "params": {n: flat(v) for n, v in params.items()},
        "grads": {n: flat(v.grad) for n, v in params.items()},
        "outputs": flat(y),
        "state": [flat(torch.stack([f[k] for f in finals])) for k in (0, 1)],
    }


print(json.dumps({
    "x": numbers(STEPS * N * INPUTS, 1.0),
    "weights_start": 5,
    "cases": [case(kind, layers, both) for kind in ("rnn", "gru", "lstm") for layers, both in ((1, False), (1, True), (2, True))],
    "peephole": peephole(),
}))
