"""Neighborhood operators: which policies one update may reach, and how it looks for the best of them.

In heterogeneous-agent mirror learning (Kuba et al., *Heterogeneous-Agent Mirror Learning*, 2022, Definition 2 and
Algorithm Template 1: https://arxiv.org/abs/2208.01682) agent i_m takes, of all policies in a neighborhood of its own,
the one that maximizes E[r · M − D]. With networks, that maximum is approached by gradients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hajax.core import soft_neighborhoods
from hajax.core.advantages import weighted_mean
from hajax.core.batches import GroupBatch
from hajax.core.compound_ratio import GroupPolicy
from hajax.core.drifts import Drift, PolicyChange
from hajax.core.optimization import Learner, adam_step, init_learner, plain_step, train_epochs
from hajax.core.settings import (
    GradientHyperparameters,
    GradientSettings,
    Hyperparameters,
    Settings,
    TrustRegionHyperparameters,
    TrustRegionSettings,
)
from hajax.core.trust_region import linearize, step_within_kl_ball
from hajax.nn import distributions
from hajax.validation import check_has

Info = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class MirrorObjective:
    """What one group maximizes, and the settings and numbers with which it does."""

    policy: GroupPolicy
    drift: Drift
    diagnostics: Callable[[PolicyChange, Any], Info]  # elementwise, `[K, B]` each, or `[K, B, L]` with a memory
    settings: Any
    numbers: Any
    learning_rate: Any  # `None` if the numbers have no `actor_lr`

    def __call__(self, change: PolicyChange) -> jax.Array:
        """r · M − D at every sample: the heterogeneous-agent mirror operator, sampled (haml, Definition 3)."""
        return change.ratio * change.advantage - self.drift(change, self.numbers)


class Neighborhood(NamedTuple):
    """`init(params) -> learner`, and `improve(key, objective, learner, samples) -> (learner, info)`: one group's whole
    update on its samples `[K, B, …]`, whose `advantage` is M. With a memory they are the rollout's sequences
    `[K, E, T, …]`, from which `improve` cuts the chunks that it learns from. `soft` is the same for maximum-entropy
    mirror learning.

    `settings` and `numbers` are the defaults, of classes that have what `improve` reads.
    """

    init: Callable[[Any], Learner]
    improve: Callable[[jax.Array, MirrorObjective, Learner, GroupBatch], tuple[Learner, Info]]
    settings: Settings
    numbers: Hyperparameters
    soft: soft_neighborhoods.SoftForm | None = None

    def check(self, settings: Settings, numbers: Hyperparameters) -> None:
        """Raises ValueError, naming what is missing, unless both have all that the defaults' classes have."""
        check_has(settings, self.settings)
        check_has(numbers, self.numbers)


def _gradient(objective: MirrorObjective, old_params: Any, params: Any, samples: GroupBatch) -> tuple[Any, Info]:
    """The gradient of −E[r · M − D] − c · H at `params`.

    The entropy bonus c · H is PPO's and no part of mirror learning, whose guarantees are those of c = 0.
    """

    def loss(params):
        change = objective.policy.change(old_params, params, samples)

        def mean(x):
            return weighted_mean(x, samples.weight)

        surrogate = mean(objective(change))
        entropy = mean(distributions.entropy(change.new, change.layout))
        info = {
            "policy_loss": -surrogate,
            "entropy": entropy,
            "approx_kl": mean(change.ratio - 1 - change.log_ratio),
        }
        info |= {name: mean(x) for name, x in objective.diagnostics(change, objective.numbers).items()}
        return -surrogate - objective.numbers.entropy_coef * entropy, info

    return jax.grad(loss, has_aux=True)(params)


def _ascend_by_adam(
    key: jax.Array, objective: MirrorObjective, learner: Learner, samples: GroupBatch
) -> tuple[Learner, Info]:
    old_params = learner.params
    samples = objective.policy.samples_of(old_params, samples)

    def step(learner, minibatch):
        gradient, info = _gradient(objective, old_params, learner.params, minibatch)
        numbers = objective.numbers
        learner, norm = adam_step(learner, gradient, objective.learning_rate, numbers.max_grad_norm, numbers.adam_eps)
        return learner, info | {"actor_grad_norm": norm}

    settings = objective.settings
    return train_epochs(key, learner, samples, step, settings.epochs, settings.minibatches)


def _step_once(
    key: jax.Array, objective: MirrorObjective, learner: Learner, samples: GroupBatch
) -> tuple[Learner, Info]:
    samples = objective.policy.samples_of(learner.params, samples)
    gradient, info = _gradient(objective, learner.params, learner.params, samples)
    learner, norm = plain_step(learner, gradient, objective.learning_rate, objective.numbers.max_grad_norm)
    return learner, info | {"actor_grad_norm": norm}


def _step_within_kl_ball(
    key: jax.Array, objective: MirrorObjective, learner: Learner, rollout: GroupBatch
) -> tuple[Learner, Info]:
    policy, numbers, settings = objective.policy, objective.numbers, objective.settings
    layout, total = policy.tables.layout, rollout.weight.sum()

    def share(samples):  # of each sample in a mean
        return samples.weight / jnp.where(total > 0, total, 1)

    def gain(new, old, samples):
        return jnp.sum(share(samples) * objective(policy.change_to(new, lambda: old, samples)))

    # With a memory, derivatives are truncated to chunks. What a step does is judged on whole rollouts, with the memory
    # that the new policy itself would have had.
    samples = policy.samples_of(learner.params, rollout)
    around = linearize(lambda params: policy.distribution(params, samples), learner.params, layout, share(samples))
    old = around.distribution if samples is rollout else policy.distribution(learner.params, rollout)

    def evaluate(params):
        new = policy.distribution(params, rollout)
        kl = jnp.sum(share(rollout) * distributions.kl_divergence(old, new, layout))
        return gain(new, old, rollout) - start, kl

    start, slope = jax.value_and_grad(gain)(around.distribution, around.distribution, samples)
    gradient = around.pull(slope)
    params, info = step_within_kl_ball(learner.params, gradient, around.fisher_product, evaluate, numbers, settings)
    info |= {
        "policy_loss": -(start + info["improvement"]),
        "entropy": jnp.sum(share(rollout) * distributions.entropy(old, layout)),
        "actor_grad_norm": optax.tree.norm(gradient),
    }
    return learner._replace(params=params), info


unrestricted = Neighborhood(
    init_learner, _ascend_by_adam, GradientSettings(), GradientHyperparameters(), soft_neighborhoods.ascent
)
"""All policies: `epochs` of `minibatches` by Adam, as in HAPPO and HAA2C."""

gradient_step = Neighborhood(Learner, _step_once, Settings(), GradientHyperparameters(), soft_neighborhoods.single_step)
"""One step θ + α g on all samples, so that ‖Δθ‖ ≤ `actor_lr` · `max_grad_norm`.

Drifts have no gradient at the old policy, where g is taken: this step is the same with all of them, and with none.
"""

kl_ball = Neighborhood(
    Learner, _step_within_kl_ball, TrustRegionSettings(), TrustRegionHyperparameters(), soft_neighborhoods.trust_region
)
"""Mean KL(π_old ‖ π_new) ≤ `kl_radius`: a natural-gradient step and a line search, as in HATRPO."""
