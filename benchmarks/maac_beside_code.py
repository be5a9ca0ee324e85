"""MAAC's losses and gradients beside its public code, with the same weights, batch and sampled actions, in float64.

    python benchmarks/maac_beside_code.py write FOLDER          with hajax: weights, a batch, and our numbers
    python benchmarks/maac_beside_code.py compare FOLDER CODE   with PyTorch and NumPy: theirs, and the differences

CODE is a copy of github.com/shariqiqbal2810/MAAC. Its critic is built without batch normalization (`norm_in=False`),
which hajax does by running statistics; one without normalization is compared. The discount is 1 and nothing terminates,
because the public code subtracts log π/ρ outside of both.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np

N, OBSERVED, CHOICES, ROWS, WIDTH, HEADS, SCALE = 4, (7, 5, 6, 4), (5, 3, 2, 4), 32, 128, 4, 100.0


def write(folder: Path) -> None:
    import jax
    import jax.numpy as jnp

    import hajax
    from hajax.core.actors import TeamActors, policy_torso
    from hajax.core.batches import CriticInput
    from hajax.core.groups import make_groups
    from hajax.core.off_policy.attention_values import AttentionValues
    from hajax.core.off_policy.choices import Choices, TeamChoices
    from hajax.core.off_policy.counterfactual import CounterfactualObjective
    from hajax.core.off_policy.joint_sequence import GroupActor, OffPolicySamples

    jax.config.update("jax_enable_x64", True)
    agents = tuple(hajax.AgentSpec(f"agent_{i}", (OBSERVED[i],), hajax.Discrete(CHOICES[i])) for i in range(N))
    spec = hajax.EnvSpec("four", agents, 1, 10, reward="individual", masks_actions=False)
    algo = hajax.make_algorithm("maac", spec, normalize_observations=False)
    state = algo.init(jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 8))
    shown = jax.random.normal(next(keys), (2, ROWS, N, max(OBSERVED))) * spec.observation_mask
    index_keys = jax.random.split(next(keys), N)
    index = jnp.stack([jax.random.randint(index_keys[i], (3, ROWS), 0, CHOICES[i]) for i in range(N)], -1)
    reward = jax.random.normal(next(keys), (N, ROWS))
    choices = TeamChoices(spec)
    critics = AttentionValues(spec, choices, WIDTH, HEADS)
    actors = TeamActors(spec, make_groups(spec, "none"), policy_torso(spec, algo.settings, None), False, True, 0.01)
    params, policies = jax.tree.map(lambda x: x[0, 0], state.critics.params), state.actors.params
    params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), params)
    active = jnp.ones((ROWS, N), bool)
    inputs, final = (CriticInput(jnp.zeros((ROWS, 1)), x, active) for x in shown)
    taken, following, drawn = (x[..., None] for x in index)

    def log_prob_of(params, observation, index):
        logits = actors.team_distribution(params, observation, None)[0].logits[..., 0, :]
        return jnp.take_along_axis(jax.nn.log_softmax(logits), index, -1)[..., 0].T, logits

    log_prob, _ = log_prob_of(policies, final.observation, following)
    target = reward + critics.value(params, final, following) - log_prob / SCALE
    loss_of = jax.value_and_grad(critics.loss, has_aux=True)
    (loss, _), gradient = loss_of(params, inputs, taken, target, algo.hyperparameters)
    values, _ = critics.table(params, inputs, drawn)
    policy_losses, policy_gradients = [], []
    for i in range(N):
        tables = jax.tree.map(lambda x, i=i: x[i], actors.tables)
        own = jax.tree.map(lambda x, i=i: x[i], policies)
        samples = OffPolicySamples(inputs.observation[:, i][None], None, jnp.ones((1, ROWS)), jnp.array([i]))
        objective = CounterfactualObjective(
            algo.settings, algo.hyperparameters, None, GroupActor(actors, tables),
            Choices(choices.table.index[i], choices.table.exists[i]), values[:, i][None], drawn[:, i, 0][None],
        )  # fmt: skip
        own_loss_of = jax.value_and_grad(objective.loss, argnums=1, has_aux=True)
        (own_loss, _), own_gradient = own_loss_of(None, own, own, samples)
        policy_losses.append(own_loss)
        policy_gradients.append(own_gradient)
    from flax.traverse_util import flatten_dict

    found: dict[str, Any] = {"shown": shown, "index": index, "reward": reward, "critic_loss": loss}
    found |= {f"critic/{name}": x for name, x in params.items()}
    found |= {f"critic_gradient/{name}": x for name, x in gradient.items()}
    for i in range(N):
        own = jax.tree.map(lambda x, i=i: x[i], policies)
        found |= {f"policy_{i}/{'/'.join(name)}": x for name, x in flatten_dict(own).items()}
        found |= {f"policy_gradient_{i}/{'/'.join(name)}": x for name, x in flatten_dict(policy_gradients[i]).items()}
        found[f"policy_loss_{i}"] = policy_losses[i]
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "ours.npz", **{name: np.asarray(x) for name, x in found.items()})
    print(f"{len(found)} arrays in {folder / 'ours.npz'}")


def compare(folder: Path, code: Path) -> None:
    sys.path[0] = str(code)  # torch would import the tabulate.py beside this script
    import torch
    from torch import nn
    from utils.critics import AttentionCritic

    torch.set_default_dtype(torch.float64)
    ours = np.load(folder / "ours.npz")
    sizes = list(zip(OBSERVED, CHOICES, strict=True))
    critic = AttentionCritic(sizes, hidden_dim=WIDTH, norm_in=False, attend_heads=HEADS)
    widest = max(OBSERVED)

    def rows(i: int, action: bool) -> list[int]:
        """The rows of a padded kernel that agent i has."""
        return [*range(OBSERVED[i]), *([widest + k for k in range(CHOICES[i])] if action else [])]

    pairs: list[tuple[Any, str, Any]] = []  # their parameter, our array, how to cut ours to it
    for i in range(N):
        for module, name, own in (
            (critic.critic_encoders[i].enc_fc1, "encoder", rows(i, True)),
            (critic.state_encoders[i].s_enc_fc1, "observer", rows(i, False)),
            (critic.critics[i].critic_fc1, "hidden", None),
        ):
            pairs.append((module.weight, name, lambda x, i=i, own=own: (x[i] if own is None else x[i][own]).T))
            pairs.append((module.bias, f"{name}_bias", lambda x, i=i: x[i]))
        last = critic.critics[i].critic_fc2
        pairs.append((last.weight, "output", lambda x, i=i: x[i][:, : CHOICES[i]].T))
        pairs.append((last.bias, "output_bias", lambda x, i=i: x[i][: CHOICES[i]]))
    for h in range(HEADS):
        for part, name in ((critic.key_extractors[h], "keys"), (critic.selector_extractors[h], "queries")):
            pairs.append((part.weight, name, lambda x, h=h: x[h].T))
        pairs.append((critic.value_extractors[h][0].weight, "values", lambda x, h=h: x[h].T))
        pairs.append((critic.value_extractors[h][0].bias, "values_bias", lambda x, h=h: x[h]))
    assert len(pairs) == len(list(critic.parameters()))

    class Policy(nn.Module):
        """Our policy network: two layers with ReLU, and logits."""

        def __init__(self, i: int):
            super().__init__()
            widths = [OBSERVED[i], WIDTH, WIDTH, CHOICES[i]]
            self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(widths)])

        def forward(self, x):
            for layer in self.layers[:-1]:
                x = torch.relu(layer(x))
            return self.layers[-1](x)

    policies = [Policy(i) for i in range(N)]
    own: list[tuple[Any, int, str, Any]] = []
    for i, policy in enumerate(policies):
        kernels = [name for name in ours.files if name.startswith(f"policy_{i}/") and name.endswith("kernel")]
        kernels.sort(key=lambda name: ("logits" in name, name))
        for k, (layer, name) in enumerate(zip(policy.layers, kernels, strict=True)):
            first, width = rows(i, False) if k == 0 else slice(None), CHOICES[i] if k == 2 else None
            own.append((layer.weight, i, name, lambda x, first=first, width=width: x[first][:, :width].T))
            own.append((layer.bias, i, name.replace("kernel", "bias"), lambda x, width=width: x[:width]))
    with torch.no_grad():
        for parameter, name, cut in pairs:
            parameter.copy_(torch.tensor(np.ascontiguousarray(cut(ours[f"critic/{name}"]))))
        for parameter, _, name, cut in own:
            parameter.copy_(torch.tensor(np.ascontiguousarray(cut(ours[name]))))

    def batch(k: int) -> list[torch.Tensor]:
        return [torch.tensor(ours["shown"][k][:, i, : OBSERVED[i]]) for i in range(N)]

    def one_hot(k: int) -> list[torch.Tensor]:
        return [torch.eye(CHOICES[i])[torch.tensor(ours["index"][k][:, i])] for i in range(N)]

    def log_prob_of(logits: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
        return (torch.log_softmax(logits, 1) * taken).sum(1, keepdim=True)

    # The losses of their `update_critic` and `update_policies`.
    observed, final = batch(0), batch(1)
    taken, following, drawn = (one_hot(k) for k in range(3))
    with torch.no_grad():
        next_values = critic(list(zip(final, following, strict=True)))
        log_probs = [log_prob_of(policies[i](final[i]), following[i]) for i in range(N)]
    loss = torch.zeros(())
    for i, (value, penalties) in enumerate(critic(list(zip(observed, taken, strict=True)), regularize=True)):
        target = torch.tensor(ours["reward"][i])[:, None] + next_values[i] - log_probs[i] / SCALE
        loss = loss + nn.functional.mse_loss(value, target) + sum(penalties)
    loss.backward()
    critic.scale_shared_grads()
    worst = {"critic loss": abs(loss.item() - float(ours["critic_loss"]))}
    worst["critic gradients"] = max(
        np.abs(parameter.grad.numpy() - cut(ours[f"critic_gradient/{name}"])).max() for parameter, name, cut in pairs
    )
    critic.zero_grad()
    results = critic(list(zip(observed, drawn, strict=True)), return_all_q=True)
    losses = []
    for i, (value, values) in enumerate(results):
        logits = policies[i](observed[i])
        probs, log_prob = torch.softmax(logits, 1), log_prob_of(logits, drawn[i])
        baseline = (values * probs).sum(1, keepdim=True)
        policy_loss = (log_prob * (log_prob / SCALE - (value - baseline)).detach()).mean() + 1e-3 * (logits**2).mean()
        policy_loss.backward(retain_graph=True)
        losses.append(abs(policy_loss.item() - float(ours[f"policy_loss_{i}"])))
    worst["policy losses"] = max(losses)
    worst["policy gradients"] = max(
        np.abs(parameter.grad.numpy() - cut(ours[name.replace(f"policy_{i}/", f"policy_gradient_{i}/")])).max()
        for parameter, i, name, cut in own
    )
    for name, difference in worst.items():
        print(f"{name}: largest difference {difference:.2g}")
    if max(worst.values()) > 1e-5:
        raise SystemExit("they differ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("write", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("code", type=Path, nargs="?")
    given = parser.parse_args()
    if given.what == "write":
        write(given.folder)
    elif given.code is None:
        parser.error("compare needs CODE")
    else:
        compare(given.folder, given.code)


if __name__ == "__main__":
    main()
