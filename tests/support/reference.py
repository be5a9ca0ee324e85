"""The PPO family in NumPy, with plain loops and gradients by hand, as the reference for hajax's updates.

Nothing here uses hajax or JAX, and nothing is padded: an agent is evaluated at its own widths with its own parameter
arrays, which have flax's names (`torso/Dense_0/kernel`). Inactive samples are dropped, not masked. A memory processes
its sequences row by row, and so does its gradient. `test_exactness.py` checks the gradients against finite differences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from reference_gru import Sequences, gru

Params = dict[str, np.ndarray]
Tape = list[
    Callable[[np.ndarray], tuple[np.ndarray, Params]]
]  # of each layer: output's gradient -> input's, parameters'


# Networks: every function returns its output and appends its backward function to the tape.


def layer_norm(p: Params, name: str, x: np.ndarray, tape: Tape) -> np.ndarray:
    scale, bias = p[f"{name}/scale"], p[f"{name}/bias"]
    inverse_std = 1 / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    normalized = (x - x.mean(-1, keepdims=True)) * inverse_std

    def backward(g):
        own = {f"{name}/scale": (g * normalized).sum(0), f"{name}/bias": g.sum(0)}
        g = g * scale
        g = g - g.mean(-1, keepdims=True) - normalized * (g * normalized).mean(-1, keepdims=True)
        return inverse_std * g, own

    tape.append(backward)
    return normalized * scale + bias


def dense(p: Params, name: str, x: np.ndarray, tape: Tape) -> np.ndarray:
    kernel, bias = p[f"{name}/kernel"], p[f"{name}/bias"]
    tape.append(lambda g: (g @ kernel.T, {f"{name}/kernel": x.T @ g, f"{name}/bias": g.sum(0)}))
    return x @ kernel + bias


def relu(x: np.ndarray, tape: Tape) -> np.ndarray:
    tape.append(lambda g: (np.where(x > 0, g, 0.0), {}))
    return np.maximum(x, 0)


# Inputs with fewer entries are not normalized.
LAYER_NORM_MIN_INPUTS = 1


def torso(p: Params, x: np.ndarray, tape: Tape) -> np.ndarray:
    """[LayerNorm] → [Linear → ReLU → LayerNorm] × n; without LayerNorm if there are no parameters for it."""
    first = "torso/MaskedLayerNorm_0"
    if f"{first}/scale" in p and x.shape[-1] >= LAYER_NORM_MIN_INPUTS:
        x = layer_norm(p, first, x, tape)
    elif f"{first}/scale" in p:  # narrow members of a team with wide ones have the parameters, too
        unused = {f"{first}/{name}": np.zeros_like(p[f"{first}/{name}"]) for name in ("scale", "bias")}
        tape.append(lambda g: (g, unused))
    layer = 0
    while f"torso/Dense_{layer}/kernel" in p:
        x = relu(dense(p, f"torso/Dense_{layer}", x, tape), tape)
        layer += 1
        name = f"torso/MaskedLayerNorm_{layer}"
        x = layer_norm(p, name, x, tape) if f"{name}/scale" in p else x
    return x


def body(p: Params, x: np.ndarray, sequences: Sequences | None, tape: Tape) -> tuple[np.ndarray, np.ndarray | None]:
    """The features for the head, and the memory after every row, if there is one."""
    features = torso(p, x, tape)
    if sequences is None:
        return features, None
    features, after = gru(p, features, sequences, tape)
    norm = "gru/MaskedLayerNorm_0/scale" in p
    return (layer_norm(p, "gru/MaskedLayerNorm_0", features, tape) if norm else features), after


def backpropagate(tape: Tape, g: np.ndarray) -> Params:
    gradient: Params = {}
    for backward in reversed(tape):
        g, own = backward(g)
        gradient |= own
    return gradient


def value(
    p: Params, x: np.ndarray, sequences: Sequences | None = None
) -> tuple[np.ndarray, Callable[[np.ndarray], Params]]:
    tape: Tape = []
    out = dense(p, "value", body(p, x, sequences, tape)[0], tape)[:, 0]
    return out, lambda g: backpropagate(tape, g[:, None])


# Policies.


@dataclasses.dataclass
class Samples:
    """Steps of one agent, rows of equal length; for discrete actions `available[d]` `[B, n_d]` are the choices."""

    observation: np.ndarray
    available: list[np.ndarray]
    action: np.ndarray
    log_prob: np.ndarray
    active: np.ndarray
    sequences: Sequences | None = None  # if the policy has a memory

    def take(self, rows: np.ndarray) -> Samples:
        available = [mask[rows] for mask in self.available]
        taken = [x[rows] for x in (self.action, self.log_prob, self.active)]
        return Samples(self.observation[rows], available, *taken, self.sequences and self.sequences.take(rows))

    def chunks(self, p: Params, length: int) -> Samples:
        """The samples of a rollout as chunks, each with the memory of the policy `p` at its beginning."""
        assert self.sequences is not None
        _, after = body(p, self.observation, self.sequences, [])
        return dataclasses.replace(self, sequences=self.sequences.chunks(length, after))


def policy(
    p: Params, bounds: tuple[np.ndarray, np.ndarray] | None, samples: Samples, std_scale: float = 0.5
) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray, np.ndarray], Params]]:
    """Log-probabilities and entropies `[B]`, and the gradient of Σ (g·log_prob + h·entropy) as a function of (g, h).

    `bounds` are those of a Box action, scaled to ±1; `None` for native units.
    """
    tape: Tape = []
    features, _ = body(p, samples.observation, samples.sequences, tape)
    if samples.available:
        return _categorical(p, features, samples, tape)
    mean, std, center, scale = gaussian(p, bounds, features, tape, std_scale)
    z = ((samples.action - center) / scale - mean) / std
    log_prob = (-(z**2) / 2 - np.log(std * scale * np.sqrt(2 * np.pi))).sum(-1)
    entropy = np.full(len(z), np.log(std * scale * np.sqrt(2 * np.pi * np.e)).sum())

    def backward(g, h):
        by_log_std = (g[:, None] * (z**2 - 1) + h[:, None]).sum(0)
        by_log_std *= 1 - std / std_scale  # ∂ log std / ∂ log_std, as std = std_scale · sigmoid(log_std)
        return backpropagate(tape, g[:, None] * z / std) | {"log_std": by_log_std}

    return log_prob, entropy, backward


def gaussian(
    p: Params, bounds: Any, features: np.ndarray, tape: Tape, std_scale: float = 0.5
) -> tuple[np.ndarray, ...]:
    """Mean, std, center and scale: the action is center + scale · (mean + std · noise)."""
    std = std_scale / (1 + np.exp(-p["log_std"]))
    low, high = bounds if bounds is not None else (-np.ones_like(std), np.ones_like(std))
    return dense(p, "mean", features, tape), std, (low + high) / 2, (high - low) / 2


def _categorical(p: Params, features: np.ndarray, samples: Samples, tape: Tape):
    logits = np.split(dense(p, "logits", features, tape), np.cumsum([m.shape[1] for m in samples.available])[:-1], -1)
    log_prob, entropy, parts = 0.0, 0.0, []
    for d, (component, mask) in enumerate(zip(logits, samples.available, strict=True)):
        mask = mask | ~mask.any(-1, keepdims=True)  # if no choice is available, all are
        odds = np.where(mask, np.exp(component - component.max(-1, keepdims=True)), 0.0)
        probability = odds / odds.sum(-1, keepdims=True)
        chosen = np.arange(mask.shape[1]) == samples.action[:, d, None]
        plogp = probability * np.log(np.where(probability > 0, probability, 1.0))
        log_prob = log_prob + np.log(probability[chosen])
        entropy = entropy - plogp.sum(-1)
        parts.append((chosen - probability, -plogp + probability * plogp.sum(-1, keepdims=True)))

    def backward(g, h):
        return backpropagate(tape, np.concatenate([g[:, None] * a + h[:, None] * b for a, b in parts], -1))

    return log_prob, entropy, backward


# Losses, as (loss, gradient) over the active samples of one group or critic.


def ppo_loss(p: Params, bounds: Any, members: Sequence[tuple[Samples, np.ndarray]], hp: Any) -> tuple[float, Params]:
    """−mean[min(r·A, clip(r)·A)] − c·mean[entropy] over pooled members (samples, advantages).

    Where A > 0 the clipped surrogate is A·min(r, 1 + ε), where A < 0 it is A·max(r, 1 − ε).
    """
    total = sum(samples.active.sum() for samples, _ in members)
    loss, gradient = 0.0, {name: np.zeros_like(x) for name, x in p.items()}
    for samples, advantage in members:
        samples, advantage = samples.take(samples.active), advantage[samples.active]
        log_prob, entropy, backward = policy(p, bounds, samples)
        ratio = np.exp(log_prob - samples.log_prob)
        limit = np.where(advantage > 0, 1 + hp.clip, 1 - hp.clip)
        beyond = np.where(advantage > 0, ratio > limit, ratio < limit)
        loss -= (np.where(beyond, limit, ratio) * advantage + hp.entropy_coef * entropy).sum() / total
        by_log_prob = np.where(beyond, 0.0, ratio * advantage) / total
        own = backward(-by_log_prob, np.full_like(entropy, -hp.entropy_coef / total))
        gradient = {name: g + own[name] for name, g in gradient.items()}
    return loss, gradient


def a2po_loss(p: Params, bounds: Any, members: Sequence[tuple[Samples, np.ndarray]], hp: Any) -> tuple[float, Params]:
    """−mean[min(l·A, clip(l)·A)] − c·mean[entropy], l = r·g, over pooled members (samples, columns A and g).

    By samples and by cases: without clipping the slope in log r is l·A; at a clipped sample it is 0.
    """
    total = sum(samples.active.sum() for samples, _ in members)
    loss, gradient = 0.0, {name: np.zeros_like(x) for name, x in p.items()}
    for samples, columns in members:
        samples, columns = samples.take(samples.active), columns[samples.active]
        log_prob, entropy, backward = policy(p, bounds, samples)
        slope = np.zeros(len(columns))
        for b, (advantage, preceding) in enumerate(columns):
            joint = np.exp(log_prob[b] - samples.log_prob[b]) * preceding
            clipped = min(max(joint, 1 - hp.clip), 1 + hp.clip)
            loss -= (min(joint * advantage, clipped * advantage) + hp.entropy_coef * entropy[b]) / total
            if joint * advantage <= clipped * advantage:
                slope[b] = joint * advantage / total
        own = backward(-slope, np.full_like(entropy, -hp.entropy_coef / total))
        gradient = {name: g + own[name] for name, g in gradient.items()}
    return loss, gradient


def value_loss(
    p: Params,
    x: np.ndarray,
    old: np.ndarray,
    target: np.ndarray,
    hp: Any,
    kind: str,
    clip_value: bool,
    sequences: Sequences | None = None,
) -> tuple[float, Params]:
    """The mean of ½e² or Huber(e); with clipping, of the larger of this and that of old + clip(value − old, ±ε)."""
    prediction, backward = value(p, x, sequences)

    def error(e):
        size = np.abs(e)
        if kind == "squared":
            return e**2 / 2, e
        small = size <= hp.huber_delta
        return np.where(small, e**2 / 2, hp.huber_delta * (size - hp.huber_delta / 2)), np.clip(
            e, -hp.huber_delta, hp.huber_delta
        )

    loss, slope = error(prediction - target)
    moved = prediction - old
    if clip_value:
        limited, _ = error(old + np.clip(moved, -hp.clip, hp.clip) - target)
        held = (np.abs(moved) > hp.clip) & (limited > loss)  # then the gradient with respect to the value is 0
        loss, slope = np.where(held, limited, loss), np.where(held, 0.0, slope)
    return loss.mean(), backward(slope / len(x))


# Optimization.


@dataclasses.dataclass
class Learner:
    """Parameters and Adam's moments after `count` steps."""

    params: Params
    mu: Params
    nu: Params
    count: int

    def step(self, gradient: Params, learning_rate: float, hp: Any) -> Learner:
        """Adam (β 0.9, 0.999) on the gradient clipped to global norm."""
        norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
        factor = hp.max_grad_norm / norm if norm > hp.max_grad_norm else 1.0
        t, params, mu, nu = self.count + 1, {}, {}, {}
        for name, g in gradient.items():
            mu[name] = 0.9 * self.mu[name] + 0.1 * factor * g
            nu[name] = 0.999 * self.nu[name] + 0.001 * (factor * g) ** 2
            step = (mu[name] / (1 - 0.9**t)) / (np.sqrt(nu[name] / (1 - 0.999**t)) + hp.adam_eps)
            params[name] = self.params[name] - learning_rate * step
        return Learner(params, mu, nu, t)


def ppo(
    learner: Learner, bounds: Any, members: Any, hp: Any, learning_rate: float, epochs: Sequence[Any], loss=ppo_loss
) -> Learner:
    """PPO for one policy on the pooled samples of its `members`; each epoch is a list of minibatches (row numbers)."""
    for rows in (rows for minibatches in epochs for rows in minibatches):
        minibatch = [(samples.take(rows), advantage[rows]) for samples, advantage in members]
        learner = learner.step(loss(learner.params, bounds, minibatch, hp)[1], learning_rate, hp)
    return learner


def standardize(advantages: Sequence[np.ndarray], active: Sequence[np.ndarray]) -> list[np.ndarray]:
    """(A − mean)/(std + 1e-5), with mean and standard deviation over all active entries."""
    pool = np.concatenate([a[mask] for a, mask in zip(advantages, active, strict=True)])
    return [(a - pool.mean()) / (pool.std() + 1e-5) for a in advantages]


def in_sequence(
    learners: list[Learner],
    groups: Any,
    bounds: Any,
    agents: list[Samples],
    advantages: Any,
    order: Any,
    improve: Callable[[int, Learner, Any, Any, Any], Learner],
    guard: str = "none",
    hp: Any = None,
    positions: list[dict[str, float]] | None = None,
    advantages_by: Callable[[np.ndarray], Any] | None = None,
    center: bool = False,
) -> tuple[list[Learner], np.ndarray]:
    """Algorithms 2 and 3 for groups (lists of agents) in `order`: the new learners and M/Â after the last group.

    `improve(group, learner, bounds, members, clip)` updates one group on its members' samples and M. With `order=None`
    M = Â for all groups, as in MAPPO. The diagnostics of the ratio at every position are appended to `positions`.

    A2PO has `advantages_by`, the advantages by the ratio of the agents before. Its clip grows with the position, and M
    is replaced by the columns (Â, g).

    With `center` M has the mean over the group's samples that Â has.
    """
    new, compound, ratios, turn, full = list(learners), np.ones_like(agents[0].log_prob), [], 0, hp
    for g in range(len(groups)) if order is None else order:
        if advantages_by is not None:
            advantages = advantages_by(compound)
            turn = len(groups[g]) + (0 if order is None else turn)
            hp = full.replace(clip=full.clip * (full.clip_floor + (1 - full.clip_floor) * turn / len(agents)))
        scaled = standardize([advantages[i] for i in groups[g]], [agents[i].active for i in groups[g]])
        active = [agents[i].active for i in groups[g]]
        weights = guarded(guard, ratios, active, hp)
        if order is not None and positions is not None:
            positions.append(ratio_diagnostics(compound, weights, active))
        weighted = [weights * a for a in scaled]
        if center:
            alive = np.concatenate(active)
            shift = np.concatenate(weighted)[alive].mean() - np.concatenate(scaled)[alive].mean()
            weighted = [m - shift for m in weighted]
        members = [(agents[i], m) for i, m in zip(groups[g], weighted, strict=True)]
        if advantages_by is not None:
            members = [(agents[i], np.stack([a, weights], -1)) for i, a in zip(groups[g], scaled, strict=True)]
        new[g] = improve(g, learners[g], bounds[g], members, hp.clip if hp is not None else None)
        if order is not None:
            together = np.ones_like(compound)  # the members of a group are updated as one
            for i in groups[g]:
                ratio = np.exp(policy(new[g].params, bounds[g], agents[i])[0] - agents[i].log_prob)
                together = together * np.where(agents[i].active, ratio, 1.0)
            compound = compound * together
            ratios.append(together)
    return new, compound


def expected_gain(learner: Learner, bounds: Any, agents: list[Samples], advantages: list[np.ndarray]) -> float:
    """n gᵀg / √(gᵀFg), with every sample's gradient of the log-probability; F is the mean of their outer products."""
    rows, weights = [], []
    for samples, advantage in zip(agents, advantages, strict=True):
        samples, advantage = samples.take(samples.active), advantage[samples.active]
        backward = policy(learner.params, bounds, samples)[2]
        ones = np.eye(len(advantage))
        rows.extend(np.concatenate([x.ravel() for x in backward(one, 0 * one).values()]) for one in ones)
        weights.extend(advantage)
    jacobian = np.array(rows)
    gradient = jacobian.T @ np.array(weights) / len(rows)
    fisher = jacobian.T @ jacobian / len(rows)
    steps = len(agents[0].active)
    return len(rows) / steps * gradient @ gradient / np.sqrt(gradient @ fisher @ gradient)


def order_by_score(scores: Sequence[float], shuffled: Sequence[int], kind: str) -> list[int]:
    """The groups by descending score; with `semi_greedy`, every second is the first that is left of `shuffled`."""
    left, order = [int(g) for g in shuffled], []
    while left:
        chosen = left[0] if kind == "semi_greedy" and len(order) % 2 else max(left, key=lambda g: scores[g])
        left.remove(chosen)
        order.append(chosen)
    return order


def guarded(guard: str, ratios: list[np.ndarray], active: list[np.ndarray], hp: Any) -> Any:
    """The weight of every sample, from the ratios `[B]` of the groups updated before, sample by sample."""
    weights = np.ones(len(active[0]))
    for b in range(len(weights)):
        for ratio in ratios:
            inside = min(max(ratio[b], 1 - hp.clip), 1 + hp.clip)
            weights[b] *= inside if guard == "clip" else ratio[b]
        if guard == "truncate" and weights[b] > hp.truncation:
            weights[b] = hp.truncation
        if guard == "interval" and abs(weights[b] - 1) > hp.clip / 2:
            weights[b] = 1 + np.sign(weights[b] - 1) * hp.clip / 2
    if guard == "normalize":
        seen = [weights[b] for alive in active for b in range(len(weights)) if alive[b]]
        weights = weights * len(seen) / sum(seen)
    return weights


def ratio_diagnostics(compound: np.ndarray, weights: np.ndarray, active: list[np.ndarray]) -> dict[str, float]:
    """Of the samples at which a member of the group is active."""
    rows = [b for alive in active for b in range(len(alive)) if alive[b]]
    w = weights[rows]
    return {
        "compound_ratio_max": max(compound[rows]),
        "effective_samples": sum(w) ** 2 / (len(rows) * sum(w**2)),
        "guarded": sum(not np.isclose(a, b, 1e-7, 0) for a, b in zip(w, compound[rows], strict=True)) / len(rows),
    }


# Advantages and value normalization.


def gae(
    reward, value, next_value, terminated, truncated, discount: float, gae_lambda: np.ndarray | float, trace=None
) -> np.ndarray:
    """Σ_k (γλ)^k δ_{t+k} up to the end of the episode (or of the rollout), for sequences `[T, E]`; λ may vary.

    With a `trace` c, the term of δ_{t+k} also has the factor c_{t+1} … c_{t+k}.
    """
    trace = np.ones_like(reward) if trace is None else trace
    advantage, decay = np.zeros_like(reward), np.broadcast_to(discount * gae_lambda, np.shape(reward))
    for start, env in np.ndindex(*reward.shape):
        for t in range(start, len(reward)):
            future = 0.0 if terminated[t, env] else next_value[t, env]
            delta = reward[t, env] + discount * future - value[t, env]
            advantage[start, env] += decay[start:t, env].prod() * trace[start + 1 : t + 1, env].prod() * delta
            if terminated[t, env] or truncated[t, env]:
                break
    return advantage


def update_statistics(statistics: dict[str, float], target: np.ndarray, decay: float) -> dict[str, float]:
    """Exponential averages of the targets' mean and mean square, and of 1 (which debiases them)."""
    new = {"mean": target.mean(), "mean_square": (target**2).mean(), "weight": 1.0}
    return {name: decay * statistics[name] + (1 - decay) * x for name, x in new.items()}


def location_and_scale(statistics: dict[str, float]) -> tuple[float, float]:
    if statistics["weight"] == 0:
        return 0.0, 1.0
    mean, square = statistics["mean"] / statistics["weight"], statistics["mean_square"] / statistics["weight"]
    return mean, np.sqrt(max(square - mean**2, 1e-2))
