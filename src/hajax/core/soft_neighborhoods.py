"""How maximum-entropy mirror learning looks for the best policy of a neighborhood: see `core/neighborhoods.py`.

There the objective is of samples of the old policy, weighted by ratios. Here it is of the new policy's own samples,
reparametrized: a function of the parameters of its distributions and of a key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from hajax.core.off_policy_settings import (
    EntropyHyperparameters,
    SoftHyperparameters,
    SoftSettings,
    SoftTrustRegionHyperparameters,
    SoftTrustRegionSettings,
)
from hajax.core.optimization import Learner, adam_step, plain_step
from hajax.core.trust_region import linearize, step_within_kl_ball
from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters
from hajax.spec import ActionLayout

Info = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class SoftMirrorObjective:
    """What one group maximizes on a minibatch, and the settings and numbers with which it does."""

    gain: Callable[[jax.Array, ActionParameters, ActionParameters], jax.Array]  # (key, old, new) -> Q − α log π − D
    distribution: Callable[[Any], ActionParameters]  # of the network's parameters, `[K, B, …]`
    layout: ActionLayout
    weight: jax.Array  # [K, B]
    settings: Any
    numbers: Any
    learning_rate: jax.Array

    def loss(self, params: Any, old: ActionParameters, key: jax.Array) -> jax.Array:
        return -self.gain(key, old, self.distribution(params))


class SoftForm(NamedTuple):
    """`improve(key, objective, learner) -> (learner, info)`: one group's whole update on its minibatch.

    `settings` and `numbers` are the defaults, of classes that have what `improve` reads.
    """

    improve: Callable[[jax.Array, SoftMirrorObjective, Learner], tuple[Learner, Info]]
    settings: SoftSettings
    numbers: EntropyHyperparameters


def _ascend_by_adam(key: jax.Array, objective: SoftMirrorObjective, learner: Learner) -> tuple[Learner, Info]:
    """`epochs` steps of Adam, each on samples of its own."""
    old, numbers = objective.distribution(learner.params), objective.numbers

    def step(learner, key):
        policy_loss, gradient = jax.value_and_grad(objective.loss)(learner.params, old, key)
        learner, norm = adam_step(learner, gradient, objective.learning_rate, numbers.max_grad_norm, numbers.adam_eps)
        return learner, {"policy_loss": policy_loss, "actor_grad_norm": norm}

    learner, info = lax.scan(step, learner, jax.random.split(key, objective.settings.epochs))
    return learner, jax.tree.map(jnp.mean, info)


def _step_once(key: jax.Array, objective: SoftMirrorObjective, learner: Learner) -> tuple[Learner, Info]:
    """One step along the gradient, clipped to a norm."""
    old = objective.distribution(learner.params)
    policy_loss, gradient = jax.value_and_grad(objective.loss)(learner.params, old, key)
    learner, norm = plain_step(learner, gradient, objective.learning_rate, objective.numbers.max_grad_norm)
    return learner, {"policy_loss": policy_loss, "actor_grad_norm": norm}


def _search_kl_ball(key: jax.Array, objective: SoftMirrorObjective, learner: Learner) -> tuple[Learner, Info]:
    """A natural-gradient step and a line search; all candidates are judged with the same random numbers."""
    total = objective.weight.sum()
    share = objective.weight / jnp.where(total > 0, total, 1)
    around = linearize(objective.distribution, learner.params, objective.layout, share)
    old = around.distribution
    start, slope = jax.value_and_grad(lambda new: objective.gain(key, old, new))(old)

    def evaluate(params):
        new = objective.distribution(params)
        kl = jnp.sum(share * distributions.kl_divergence(old, new, objective.layout))
        return objective.gain(key, old, new) - start, kl

    gradient = around.pull(slope)
    found, info = step_within_kl_ball(
        learner.params, gradient, around.fisher_product, evaluate, objective.numbers, objective.settings
    )
    info |= {"policy_loss": -(start + info["improvement"]), "actor_grad_norm": optax.tree.norm(gradient)}
    return learner._replace(params=found), info


ascent = SoftForm(_ascend_by_adam, SoftSettings(others="policy"), SoftHyperparameters())
single_step = SoftForm(_step_once, SoftSettings(others="policy"), SoftHyperparameters())
trust_region = SoftForm(_search_kl_ball, SoftTrustRegionSettings(others="policy"), SoftTrustRegionHyperparameters())
