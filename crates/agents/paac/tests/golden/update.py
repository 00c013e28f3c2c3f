"""Writes update.json: one PAAC update by PyTorch's autograd and optimizers, for each form of the loss and policy.

Everything is written out plainly, one environment and one step at a time. Run with PyTorch 2.13.0:
python update.py > update.json
"""
import json

import torch

STEPS, ENVS, FEATURES, HIDDEN, ACTIONS = 4, 3, 2, 5, 3
GAMMA = 0.9


def numbers(n, scale, shift=0.0):
    """A fixed sequence without pattern: both sides can write it down."""
    return [scale * (((i * 7919 + 13) % 101) / 50.0 - 1.0) + shift for i in range(n)]


def case(name, continuous, gae_lambda, sum_over_time, normalize, rule):
    torch.manual_seed(0)
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
        v = network(obs)[1]
        v_last, v_final = network(last)[1], network(final)[1]
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
            running = delta + GAMMA * gae_lambda * keep * running
            advantage[t, e] = running
    returns = advantage + v
    used = advantage
    if normalize:
        used = (advantage - advantage.mean()) / (advantage.std(unbiased=False) + 1e-8)

    out, value = network(obs)
    d = distribution(out)
    policy_loss = -(d.log_prob(actions) * used).mean()
    value_loss = ((returns - value) ** 2).mean()
    entropy = d.entropy().mean()
    scale = STEPS if sum_over_time else 1
    loss = scale * (policy_loss - 0.02 * entropy + 0.25 * value_loss)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(params.values(), 0.5)
    before = {k: p.detach().clone().flatten().tolist() for k, p in params.items()}
    if rule == "rmsprop":
        torch.optim.RMSprop(params.values(), lr=0.01, alpha=0.99, eps=0.1).step()
    else:
        torch.optim.Adam(params.values(), lr=0.01, betas=(0.9, 0.999), eps=1e-5).step()
    explained = 1 - (returns - value.detach()).var(unbiased=False) / returns.var(unbiased=False)
    return {
        "name": name,
        "continuous": continuous,
        "gae_lambda": gae_lambda,
        "sum_over_time": sum_over_time,
        "normalize_advantage": normalize,
        "rule": rule,
        "obs": obs.flatten().tolist(),
        "last": last.flatten().tolist(),
        "final": final.tolist(),
        "actions": [float(a) for a in actions.flatten()],
        "reward": reward.flatten().tolist(),
        "before": before,
        "after": {k: p.detach().flatten().tolist() for k, p in params.items()},
        "losses": [float(x) for x in (loss, policy_loss, value_loss, -entropy, explained, norm)],
    }


print(json.dumps([
    case("as published", False, 1.0, True, False, "rmsprop"),
    case("averaged over time", False, 1.0, False, False, "rmsprop"),
    case("GAE, normalized, Adam", False, 0.95, False, True, "adam"),
    case("Gaussian", True, 1.0, True, False, "rmsprop"),
    case("Gaussian with GAE", True, 0.9, False, False, "adam"),
], indent=1))
