"""Off-policy updates in NumPy, for plain lists of agents without padding, with the networks and Adam of `reference.py`.

Independent of the library: gradients by hand, targets by loops, the joint action as a list of arrays. The action of an
inactive agent is zeros.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import reference
from reference import Learner, Params


@dataclasses.dataclass
class Transitions:
    """A minibatch: lists over agents of `[B, …]`, actions in native units."""

    observation: list[np.ndarray]
    state: np.ndarray
    action: list[np.ndarray]
    active: list[np.ndarray]
    reward: np.ndarray  # [B, n, N]
    steps: np.ndarray
    terminated: np.ndarray
    final_observation: list[np.ndarray]
    final_state: np.ndarray
    final_active: list[np.ndarray]


def of_active(action: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Actions `[B, D]` as critics read them, zeros where the agent is inactive."""
    return np.array([row if alive else 0 * row for row, alive in zip(action, active, strict=True)])


@dataclasses.dataclass
class Bounds:
    """The bounds of an agent's Box `[D]`; infinite if it has none."""

    low: np.ndarray
    high: np.ndarray

    @property
    def finite(self) -> np.ndarray:
        return np.isfinite(self.low) & np.isfinite(self.high)

    def unit(self, action: np.ndarray) -> np.ndarray:
        """Actions in units in which the bounds are ±1."""
        low, high = np.where(self.finite, self.low, -1), np.where(self.finite, self.high, 1)
        return (2 * action - low - high) / (high - low)


def back(tape: Any, g: np.ndarray) -> tuple[Params, np.ndarray]:
    """The gradients with respect to all parameters on the tape, and to the input."""
    gradient: Params = {}
    for backward in reversed(tape):
        g, own = backward(g)
        gradient |= own
    return gradient, g


def policy(p: Params, bounds: Bounds, observation: np.ndarray) -> tuple[np.ndarray, Any]:
    """μ(o) in units of ±1, and its backward function."""
    tape: Any = []
    mean = reference.dense(p, "mean", reference.torso(p, observation, tape), tape)
    action = np.where(bounds.finite, np.tanh(mean), mean)
    slope = np.where(bounds.finite, 1 - np.tanh(mean) ** 2, 1.0)
    return action, lambda g: back(tape, g * slope)[0]


def action_value(p: Params, state: np.ndarray, joint: Sequence[np.ndarray]) -> tuple[np.ndarray, Any]:
    """Q(s, a) `[B]`, and a function from its gradient to those of the parameters and of every agent's action."""
    tape: Any = []
    x = np.concatenate([state, *joint], -1)
    value = reference.dense(p, "value", reference.torso(p, x, tape), tape)[:, 0]
    ends = np.cumsum([state.shape[-1]] + [a.shape[-1] for a in joint])[:-1]

    def backward(g):
        gradient, by_input = back(tape, g[:, None])
        return gradient, np.split(by_input, ends, -1)[1:]

    return value, backward


def targets(
    actors: Sequence[Params],
    critics: Sequence[Sequence[Params]],
    bounds: Sequence[Bounds],
    batch: Transitions,
    noise: Sequence[np.ndarray] | None,
    hp: Any,
) -> np.ndarray:
    """y `[V, B]`. `noise` is standard normal per agent, if the target actions have noise."""
    joint = []
    for i, (p, box) in enumerate(zip(actors, bounds, strict=True)):
        action = policy(p, box, batch.final_observation[i])[0]
        if noise is not None:
            action = action + np.clip(hp.target_noise * noise[i], -hp.target_noise_clip, hp.target_noise_clip)
            action = np.where(box.finite, np.clip(action, -1, 1), action)
        joint.append(of_active(action, batch.final_active[i]))
    rows = []
    for v, twins in enumerate(critics):
        value = np.min([action_value(p, batch.final_state, joint)[0] for p in twins], 0)
        row = np.zeros(len(value))
        for b in range(len(row)):
            for j in range(int(batch.steps[b])):
                row[b] += hp.discount**j * batch.reward[b, j, v]
            if not batch.terminated[b]:
                row[b] += hp.discount ** int(batch.steps[b]) * value[b]
        rows.append(row)
    return np.array(rows)


def regress(
    critics: list[list[Learner]], bounds: Sequence[Bounds], batch: Transitions, target: np.ndarray, hp: Any
) -> list[list[Learner]]:
    """One step of every network on mean (y − Q)²."""
    joint = replayed(bounds, batch)

    def step(learner: Learner, y: np.ndarray) -> Learner:
        value, backward = action_value(learner.params, batch.state, joint)
        return learner.step(backward(2 * (value - y) / len(y))[0], hp.critic_lr, hp)

    return [[step(learner, y) for learner in twins] for twins, y in zip(critics, target, strict=True)]


def replayed(bounds: Sequence[Bounds], batch: Transitions) -> list[np.ndarray]:
    """The joint action of the replay, in units of ±1."""
    rows = zip(bounds, batch.action, batch.active, strict=True)
    return [of_active(box.unit(action), active) for box, action, active in rows]


def improve(
    learner: Learner,
    members: Sequence[int],
    critics: Sequence[Params],
    bounds: Sequence[Bounds],
    batch: Transitions,
    joint: list[np.ndarray],
    epochs: int,
    hp: Any,
) -> Learner:
    """`epochs` ascent steps of mean Q by the members of one group, whose actions in `joint` are replaced.

    With one critic the members are updated together; with a critic per agent, every member ascends its own critic only.
    """
    for _ in range(epochs):
        own = {i: policy(learner.params, bounds[i], batch.observation[i]) for i in members}
        acting = [of_active(own[i][0], batch.active[i]) if i in own else a for i, a in enumerate(joint)]
        gradient = {name: np.zeros_like(x) for name, x in learner.params.items()}
        if len(critics) == 1:
            weight = np.any([batch.active[i] for i in members], 0).astype(float)
            _, backward = action_value(critics[0], batch.state, acting)
            by_actions = backward(-weight / weight.sum())[1]
            by_member = {i: by_actions[i] * batch.active[i][:, None] for i in members}
        else:
            total = sum(batch.active[i].sum() for i in members)
            by_member = {
                i: action_value(critics[i], batch.state, acting)[1](-1.0 * batch.active[i] / total)[1][i]
                for i in members
            }
        for i in members:
            for name, g in own[i][1](by_member[i]).items():
                gradient[name] += g
        learner = learner.step(gradient, hp.actor_lr, hp)
    return learner


@dataclasses.dataclass
class Team:
    """All learners: actors per group, critics `[V][copies]`, and the parameters of their targets."""

    actors: list[Learner]
    critics: list[list[Learner]]
    target_actors: list[Params]
    target_critics: list[list[Params]]


def update(
    team: Team,
    groups: Sequence[Sequence[int]],
    bounds: Sequence[Bounds],
    minibatches: Sequence[Transitions],
    noises: Sequence[Any],
    order: Sequence[int] | None,
    others: str,
    epochs: int,
    hp: Any,
) -> Team:
    """Critic steps on every minibatch; the actors on the last, in `order` (`None`: simultaneous); then the targets."""
    group_of = {i: g for g, members in enumerate(groups) for i in members}
    by_agent = [team.target_actors[group_of[i]] for i in range(len(bounds))]
    critics = team.critics
    for batch, noise in zip(minibatches, noises, strict=True):
        critics = regress(critics, bounds, batch, targets(by_agent, team.target_critics, bounds, batch, noise, hp), hp)
    batch = minibatches[-1]

    def acting(learner: Learner, i: int) -> np.ndarray:
        return of_active(policy(learner.params, bounds[i], batch.observation[i])[0], batch.active[i])

    if others == "replay":
        joint = replayed(bounds, batch)
    else:
        joint = [acting(team.actors[group_of[i]], i) for i in range(len(bounds))]
    actors, first = list(team.actors), [twins[0].params for twins in critics]
    for g in range(len(groups)) if order is None else order:
        actors[g] = improve(team.actors[g], groups[g], first, bounds, batch, joint, epochs, hp)
        if order is not None:
            for i in groups[g]:
                joint[i] = acting(actors[g], i)

    def towards(target: Params, learner: Learner) -> Params:
        return {name: (1 - hp.target_rate) * x + hp.target_rate * learner.params[name] for name, x in target.items()}

    return Team(
        actors,
        critics,
        [towards(t, learner) for t, learner in zip(team.target_actors, actors, strict=True)],
        [
            [towards(t, learner) for t, learner in zip(*pair, strict=True)]
            for pair in zip(team.target_critics, critics, strict=True)
        ],
    )
