"""Writes update.json: one DQN update by PyTorch's autograd and optimizers, for each member of the family.

Everything is written out plainly, one transition at a time where that is clearer. Run with PyTorch 2.13.0:
python update.py > update.json
"""
import json

import torch

N, FEATURES, TRUNK, HIDDEN, ACTIONS = 4, 2, 6, 5, 3


def numbers(n, scale, shift=0.0):
    """A fixed sequence without pattern."""
    return [scale * (((i * 7919 + 13) % 101) / 50.0 - 1.0) + shift for i in range(n)]


class Scale(torch.autograd.Function):
    """The identity, whose gradient is scaled by 1/sqrt(2): what a trunk under two streams gets (Wang et al. 2016, 4.2)."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 2**0.5


def network(params, x, dueling, atoms):
    if "torso.fc1.weight" in params:
        x = torch.tanh(x @ params["torso.fc1.weight"].T + params["torso.fc1.bias"])
        if dueling:
            x = Scale.apply(x)

    def stream(name):
        h = torch.tanh(x @ params[f"{name}.hidden.weight"].T + params[f"{name}.hidden.bias"])
        return h @ params[f"{name}.out.weight"].T + params[f"{name}.out.bias"]

    if not dueling:
        return stream("q").view(-1, ACTIONS, atoms)
    v, a = stream("value").view(-1, 1, atoms), stream("advantage").view(-1, ACTIONS, atoms)
    return v + a - a.mean(1, keepdim=True)


def case(name, double=False, dueling=False, distribution="none", atoms=1, loss="huber", summed=False, clip=0.0, rule="adam", trunk=False, kappa=1.0):
    streams = {"value": atoms, "advantage": ACTIONS * atoms} if dueling else {"q": ACTIONS * atoms}
    inputs = TRUNK if trunk else FEATURES
    shapes = {"torso.fc1.weight": [TRUNK, FEATURES], "torso.fc1.bias": [TRUNK]} if trunk else {}
    for stream, outputs in streams.items():
        shapes[f"{stream}.hidden.weight"] = [HIDDEN, inputs]
        shapes[f"{stream}.hidden.bias"] = [HIDDEN]
        shapes[f"{stream}.out.weight"] = [outputs, HIDDEN]
        shapes[f"{stream}.out.bias"] = [outputs]

    def make(scale):
        return {
            k: torch.tensor(numbers(int(torch.tensor(s).prod()), scale, 0.03 * i)).view(s) for i, (k, s) in enumerate(shapes.items())
        }

    online = {k: p.requires_grad_() for k, p in make(0.9).items()}
    target = make(-0.8)
    s_tm1 = torch.tensor(numbers(N * FEATURES, 1.5)).view(N, FEATURES)
    s_t = torch.tensor(numbers(N * FEATURES, -1.2, 0.2)).view(N, FEATURES)
    a = torch.tensor([0, 2, 1, 1])
    r = torch.tensor([1.0, -3.0, 0.25, 2.0])
    discount = torch.tensor([0.9, 0.0, 0.81, 0.9])
    w = torch.tensor([1.0, 0.5, 0.25, 0.75])
    z = torch.linspace(-2.0, 2.0, atoms)

    def mean(out):
        if distribution == "categorical":
            return (out.softmax(-1) * z).sum(-1)
        return out.mean(-1)

    with torch.no_grad():
        next_out = network(target, s_t, dueling, atoms)
        chooser = network(online, s_t, dueling, atoms) if double else next_out
        best = mean(chooser).argmax(1)
    out = network(online, s_tm1, dueling, atoms)
    q = mean(out)[torch.arange(N), a]
    losses, errors = [], []
    for i in range(N):
        mine, theirs = out[i, a[i]], next_out[i, best[i]]
        if distribution == "none":
            delta = r[i] + discount[i] * theirs[0] - mine[0]
            zero = torch.zeros(())
            losses.append(torch.nn.functional.huber_loss(delta, zero, delta=kappa) if loss == "huber" else 0.5 * delta**2)
            errors.append(float(delta))
        elif distribution == "categorical":
            p, m = theirs.softmax(-1), torch.zeros(atoms)
            for j in range(atoms):
                b = ((r[i] + discount[i] * z[j]).clamp(-2.0, 2.0) + 2.0) / (z[1] - z[0])
                low, high = int(b.floor()), int(b.ceil())
                if low == high:
                    m[low] += p[j]
                else:
                    m[low] += p[j] * (high - b)
                    m[high] += p[j] * (b - low)
            losses.append(-(m * mine.log_softmax(-1)).sum())
            errors.append(float(losses[-1]))
        else:
            total = torch.zeros(())
            for k in range(atoms):
                tau = (2 * k + 1) / (2 * atoms)
                for j in range(atoms):
                    u = r[i] + discount[i] * theirs[j] - mine[k]
                    total = total + abs(tau - float(u < 0)) * torch.nn.functional.huber_loss(u, torch.zeros(()), delta=kappa) / kappa / atoms
            losses.append(total)
            errors.append(float(total))
    total = (w * torch.stack(losses)).mean() * (N if summed else 1)
    before = {k: p.detach().flatten().tolist() for k, p in online.items()}
    total.backward()
    norm = torch.nn.utils.clip_grad_norm_(online.values(), clip if clip else 1e9)
    if rule == "adam":
        torch.optim.Adam(online.values(), lr=0.01, betas=(0.9, 0.999), eps=1.5e-4).step()
    else:
        torch.optim.RMSprop(online.values(), lr=0.01, alpha=0.95, eps=0.01, centered=True).step()
    return {
        "name": name,
        "double": double,
        "dueling": dueling,
        "distribution": distribution,
        "atoms": atoms,
        "loss": loss,
        "sum_over_batch": summed,
        "gradient_clip": clip,
        "rule": rule,
        "trunk": trunk,
        "kappa": kappa,
        "s_tm1": s_tm1.flatten().tolist(),
        "s_t": s_t.flatten().tolist(),
        "a_tm1": a.tolist(),
        "r_t": r.tolist(),
        "discount_t": discount.tolist(),
        "weights": w.tolist(),
        "before": before,
        "target": {k: p.flatten().tolist() for k, p in target.items()},
        "after": {k: p.detach().flatten().tolist() for k, p in online.items()},
        "errors": errors,
        "results": [float(total.detach()), float(q.detach().mean()), float(norm)],
    }


print(json.dumps([
    case("Nature", summed=True, rule="rmsprop"),
    case("double, squared, clipped", double=True, loss="squared", clip=0.3),
    case("dueling", dueling=True),
    case("double dueling", double=True, dueling=True, summed=True, rule="rmsprop"),
    case("C51", distribution="categorical", atoms=5),
    case("quantile", distribution="quantile", atoms=4),
    case("Rainbow without noise", double=True, dueling=True, distribution="categorical", atoms=5, clip=0.2),
    case("dueling over a trunk", dueling=True, trunk=True),
    case("double dueling C51 over a trunk", double=True, dueling=True, distribution="categorical", atoms=5, trunk=True, clip=0.2),
    case("Huber's bound at 0.4", trunk=True, kappa=0.4),
    case("quantile, kappa 0.4", distribution="quantile", atoms=4, kappa=0.4),
    case("quantile, kappa 2.5, dueling over a trunk", dueling=True, distribution="quantile", atoms=4, kappa=2.5, trunk=True),
], indent=1))
