"""HASAC's update in NumPy, for plain lists of agents without padding: gradients by hand, random draws as arguments.

An agent's action is a list of one-hot choices `[B, n]`, one per component, and one array of reals in units of ±1. The
action of an inactive agent is zeros.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import reference
import reference_off_policy as plain
from reference import Learner, Params


@dataclasses.dataclass
class Space:
    """An agent's action space: its choices per component, or its Box."""

    choices: Sequence[int] = ()
    box: plain.Bounds | None = None

    def encode(self, action: np.ndarray) -> np.ndarray:
        """Native actions `[B, D]` as a critic reads them."""
        if self.box is not None:
            return self.box.unit(action)
        return np.concatenate([np.eye(n)[action[:, d].astype(int)] for d, n in enumerate(self.choices)], -1)


@dataclasses.dataclass
class Draw:
    """The noise of one action `[B, …]`: Gumbel per component, or standard normal."""

    gumbel: list[np.ndarray]
    normal: np.ndarray


@dataclasses.dataclass
class Policy:
    """The outputs of one network on one minibatch, and their backward function."""

    space: Space
    logits: list[np.ndarray]  # −inf where a choice is not available
    mean: np.ndarray | None
    log_std: np.ndarray | None
    tape: Any
    heads: dict[str, Any]

    @classmethod
    def of(cls, p: Params, space: Space, observation: np.ndarray, available: Sequence[np.ndarray]) -> Policy:
        tape: Any = []
        features = reference.torso(p, observation, tape)
        heads: dict[str, Any] = {}

        def head(name):
            heads[name] = []
            return reference.dense(p, name, features, heads[name])

        if space.box is not None:
            return cls(space, [], head("mean"), head("log_std"), tape, heads)
        ends = np.cumsum(space.choices)[:-1]
        logits = np.split(head("logits"), ends, -1)
        masked = [np.where(mask, x, -np.inf) for x, mask in zip(logits, available, strict=True)]
        return cls(space, masked, None, None, tape, heads)

    def back(self, by_head: dict[str, np.ndarray]) -> Params:
        gradient: Params = {}
        by_features = 0.0
        for name, g in by_head.items():
            own, to_features = plain.back(self.heads[name], g)
            gradient |= own
            by_features = by_features + to_features
        return gradient | plain.back(self.tape, by_features)[0]

    @property
    def std(self) -> np.ndarray:
        return np.exp(np.clip(self.log_std, -20, 2))

    def log_p(self) -> list[np.ndarray]:
        """Log-probabilities of choices, 0 for unavailable choices."""
        rows = []
        for x in self.logits:
            peak = x.max(-1, keepdims=True)
            rows.append(x - peak - np.log(np.exp(x - peak).sum(-1, keepdims=True)))
        return rows

    def act(self, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        """The action as a critic reads it, and its log-probability `[B]` in native units."""
        if self.space.box is not None:
            box = self.space.box
            x = self.mean + self.std * draw.normal
            u = np.where(box.finite, np.tanh(x), x)
            scale = np.where(box.finite, (box.high - box.low) / 2, 1.0)
            slope = np.where(box.finite, 1 - u**2, 1.0) * scale
            density = -((x - self.mean) ** 2) / (2 * self.std**2) - np.log(self.std * np.sqrt(2 * np.pi))
            return u, (density - np.log(slope)).sum(-1)
        chosen = [np.eye(x.shape[-1])[(x + g).argmax(-1)] for x, g in zip(self.logits, draw.gumbel, strict=True)]
        log_p = [np.where(c > 0, x, 0).sum(-1) for c, x in zip(chosen, self.log_p(), strict=True)]
        return np.concatenate(chosen, -1), np.sum(log_p, 0)

    def gradient(self, draw: Draw, by_action: np.ndarray, by_log_prob: np.ndarray, gumbel_temperature: float) -> Params:
        """The gradient of Σ by_action · a + by_log_prob · log π(a), for constant noise."""
        g = by_log_prob[:, None]
        if self.space.box is not None:
            box = self.space.box
            x = self.mean + self.std * draw.normal
            u = np.where(box.finite, np.tanh(x), x)
            by_x = by_action * np.where(box.finite, 1 - u**2, 1.0) + g * np.where(box.finite, 2 * u, 0.0)
            inside = (self.log_std > -20) & (self.log_std < 2)
            by_log_std = (by_x * draw.normal * self.std - g) * inside
            return self.back({"mean": by_x, "log_std": by_log_std})
        ends, rows = np.cumsum(self.space.choices)[:-1], []
        for x, noise, log_p, by in zip(
            self.logits, draw.gumbel, self.log_p(), np.split(by_action, ends, -1), strict=True
        ):
            possible = np.isfinite(x)
            noisy = (x + noise) / gumbel_temperature
            soft = np.exp(noisy - noisy.max(-1, keepdims=True))
            soft /= soft.sum(-1, keepdims=True)
            by_choice = by + g * np.where(possible, log_p, 0)
            through = soft * (by_choice - (soft * by_choice).sum(-1, keepdims=True)) / gumbel_temperature
            chosen = np.eye(x.shape[-1])[(x + noise).argmax(-1)]
            rows.append(np.where(possible, through + g * (chosen - np.exp(log_p)), 0))
        return self.back({"logits": np.concatenate(rows, -1)})


@dataclasses.dataclass
class Team:
    """All learners: actors per group, two critics, the parameters of their targets, log α per agent if adapted."""

    actors: list[Learner]
    critics: list[Learner]
    target_critics: list[Params]
    temperatures: list[Learner] | None


@dataclasses.dataclass
class Minibatch:
    """Lists over agents; `available[i][d]` `[B, n]`."""

    rows: plain.Transitions
    available: list[list[np.ndarray]]
    final_available: list[list[np.ndarray]]
    final_active: list[np.ndarray]


def update(
    team: Team,
    groups: Sequence[Sequence[int]],
    spaces: Sequence[Space],
    minibatches: Sequence[Minibatch],
    team_draws: Iterator[list[Draw]],
    group_draws: Iterator[list[Draw]],
    order: Sequence[int] | None,
    settings: Any,
    hp: Any,
) -> Team:
    """Algorithm 2: critics on every minibatch, actors on the last, in `order` (`None`: simultaneous), targets, α."""
    group_of = {i: g for g, members in enumerate(groups) for i in members}
    agents = range(len(spaces))
    alpha = [hp.temperature if team.temperatures is None else np.exp(team.temperatures[i].params["x"]) for i in agents]
    critics = team.critics

    def encoded(rows: plain.Transitions) -> list[np.ndarray]:
        of_agents = zip(spaces, rows.action, rows.active, strict=True)
        return [plain.of_active(space.encode(action), active) for space, action, active in of_agents]

    for batch in minibatches:
        rows, draws = batch.rows, next(team_draws)
        value = np.zeros(len(rows.state))
        joint = []
        for i in agents:
            p = team.actors[group_of[i]].params
            policy = Policy.of(p, spaces[i], rows.final_observation[i], batch.final_available[i])
            action, log_prob = policy.act(draws[i])
            joint.append(plain.of_active(action, batch.final_active[i]))
            value = value - alpha[i] * np.where(batch.final_active[i], log_prob, 0)
        value = value + np.min([plain.action_value(p, rows.final_state, joint)[0] for p in team.target_critics], 0)
        y = np.zeros(len(value))
        for b in range(len(y)):
            y[b] = sum(hp.discount**j * rows.reward[b, j, 0] for j in range(int(rows.steps[b])))
            y[b] += 0 if rows.terminated[b] else hp.discount ** int(rows.steps[b]) * value[b]
        taken = encoded(rows)
        new = []
        for learner in critics:
            q, backward = plain.action_value(learner.params, rows.state, taken)
            new.append(learner.step(backward(2 * (q - y) / len(y))[0], hp.critic_lr, hp))
        critics = new
    batch = minibatches[-1]
    rows = batch.rows

    def policy_of(learner, i):
        return Policy.of(learner.params, spaces[i], rows.observation[i], batch.available[i])

    if settings.others == "replay":
        joint = encoded(rows)
    else:
        draws = next(team_draws)
        drawn = [policy_of(team.actors[group_of[i]], i).act(draws[i])[0] for i in agents]
        joint = [plain.of_active(drawn[i], rows.active[i]) for i in agents]
    actors, log_probs = list(team.actors), [np.zeros(0)] * len(spaces)
    for g in range(len(groups)) if order is None else order:
        learner, members = team.actors[g], groups[g]
        counted = np.any([rows.active[i] for i in members], 0).astype(float)
        for _ in range(settings.epochs):
            draws = dict(zip(members, next(group_draws), strict=True))
            policies = {i: policy_of(learner, i) for i in members}
            drawn = {i: policies[i].act(draws[i]) for i in members}
            acting = [plain.of_active(drawn[i][0], rows.active[i]) if i in drawn else a for i, a in enumerate(joint)]
            gradient = {name: np.zeros_like(x) for name, x in learner.params.items()}
            for i in members:
                if settings.expectation == "exact":
                    own = exact(policies[i], i, critics, rows, acting, alpha[i], counted)
                else:
                    share = counted / counted.sum()
                    slope = slope_of_smaller(critics, rows.state, acting, -share)[i] * rows.active[i][:, None]
                    entropy = alpha[i] * rows.active[i] * share
                    own = policies[i].gradient(draws[i], slope, entropy, hp.gumbel_temperature)
                for name, x in own.items():
                    gradient[name] += x
            learner = learner.step(gradient, hp.actor_lr, hp)
        actors[g] = learner
        draws = dict(zip(members, next(group_draws), strict=True))
        for i in members:
            action, log_probs[i] = policy_of(learner, i).act(draws[i])
            if order is not None:
                joint[i] = plain.of_active(action, rows.active[i])
    temperatures = team.temperatures
    if temperatures is not None:
        temperatures = []
        for i in agents:
            target = target_entropy(spaces[i], batch.available[i], hp)
            alive = rows.active[i]
            surplus = (-log_probs[i] - target)[alive].sum() / max(alive.sum(), 1)
            free = dataclasses.replace(hp, max_grad_norm=np.inf)
            temperatures.append(team.temperatures[i].step({"x": alpha[i] * surplus}, hp.temperature_lr, free))
    targets = [
        {name: (1 - hp.target_rate) * x + hp.target_rate * learner.params[name] for name, x in old.items()}
        for old, learner in zip(team.target_critics, critics, strict=True)
    ]
    return Team(actors, critics, targets, temperatures)


def slope_of_smaller(critics: Sequence[Learner], state: np.ndarray, joint: list[np.ndarray], weight: np.ndarray):
    """The gradient of Σ weight · min_j Q_j with respect to every agent's action."""
    values = [plain.action_value(learner.params, state, joint) for learner in critics]
    first = values[0][0] <= values[1][0]
    parts = [backward(weight * mask)[1] for (_, backward), mask in zip(values, (first, ~first), strict=True)]
    return [a + b for a, b in zip(*parts, strict=True)]


def exact(policy: Policy, i: int, critics, rows, acting, alpha: float, counted: np.ndarray) -> Params:
    """The gradient of −mean Σ_a π(a) (min Q(a) − α log π(a)) over all of one agent's joint choices."""
    combinations = list(itertools.product(*(range(n) for n in policy.space.choices)))
    log_p = policy.log_p()
    values, probs = [], []
    for combination in combinations:
        chosen = np.concatenate([np.eye(n)[c] for n, c in zip(policy.space.choices, combination, strict=True)])
        joint = [np.broadcast_to(chosen, a.shape) if j == i else a for j, a in enumerate(acting)]
        q = np.min([plain.action_value(learner.params, rows.state, joint)[0] for learner in critics], 0)
        score = np.sum([x[:, c] for x, c in zip(log_p, combination, strict=True)], 0)
        possible = np.isfinite(score)
        values.append(q - alpha * np.where(possible, score, 0))
        probs.append(np.where(possible, np.exp(score), 0))
    share = rows.active[i] * counted / counted.sum()
    total = np.sum([p * v for p, v in zip(probs, values, strict=True)], 0)
    by_logits = []
    for d, n in enumerate(policy.space.choices):
        column = np.zeros((len(total), n))
        for combination, p, v in zip(combinations, probs, values, strict=True):
            column[:, combination[d]] += p * v
        by_logits.append(-share[:, None] * (column - np.exp(log_p[d]) * total[:, None]))
    return policy.back({"logits": np.concatenate(by_logits, -1)})


def target_entropy(space: Space, available: Sequence[np.ndarray], hp: Any) -> np.ndarray | float:
    if space.box is None:
        return np.sum([hp.target_entropy_share * np.log(mask.sum(-1)) for mask in available], 0)
    box = space.box
    return float(
        sum(
            hp.target_entropy + (np.log((b - a) / 2) if np.isfinite(a) else 0)
            for a, b in zip(box.low, box.high, strict=True)
        )
    )
