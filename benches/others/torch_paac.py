"""Agent steps per second of PAAC by hand in PyTorch: Pong in ALE's vector environment, 32 environments x 5 steps, the nature network.

  torch_paac.py [--bf16]     with autocast, and memory in the channels-last format
"""

import sys
import time

import numpy as np
import torch
from ale_py.vector_env import AtariVectorEnv
from torch import nn
from torch.nn import functional as F

ENVS, STEPS, SECONDS, GAMMA = 32, 5, 15, 0.99
BF16 = "--bf16" in sys.argv[1:]


class ActorCritic(nn.Module):
    def __init__(self, actions):
        super().__init__()
        self.torso = nn.Sequential(
            nn.Conv2d(4, 32, 8, stride=4), nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(),
            nn.Conv2d(64, 64, 3), nn.ReLU(),
            nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(),
        )
        self.policy, self.value = nn.Linear(512, actions), nn.Linear(512, 1)

    def forward(self, obs):
        x = obs.float() / 255
        if BF16:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=BF16):
            features = self.torso(x)
            return self.policy(features).float(), self.value(features).float().squeeze(1)


def main():
    torch.set_num_threads(2)
    env = AtariVectorEnv("pong", ENVS, num_threads=2)
    net = ActorCritic(env.single_action_space.n)
    if BF16:
        net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.RMSprop(net.parameters(), lr=7e-4, alpha=0.99, eps=0.1, foreach=True)
    obs, _ = env.reset(seed=0)
    obs, updates, start = torch.from_numpy(np.array(obs)), 0, None
    while start is None or time.perf_counter() - start < SECONDS:
        rollout = []
        with torch.no_grad():
            for _ in range(STEPS):
                actions = torch.distributions.Categorical(logits=net(obs)[0]).sample()
                following, reward, terminated, truncated, _ = env.step(actions.numpy())
                discount = torch.from_numpy(GAMMA * ~(terminated | truncated)).float()
                rollout.append((obs, actions, torch.from_numpy(np.asarray(reward, np.float32)), discount))
                obs = torch.from_numpy(np.array(following))
            target, returns = net(obs)[1], []
            for _, _, reward, discount in reversed(rollout):
                target = reward + discount * target
                returns.insert(0, target)
        logits, values = net(torch.cat([step[0] for step in rollout]))
        log_pi = F.log_softmax(logits, 1)
        log_prob = log_pi.gather(1, torch.cat([step[1] for step in rollout])[:, None]).squeeze(1)
        advantage = torch.cat(returns) - values
        entropy = -(log_pi.exp() * log_pi).sum(1).mean()
        loss = -(log_prob * advantage.detach()).mean() + 0.25 * advantage.square().mean() - 0.02 * entropy
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 3.0)
        optimizer.step()
        if start is None:  # The first update is the warm-up.
            start = time.perf_counter()
        else:
            updates += 1
    print(f"steps/s {updates * ENVS * STEPS / (time.perf_counter() - start):.1f}")


if __name__ == "__main__":
    main()
