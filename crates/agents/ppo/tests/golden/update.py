"""Writes update.json: the updates of PPO from one rollout by PyTorch's autograd and Adam, for each form of the loss and policy.

Everything is written out plainly, one environment and one step at a time. The policy that acted differs from the one that learns, so
that ratios and values are clipped from the first minibatch on. Run with PyTorch 2.13.0: python update.py > update.json
"""
import json

import torch

STEPS, ENVS, FEATURES, HIDDEN, ACTIONS = 4, 3, 2, 5, 3
GAMMA, LAMBDA, CLIP, LEARNING_RATE, ENTROPY, VALUE, MAX_NORM = 0.9, 0.8, 0.2, 0.01, 0.02, 0.5, 0.5
# What playfield draws for seed 1: minibatches of 5 transitions, by environment and step, two epochs. The last of each epoch is smaller.
ORDER = [[[0, 6, 9, 2, 5], [3, 1, 4, 7, 8], [10, 11]], [[9, 4, 2, 5, 8], [0, 6, 1, 7, 10], [3, 11]]]


def numbers(n, scale, shift=0.0):
    """A fixed sequence without pattern: both sides can write it down."""
    return [scale * (((i * 7919 + 13) % 101) / 50.0 - 1.0) + shift for i in range(n)]


def case(name, continuous, normalize, value_clip):
    outputs = 1 if continuous else ACTIONS
    shapes = {
        "torso.fc1.weight": [HIDDEN, FEATURES],
        "torso.fc1.bias": [HIDDEN],
        "policy.weight": [outputs, HIDDEN],
        "policy.bias": [outputs],
        "value.weight": [1, HIDDEN],
        "value.bias": [1],
    }
    if continuous:
        shapes["log_std"] = [1]
    params = {}
    for i, (key, shape) in enumerate(shapes.items()):
        n = int(torch.tensor(shape).prod())
        params[key] = torch.tensor(numbers(n, 0.5, 0.01 * i)).view(shape).requires_grad_()
    before = {k: p.detach().clone().flatten().tolist() for k, p in params.items()}

    obs = torch.tensor(numbers(STEPS * ENVS * FEATURES, 1.0)).view(STEPS, ENVS, FEATURES)
    last = torch.tensor(numbers(ENVS * FEATURES, 0.7)).view(ENVS, FEATURES)
    final = torch.tensor([0.3, -0.6])  # the last observation of the truncated episode
    actions = torch.tensor(numbers(STEPS * ENVS, 1.0)) if continuous else torch.tensor([i % ACTIONS for i in range(STEPS * ENVS)])
    actions = actions.view(STEPS, ENVS)
    reward = torch.tensor(numbers(STEPS * ENVS, 1.0)).view(STEPS, ENVS)
    terminated = torch.zeros(STEPS, ENVS, dtype=torch.bool)
    truncated = torch.zeros(STEPS, ENVS, dtype=torch.bool)
    terminated[1, 0] = True
    truncated[2, 1] = True

    def network(x):
        h = torch.tanh(x @ params["torso.fc1.weight"].T + params["torso.fc1.bias"])
        out = h @ params["policy.weight"].T + params["policy.bias"]
        return out, (h @ params["value.weight"].T + params["value.bias"]).squeeze(-1)

    def distribution(out):
        if continuous:
            return torch.distributions.Normal(out.squeeze(-1), params["log_std"].exp())
        return torch.distributions.Categorical(logits=out)

    with torch.no_grad():
        out, v = network(obs)
        v_last, v_final = network(last)[1], network(final)[1]
        old_log_prob = distribution(out).log_prob(actions) + torch.tensor(numbers(STEPS * ENVS, 0.4)).view(STEPS, ENVS)
        v = v + torch.tensor(numbers(STEPS * ENVS, 0.3, 0.05)).view(STEPS, ENVS)
    advantage = torch.zeros(STEPS, ENVS)
    for e in range(ENVS):
        running = 0.0
        for t in reversed(range(STEPS)):
            if terminated[t, e]:
                after, keep = 0.0, 0.0
            elif truncated[t, e]:
                after, keep = v_final, 0.0
            else:
                after, keep = (v_last[e] if t == STEPS - 1 else v[t + 1, e]), 1.0
            delta = reward[t, e] + GAMMA * after - v[t, e]
            running = delta + GAMMA * LAMBDA * keep * running
            advantage[t, e] = running
    returns = advantage + v

    optimizer = torch.optim.Adam(params.values(), lr=LEARNING_RATE, eps=1e-5)
    flat = [x.reshape(STEPS * ENVS, *x.shape[2:]) for x in (obs, actions, old_log_prob, v, advantage, returns)]
    terms = []
    for minibatch in sum(ORDER, []):
        x, a, old_lp, old_v, adv, g = (t[minibatch] for t in flat)
        if normalize:
            adv = (adv - adv.mean()) / (adv.std(unbiased=False) + 1e-8)
        out, value = network(x)
        d = distribution(out)
        log_ratio = d.log_prob(a) - old_lp
        ratio = log_ratio.exp()
        policy_loss = -torch.min(ratio * adv, torch.clamp(ratio, 1 - CLIP, 1 + CLIP) * adv).mean()
        value_loss = (g - value) ** 2
        if value_clip:
            clipped = old_v + torch.clamp(value - old_v, -value_clip, value_clip)
            value_loss = torch.max(value_loss, (g - clipped) ** 2)
        value_loss = value_loss.mean()
        entropy = d.entropy().mean()
        loss = policy_loss - ENTROPY * entropy + VALUE * value_loss
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params.values(), MAX_NORM)
        optimizer.step()
        kl = ((ratio - 1) - log_ratio).mean()
        fraction = ((ratio - 1).abs() > CLIP).float().mean()
        terms.append(torch.stack([t.detach() for t in (loss, policy_loss, value_loss, -entropy, kl, fraction, norm)]))
    assert 0 < torch.stack(terms)[:, 5].mean() < 1, "some ratios are clipped and some are not"
    return {
        "name": name,
        "continuous": continuous,
        "normalize_advantage": normalize,
        "value_clip_range": value_clip,
        "order": ORDER,
        "obs": obs.flatten().tolist(),
        "last": last.flatten().tolist(),
        "final": final.tolist(),
        "actions": [float(a) for a in actions.flatten()],
        "reward": reward.flatten().tolist(),
        "log_probs": old_log_prob.flatten().tolist(),
        "values": v.flatten().tolist(),
        "before": before,
        "after": {k: p.detach().flatten().tolist() for k, p in params.items()},
        "losses": torch.stack(terms).mean(0).tolist(),
    }


print(json.dumps([
    case("as published", False, False, 0.0),
    case("normalized advantages", False, True, 0.0),
    case("clipped values", False, True, 0.1),
    case("Gaussian", True, True, 0.0),
    case("Gaussian with clipped values", True, False, 0.1),
], indent=1))
