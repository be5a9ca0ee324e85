"""A whole update of A2PO's policies beside its public code, with the same weights and rollout, in float64.

    python benchmarks/a2po_beside_code.py write FOLDER          with hajax: weights, a rollout, the updated weights
    python benchmarks/a2po_beside_code.py compare FOLDER CODE   with PyTorch and NumPy: theirs, and the differences

CODE is a copy of github.com/xihuai18/A2PO-ICLR2023. Three agents with linear policies are updated one after another in
a fixed order, with three epochs each. Where the public code differs from the paper it is asked for what both have: λ is
1 (it multiplies λ twice into the traces), R is clipped to the interval of the paper, which depends on the position, and
the advantage of an agent is standardized over its own samples.
"""

from __future__ import annotations

import argparse
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

N, STEPS, ENVS, OBSERVED, CHOICES, EPOCHS = 3, 12, 8, 5, 4, 3
CLIP, FLOOR, RATE, ENTROPY, DISCOUNT, NORM, EPSILON = 0.2, 0.5, 0.1, 0.01, 0.95, 0.5, 1e-5


def write(folder: Path) -> None:
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    import hajax
    from hajax.core.on_policy.template import estimate, make_networks

    class Identity(nn.Module):
        def __call__(self, x):
            return x

    jax.config.update("jax_enable_x64", True)
    agents = tuple(hajax.AgentSpec(f"agent_{i}", (OBSERVED,), hajax.Discrete(CHOICES)) for i in range(N))
    spec = hajax.EnvSpec("three", agents, OBSERVED, STEPS, masks_actions=False)
    networks = {"actor": Identity(), "critic": Identity()}
    algo = hajax.make_algorithm(
        "a2po", spec, **networks, order="fixed", normalize_values=False, epochs=EPOCHS, minibatches=1, clip=CLIP,
        clip_floor=FLOOR, actor_lr=RATE, entropy_coef=ENTROPY, discount=DISCOUNT, gae_lambda=1.0, max_grad_norm=NORM,
        adam_eps=EPSILON,
    )  # fmt: skip
    state = algo.init(jax.random.key(0))
    grown = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), state.actors.params)
    state = state._replace(actors=state.actors._replace(params=grown))
    keys = iter(jax.random.split(jax.random.key(1), 6))
    observation = jax.random.normal(next(keys), (STEPS + 1, ENVS, N, OBSERVED))
    seen = jax.random.normal(next(keys), (STEPS + 1, ENVS, OBSERVED))
    timestep = types.SimpleNamespace(observation=observation[:-1], action_mask=None)
    logits = {"/".join(map(str, path)): x for path, x in jax.tree_util.tree_leaves_with_path(grown)}
    kernel, bias = (next(x for name, x in logits.items() if part in name) for part in ("kernel", "bias"))
    assert len(logits) == 2
    scores = jnp.einsum("...no,noc->...nc", timestep.observation, kernel) + bias
    action = jax.random.categorical(next(keys), scores)[..., None]
    log_prob = jnp.take_along_axis(jax.nn.log_softmax(scores), action, -1)[..., 0]
    batch = hajax.on_policy_batch(
        spec,
        observation=observation[:-1],
        state=seen[:-1],
        action=action.astype(float),
        log_prob=log_prob,
        reward=jax.random.normal(next(keys), (STEPS, ENVS)),
        final_observation=observation[1:],
        final_state=seen[1:],
        terminated=jax.random.bernoulli(next(keys), 0.1, (STEPS, ENVS)),
    )
    _, critics = make_networks("a2po", spec, algo.settings, **networks)
    values = estimate(critics, state, batch).value
    last = estimate(critics, state, batch._replace(state=batch.final_state)).value[-1:]
    new, info = algo.update(jax.random.key(2), state, batch)
    after = {"/".join(map(str, path)): x for path, x in jax.tree_util.tree_leaves_with_path(new.actors.params)}
    found: dict[str, Any] = {
        "observation": observation, "action": action, "log_prob": log_prob, "reward": batch.reward,
        "terminated": batch.terminated, "value": jnp.concatenate([values, last]), "kernel": kernel, "bias": bias,
    }  # fmt: skip
    found |= {f"new_{part}": next(x for name, x in after.items() if part in name) for part in ("kernel", "bias")}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "ours.npz", **{name: np.asarray(x) for name, x in found.items()})
    shares = {name: np.round(info[name], 3).tolist() for name in ("effective_samples", "guarded", "clip_fraction")}
    print(f"{len(found)} arrays in {folder / 'ours.npz'}; {shares}")


def compare(folder: Path, code: Path) -> None:
    sys.path[0] = str(code)  # torch would import the tabulate.py beside this script
    import torch
    from torch import nn

    # The package's own __init__ imports tools for experiments.
    package = types.ModuleType("onpolicy")
    package.__path__ = [str(code / "onpolicy")]
    sys.modules["onpolicy"] = package
    from onpolicy.algorithms.r_mappo.r_mappo import R_MAPPO
    from onpolicy.utils.shared_buffer import SharedReplayBuffer

    torch.set_default_dtype(torch.float64)
    ours = np.load(folder / "ours.npz")

    class Policies:
        """The interface of their separate policies: linear ones, and values that nothing learns."""

        def __init__(self):
            self.actor_list = [nn.Linear(OBSERVED, CHOICES) for _ in range(N)]
            self.critic_list = [nn.Linear(1, 1) for _ in range(N)]
            self.actor_optimizer = Optimizers(self.actor_list)
            self.critic_optimizer = Optimizers(self.critic_list)
            for i, actor in enumerate(self.actor_list):
                actor.weight.data = torch.tensor(ours["kernel"][i].T.copy())
                actor.bias.data = torch.tensor(ours["bias"][i])

        def actor_evaluate_actions(self, obs, memory, action, *_, ids=None):
            ids = np.arange(N) if ids is None else ids
            obs = torch.as_tensor(obs).reshape(-1, len(ids), OBSERVED)
            scores = torch.stack([self.actor_list[i](obs[:, k]) for k, i in enumerate(ids)], 1)
            distribution = torch.distributions.Categorical(logits=scores)
            taken = torch.as_tensor(action).reshape(-1, len(ids))
            return distribution.log_prob(taken).reshape(-1, 1), distribution.entropy().mean(0).sum()

        def evaluate_actions(self, state, obs, memory, critic_memory, action, masks, available, active, ids=None):
            log_prob, entropy = self.actor_evaluate_actions(obs, memory, action, ids=ids)
            own = self.critic_list if ids is None else [self.critic_list[i] for i in ids]
            values = torch.stack([critic(torch.ones(len(log_prob) // len(own), 1)) for critic in own], 1)
            return values.reshape(-1, 1), log_prob, entropy

        def get_values(self, state, *_):
            return torch.tensor(ours["value"][-1]).reshape(ENVS, 1)

    class Optimizers:
        def __init__(self, modules):
            self.own = [torch.optim.Adam(module.parameters(), lr=RATE, eps=EPSILON) for module in modules]

        def zero_grad(self, ids):
            for i in ids:
                self.own[i].zero_grad()

        def step(self, ids):
            for i in ids:
                self.own[i].step()

    class Options(types.SimpleNamespace):
        """Their options; all that are not given are off."""

        def __getattr__(self, name):
            return False

    on = ("clip_param_tuner", "use_max_grad_norm", "use_policy_active_masks", "clip_others", "use_gae", "use_gae_trace")
    options: dict[str, Any] = dict.fromkeys(on, True)
    options |= {
        "clip_param": CLIP, "near_linear_clip_param_weight": 1 - FLOOR, "entropy_coef": ENTROPY, "gamma": DISCOUNT,
        "gae_lambda": 1.0, "trace_clip_param": 1.0, "max_grad_norm": NORM, "value_loss_coef": 1, "num_agents": N,
        "episode_length": STEPS, "n_rollout_threads": ENVS, "hidden_size": 1, "recurrent_N": 1,
        "action_aggregation": "prod",
    }  # fmt: skip
    given = Options(**options)
    policies = Policies()
    trainer = R_MAPPO(given, policies)
    trainer.tpdv["dtype"] = torch.float64
    box, discrete = type("Box", (), {"shape": (OBSERVED,)})(), type("Discrete", (), {"n": CHOICES})()
    buffer = SharedReplayBuffer(given, N, box, box, discrete)
    for name, array in vars(buffer).items():
        if isinstance(array, np.ndarray):
            setattr(buffer, name, array.astype(np.float64))
    buffer.obs[:] = ours["observation"]
    buffer.actions[:] = ours["action"]
    buffer.action_log_probs[:] = ours["log_prob"][..., None]
    buffer.rewards[:] = ours["reward"][..., None]
    buffer.masks[1:] = 1.0 - ours["terminated"][..., None, None]
    buffer.value_preds[:] = ours["value"][..., None]
    for k in range(N):
        own, before = np.array([k]), (np.arange(N) <= k)[None].astype(float)
        buffer.some_agent_compute_returns_from_current_policy(policies, own, before)
        advantage = buffer.weighted_returns[:-1] - buffer.value_preds[:-1]
        advantage = (advantage - advantage[:, :, k].mean()) / (advantage[:, :, k].std() + 1e-5)
        trainer.others_clip_param = CLIP * (FLOOR + (1 - FLOOR) * (k + 1) / N) / 2
        for _ in range(EPOCHS):
            (samples,) = buffer.feed_forward_generator(advantage, 1)
            trainer.some_agent_ppo_update(own, before, samples, agent_order=k + 1)
    worst = {}
    for part, shape in (("weight", "kernel"), ("bias", "bias")):
        theirs = np.stack([getattr(actor, part).detach().numpy().T for actor in policies.actor_list])
        worst[shape] = np.abs(theirs - ours[f"new_{shape}"]).max()
        moved = np.abs(ours[f"new_{shape}"] - ours[shape]).max()
        print(f"{shape}: moved by at most {moved:.2g}, largest difference {worst[shape]:.2g}")
    if not max(worst.values()) < 1e-9:
        raise SystemExit("they differ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("write", "compare"):
        command = commands.add_parser(name)
        command.add_argument("folder", type=Path)
        if name == "compare":
            command.add_argument("code", type=Path)
    given = parser.parse_args()
    write(given.folder) if given.command == "write" else compare(given.folder, given.code)


if __name__ == "__main__":
    main()
