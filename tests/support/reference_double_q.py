"""Dueling double Q-learning in NumPy, for plain lists of agents without padding, with the networks of `reference.py`.

Independent of the library: gradients by hand, joint choices as tuples, targets and averages by loops.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import reference
from reference import Learner, Params
from reference_off_policy import back


@dataclasses.dataclass
class Transitions:
    """A minibatch: lists over agents of `[B, …]`. `action[i][b]` is a tuple, `available[i][b]` a set of such tuples."""

    observation: list[np.ndarray]
    state: np.ndarray
    action: list[list[tuple[int, ...]]]
    available: list[list[set]]
    active: list[np.ndarray]
    reward: np.ndarray  # [B, n, N]
    steps: np.ndarray
    terminated: np.ndarray
    final_observation: list[np.ndarray]
    final_state: np.ndarray
    final_available: list[list[set]]
    final_active: list[np.ndarray]


def choices(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """All choices of an agent with components of these sizes, in the order of the network's outputs."""
    return list(itertools.product(*map(range, sizes)))


def dueling(p: Params, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """Q `[B, M]`, and the gradient with respect to all parameters as a function of that with respect to Q."""
    trunk: Any = []
    features = reference.torso(p, x, trunk)

    def stream(name: str) -> tuple[np.ndarray, Any]:
        tape: Any = []
        h, layer = features, 0
        while f"{name}_stream/Dense_{layer}/kernel" in p:
            h = reference.relu(reference.dense(p, f"{name}_stream/Dense_{layer}", h, tape), tape)
            if f"{name}_stream/MaskedLayerNorm_{layer}/scale" in p:
                h = reference.layer_norm(p, f"{name}_stream/MaskedLayerNorm_{layer}", h, tape)
            layer += 1
        return reference.dense(p, name, h, tape), tape

    (value, value_tape), (advantage, advantage_tape) = stream("value"), stream("advantage")

    def backward(g: np.ndarray) -> Params:
        of_value, one = back(value_tape, g.sum(-1, keepdims=True))
        of_advantage, other = back(advantage_tape, g - g.mean(-1, keepdims=True))
        return of_value | of_advantage | back(trunk, one + other)[0]

    return value + advantage - advantage.mean(-1, keepdims=True), backward


def greedy(p: Params, own: list[tuple], observation: np.ndarray, available: list[set]) -> list[tuple]:
    """The best available choice of every row."""
    values = dueling(p, observation)[0]
    return [max(allowed, key=lambda a: row[own.index(a)]) for row, allowed in zip(values, available, strict=True)]


def target(batch: Transitions, value: np.ndarray, agent: int, hp: Any) -> np.ndarray:
    """y `[B]` for the reward of `agent`."""
    y = np.zeros(len(value))
    for b in range(len(y)):
        for j in range(int(batch.steps[b])):
            y[b] += hp.discount**j * batch.reward[b, j, agent]
        if not batch.terminated[b]:
            y[b] += hp.discount ** int(batch.steps[b]) * value[b]
    return y


def fit(learner: Learner, x: np.ndarray, columns: list[int], y: np.ndarray, weight: np.ndarray, lr: float, hp: Any):
    """One step on the weighted mean of (y − Q at these columns)²."""
    values, backward = dueling(learner.params, x)
    g = np.zeros_like(values)
    for b, column in enumerate(columns):
        g[b, column] = 2 * weight[b] * (values[b, column] - y[b]) / weight.sum()
    return learner.step(backward(g), lr, hp)


def d3qn(learner: Learner, target_params: Params, own: list[tuple], batch: Transitions, lr: float, hp: Any) -> Learner:
    """One step of a single agent's dueling double Q-learning."""
    chosen = greedy(learner.params, own, batch.final_observation[0], batch.final_available[0])
    values = dueling(target_params, batch.final_observation[0])[0]
    y = target(batch, np.array([row[own.index(a)] for row, a in zip(values, chosen, strict=True)]), 0, hp)
    columns = [own.index(a) for a in batch.action[0]]
    return fit(learner, batch.observation[0], columns, y, np.ones(len(y)), lr, hp)


@dataclasses.dataclass
class Team:
    """Learners of the groups, the joint critic and its target, or the groups' targets."""

    actors: list[Learner]
    critic: Learner | None
    target_actors: list[Params]
    target_critic: Params | None


def towards(old: Params, learner: Learner, hp: Any) -> Params:
    return {name: (1 - hp.target_rate) * x + hp.target_rate * learner.params[name] for name, x in old.items()}


def update(
    team: Team,
    groups: Sequence[Sequence[int]],
    sizes: Sequence[Sequence[int]],
    minibatches: Sequence[Transitions],
    order: Sequence[int] | None,
    others: str,
    epochs: int,
    hp: Any,
) -> Team:
    """HAD3QN's update; MAD3QN's if `order` is `None`."""
    own = [choices(s) for s in sizes]
    joint = list(itertools.product(*own))
    group_of = {i: g for g, members in enumerate(groups) for i in members}
    agents, critic = range(len(sizes)), team.critic
    assert critic is not None
    assert team.target_critic is not None

    def counted(i: int, chosen: list[tuple], active: np.ndarray) -> list[tuple]:
        """An inactive agent has no choice; its first choice is used."""
        return [choice if alive else own[i][0] for choice, alive in zip(chosen, active, strict=True)]

    def team_greedy(learners: list[Learner], observation: list, available: list, active: list) -> list[list[tuple]]:
        chosen = [greedy(learners[group_of[i]].params, own[i], observation[i], available[i]) for i in agents]
        return [counted(i, chosen[i], active[i]) for i in agents]

    for batch in minibatches:
        chosen = team_greedy(team.actors, batch.final_observation, batch.final_available, batch.final_active)
        values = dueling(team.target_critic, batch.final_state)[0]
        rows = range(len(values))
        y = target(batch, np.array([values[b, joint.index(tuple(c[b] for c in chosen))] for b in rows]), 0, hp)
        taken = [counted(i, batch.action[i], batch.active[i]) for i in agents]
        columns = [joint.index(tuple(a[b] for a in taken)) for b in rows]
        critic = fit(critic, batch.state, columns, y, np.ones(len(y)), hp.critic_lr, hp)
    batch, table = minibatches[-1], dueling(critic.params, minibatches[-1].state)[0]
    if others == "replay":
        acting = [counted(i, batch.action[i], batch.active[i]) for i in agents]
    else:
        acting = team_greedy(team.actors, batch.observation, batch.available, batch.active)
    actors = list(team.actors)
    for g in range(len(groups)) if order is None else order:
        learner = actors[g]
        total = sum(batch.active[i].sum() for i in groups[g])
        for _ in range(epochs):
            gradient = {name: np.zeros_like(x) for name, x in learner.params.items()}
            for i in groups[g]:
                values, backward = dueling(learner.params, batch.observation[i])
                slope = np.zeros_like(values)
                for b in np.flatnonzero(batch.active[i]):
                    for a in batch.available[i][b]:
                        team_choice = tuple(a if j == i else acting[j][b] for j in agents)
                        error = values[b, own[i].index(a)] - table[b, joint.index(team_choice)]
                        slope[b, own[i].index(a)] = 2 * error / len(batch.available[i][b]) / total
                for name, x in backward(slope).items():
                    gradient[name] += x
            learner = learner.step(gradient, hp.actor_lr, hp)
        actors[g] = learner
        if order is not None:
            for i in groups[g]:
                chosen = greedy(learner.params, own[i], batch.observation[i], batch.available[i])
                acting[i] = counted(i, chosen, batch.active[i])
    return Team(actors, critic, [], towards(team.target_critic, critic, hp))


def independent_update(
    team: Team,
    groups: Sequence[Sequence[int]],
    sizes: Sequence[Sequence[int]],
    minibatches: Sequence[Transitions],
    epochs: int,
    reward: str,
    hp: Any,
) -> Team:
    """ID3QN's update."""
    own, agents = [choices(s) for s in sizes], range(len(sizes))
    group_of = {i: g for g, members in enumerate(groups) for i in members}
    actors = list(team.actors)
    for batch in minibatches:
        after = []
        for i in agents:
            p, q = actors[group_of[i]].params, team.target_actors[group_of[i]]
            chosen = greedy(p, own[i], batch.final_observation[i], batch.final_available[i])
            values = dueling(q, batch.final_observation[i])[0]
            after.append(np.array([values[b, own[i].index(a)] for b, a in enumerate(chosen)]))
        ys = []
        for i in agents:
            value = after[i].copy()
            for b in np.flatnonzero(~batch.final_active[i]):
                living = [after[j][b] for j in agents if batch.final_active[j][b]]
                value[b] = np.mean(living) if living and reward == "team" else 0
            ys.append(target(batch, value, i, hp))
        for g, members in enumerate(groups):
            x = np.concatenate([batch.observation[i] for i in members])
            columns = [own[i].index(a) for i in members for a in batch.action[i]]
            y, weight = (np.concatenate([z[i] for i in members]) for z in (ys, batch.active))
            for _ in range(epochs):
                actors[g] = fit(actors[g], x, columns, y, weight.astype(float), hp.actor_lr, hp)
    return Team(
        actors, None, [towards(t, learner, hp) for t, learner in zip(team.target_actors, actors, strict=True)], None
    )
