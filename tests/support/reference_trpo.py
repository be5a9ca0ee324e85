"""TRPO in NumPy with an explicit Fisher matrix, as the reference for hajax's HATRPO.

The matrix is the expected outer product of the scores, and the KL divergence is the expected log-ratio. Both are sums
over all actions (for a Box action over the nodes of a quadrature, exact for these polynomials), without second
derivatives, products with vectors or closed-form divergences.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from reference import Learner, Params, Samples, body, gaussian, policy

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(4)
Members = Sequence[tuple[Samples, np.ndarray]]  # each member's samples and M


def flat(tree: Params) -> np.ndarray:
    return np.concatenate([tree[name].ravel() for name in sorted(tree)])


def unflat(vector: np.ndarray, like: Params) -> Params:
    ends = np.cumsum([like[name].size for name in sorted(like)])
    parts = np.split(vector, ends[:-1])
    return {name: part.reshape(like[name].shape) for name, part in zip(sorted(like), parts, strict=True)}


def outcomes(p: Params, bounds: Any, samples: Samples) -> Iterator[tuple[np.ndarray, Samples]]:
    """Every action that a policy may take at `samples`, with its probability.

    Where an action is not available, the row keeps its own action, with probability 0. (No row is dropped, because
    memories need all.)
    """
    if samples.available:
        usable = [mask | ~mask.any(-1, keepdims=True) for mask in samples.available]
        for choice in itertools.product(*(range(mask.shape[1]) for mask in usable)):
            rows = np.all([mask[:, c] for mask, c in zip(usable, choice, strict=True)], 0)
            action = np.where(rows[:, None], np.array(choice, float), samples.action)
            taken = dataclasses.replace(samples, action=action)
            yield np.where(rows, np.exp(policy(p, bounds, taken)[0]), 0), taken
        return
    mean, std, center, scale = gaussian(p, bounds, body(p, samples.observation, samples.sequences, [])[0], [])
    for node in itertools.product(range(len(NODES)), repeat=len(std)):
        action = center + scale * (mean + std * NODES[list(node)])
        weight = np.prod(WEIGHTS[list(node)] / WEIGHTS.sum())
        yield np.full(len(mean), weight), dataclasses.replace(samples, action=action)


def fisher_matrix(p: Params, bounds: Any, members: Members) -> np.ndarray:
    """E[∇log π ∇log πᵀ] over the active samples of all members and the policy's own actions."""
    total = sum(samples.active.sum() for samples, _ in members)
    matrix = np.zeros((flat(p).size,) * 2)
    for samples, _ in members:
        for probability, taken in outcomes(p, bounds, samples.take(samples.active)):
            _, entropy, backward = policy(p, bounds, taken)
            for row, weight in enumerate(probability):
                score = flat(backward(np.eye(len(probability))[row], np.zeros_like(entropy)))
                matrix += weight * np.outer(score, score) / total
    return matrix


def mean_kl(old: Params, new: Params, bounds: Any, members: Members) -> float:
    """E[log π_old − log π_new] over the active samples of all members and the old policy's actions."""
    total = sum(samples.active.sum() for samples, _ in members)
    kl = 0.0
    for samples, _ in members:
        for probability, taken in outcomes(old, bounds, samples.take(samples.active)):
            kl += (probability * (policy(old, bounds, taken)[0] - policy(new, bounds, taken)[0])).sum() / total
    return kl


def surrogate(p: Params, bounds: Any, members: Members) -> tuple[float, Params]:
    """E[r · M] and its gradient."""
    total = sum(samples.active.sum() for samples, _ in members)
    gain, gradient = 0.0, {name: np.zeros_like(x) for name, x in p.items()}
    for samples, advantage in members:
        samples, advantage = samples.take(samples.active), advantage[samples.active]
        log_prob, entropy, backward = policy(p, bounds, samples)
        weighted = np.exp(log_prob - samples.log_prob) * advantage / total
        gain += weighted.sum()
        own = backward(weighted, np.zeros_like(entropy))
        gradient = {name: g + own[name] for name, g in gradient.items()}
    return gain, gradient


def trpo(
    learner: Learner, bounds: Any, members: Members, hp: Any, steps: int, chunks: Members | None = None
) -> tuple[Learner, dict[str, float]]:
    """Lines 11–13 of HATRPO's Algorithm 2 for one policy on the pooled samples of its `members`.

    Derivatives of a policy with memory are taken over `chunks` of them.
    """
    start, gradient = surrogate(learner.params, bounds, chunks or members)
    fisher = fisher_matrix(learner.params, bounds, chunks or members)
    x = np.linalg.solve(fisher + hp.damping * np.eye(len(fisher)), flat(gradient))
    step = np.sqrt(2 * hp.kl_radius / (x @ fisher @ x)) * x
    expected = step @ flat(gradient)
    for j in range(steps):
        new = unflat(flat(learner.params) + hp.backtrack**j * step, learner.params)
        improvement = surrogate(new, bounds, members)[0] - start
        kl = mean_kl(learner.params, new, bounds, members)
        if improvement >= hp.accept_ratio * hp.backtrack**j * expected and kl <= hp.kl_radius * (1 + 1e-8):
            info = {"kl": kl, "improvement": improvement, "expected_improvement": expected, "candidate": j}
            return dataclasses.replace(learner, params=new), info | {"accepted": 1.0}
    info = {"kl": 0.0, "improvement": 0.0, "expected_improvement": expected, "candidate": steps - 1}
    return learner, info | {"accepted": 0.0}
