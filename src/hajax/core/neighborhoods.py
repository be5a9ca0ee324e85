"""Neighborhood operators: the policies that one update may reach, and the steps that lead there.

In heterogeneous-agent mirror learning (Kuba et al., *Heterogeneous-Agent Mirror Learning*, 2022, Definition 2 and
Algorithm Template 1: https://arxiv.org/abs/2208.01682) agent i_m maximizes its objective over the policies in a
neighborhood of its current policy. With networks, the maximum is approached by gradient steps. The objectives are
defined in `on_policy/compound_ratio.py`, and in `soft_objective.py` (maximum entropy), `deterministic.py`,
`double_q.py`, `counterfactual.py` and `mirror_descent.py` of `off_policy/`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from hajax.core.losses import weighted_mean
from hajax.core.optimization import Learner, adam_step, init_learner, plain_step, train_epochs
from hajax.core.settings import (
    AdaptiveHyperparameters,
    AscentHyperparameters,
    AscentSettings,
    BallHyperparameters,
    BallSettings,
    TeamSettings,
    combined,
)
from hajax.core.trust_region import linearize, step_within_kl_ball
from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters
from hajax.spec import ActionLayout

Info = dict[str, jax.Array]


class Objective(Protocol):
    """What one group of agents maximizes, with its settings and hyperparameters.

    `samples` are the group's samples: a NamedTuple of arrays `[K, B, …]`, among them `weight` `[K, B]`.
    """

    @property
    def settings(self) -> Any: ...
    @property
    def hyperparameters(self) -> Any: ...
    @property
    def learning_rate(self) -> Any:
        """The decayed `actor_lr`; `None` if there is none."""

    @property
    def minibatches(self) -> int:
        """The number of minibatches in each pass over the samples."""

    def samples_of(self, params: Any, rollout: Any) -> Any:
        """The samples for gradients: for policies with memory, chunks of the rollout's sequences."""

    def loss(self, key: jax.Array, params: Any, old_params: Any, samples: Any) -> tuple[jax.Array, Info]:
        """The loss of gradient steps, −(mean objective over the samples + any bonus), and diagnostics by name."""


class PolicyObjective(Objective, Protocol):
    """An objective that is a function of the action distributions, for neighborhoods that measure KL divergences."""

    @property
    def layout(self) -> ActionLayout: ...

    def distribution(self, params: Any, samples: Any) -> ActionParameters:
        """The policy's distributions at the samples."""

    def gain(self, key: jax.Array, new: ActionParameters, old: ActionParameters, samples: Any) -> jax.Array:
        """The objective's mean over the samples for a step from the policies `old` to `new`."""


class InitLearner(Protocol):
    """Makes the learner of one group."""

    def __call__(self, params: Any, hyperparameters: Any, /) -> Learner:
        """The learner with these parameters; `extra` holds the neighborhood's own data."""


class Improve(Protocol):
    """Updates one group's policy."""

    def __call__(self, key: jax.Array, objective: Any, learner: Learner, rollout: Any, /) -> tuple[Learner, Info]:
        """The improved learner and diagnostics, scalars by name.

        Args:
          objective: an `Objective`, or a `PolicyObjective`.
          rollout: the group's samples `[K, B, …]`; for policies with memory its sequences `[K, E, T, …]`, which
            `objective.samples_of` cuts into chunks.
        """


class Prepare(Protocol):
    """Computes what depends on the whole team. Called once per update, before the first group is updated."""

    def __call__(self, key: jax.Array, hyperparameters: Any, learners: Learner, rollout: Any, /) -> Learner:
        """The learners of all groups `[G, …]`, with new `extra` for `improve`, from samples `[G, K, B, …]`."""


class Neighborhood(NamedTuple):
    """How one group of agents improves its policy.

    `settings` and `hyperparameters` are dataclasses whose fields, with their defaults, `improve` reads.
    """

    init: InitLearner
    improve: Improve
    settings: type
    hyperparameters: type
    prepare: Prepare | None = None

    def prepared(self, key: jax.Array, hyperparameters: Any, learners: Learner, samples: Any) -> Learner:
        """The learners after `prepare`; unchanged if there is none."""
        return learners if self.prepare is None else self.prepare(key, hyperparameters, learners, samples)


def _ascend_by_adam(key: jax.Array, objective: Objective, learner: Learner, rollout: Any) -> tuple[Learner, Info]:
    old_params, hyperparameters = learner.params, objective.hyperparameters

    def step(key, learner, samples):
        gradient, info = jax.grad(objective.loss, argnums=1, has_aux=True)(key, learner.params, old_params, samples)
        rates = (objective.learning_rate, hyperparameters.max_grad_norm, hyperparameters.adam_eps)
        learner, norm = adam_step(learner, gradient, *rates)
        return learner, info | {"actor_grad_norm": norm}

    samples = objective.samples_of(old_params, rollout)
    return train_epochs(key, learner, samples, step, objective.settings.epochs, objective.minibatches)


def _step_once(key: jax.Array, objective: Objective, learner: Learner, rollout: Any) -> tuple[Learner, Info]:
    samples = objective.samples_of(learner.params, rollout)
    gradient, info = jax.grad(objective.loss, argnums=1, has_aux=True)(key, learner.params, learner.params, samples)
    learner, norm = plain_step(learner, gradient, objective.learning_rate, objective.hyperparameters.max_grad_norm)
    return learner, info | {"actor_grad_norm": norm}


def _step_within_kl_ball(
    key: jax.Array, objective: PolicyObjective, learner: Learner, rollout: Any
) -> tuple[Learner, Info]:
    """Every candidate of the line search is evaluated with the same `key`."""
    layout, total = objective.layout, rollout.weight.sum()

    def share(samples):  # the weight of each sample in a mean
        return samples.weight / jnp.where(total > 0, total, 1)

    # With a memory, derivatives are truncated to chunks. Candidates are evaluated on whole rollouts, with the memory
    # recomputed by the new policy.
    samples = objective.samples_of(learner.params, rollout)
    around = linearize(lambda params: objective.distribution(params, samples), learner.params, layout, share(samples))
    old = around.distribution if samples is rollout else objective.distribution(learner.params, rollout)

    def evaluate(params):
        new = objective.distribution(params, rollout)
        kl = jnp.sum(share(rollout) * distributions.kl_divergence(old, new, layout))
        return objective.gain(key, new, old, rollout) - start, kl

    start, slope = jax.value_and_grad(objective.gain, argnums=1)(key, around.distribution, around.distribution, samples)
    gradient = around.pull(slope)
    params, info = step_within_kl_ball(
        learner.params, gradient, around.fisher_product, evaluate, objective.hyperparameters, objective.settings
    )
    info |= {
        "policy_loss": -(start + info["improvement"]),
        "entropy": jnp.sum(share(rollout) * distributions.entropy(old, layout)),
        "actor_grad_norm": optax.tree.norm(gradient),
    }
    return learner._replace(params=params), info


unrestricted = Neighborhood(
    lambda params, _: init_learner(params), _ascend_by_adam, AscentSettings, AscentHyperparameters
)
"""All policies. `epochs` passes of Adam steps (on-policy over `minibatches`), as in HAPPO, HAA2C, HADDPG and HASAC."""

gradient_step = Neighborhood(lambda params, _: Learner(params), _step_once, TeamSettings, AscentHyperparameters)
"""One step θ + α g on all samples, so that ‖Δθ‖ ≤ `actor_lr` · `max_grad_norm`.

The gradient g is taken at the old policy, where the gradient of a drift is zero. The step therefore does not depend on
the drift.
"""

kl_ball = Neighborhood(lambda params, _: Learner(params), _step_within_kl_ball, BallSettings, BallHyperparameters)
"""Policies with mean KL(π_old ‖ π_new) ≤ `kl_radius`. A natural-gradient step and a line search, as in HATRPO."""

NEIGHBORHOODS: dict[str, Neighborhood] = {
    "unrestricted": unrestricted,
    "gradient_step": gradient_step,
    "kl_ball": kl_ball,
}


def with_hyperparameters(objective: Any, **changed: Any) -> Any:
    """The objective with some hyperparameters replaced, for example by values in a group's `extra`.

    Raises:
      ValueError: `actor_lr` is to be replaced. It has no effect, because the objective's `learning_rate` is used.
    """
    if "actor_lr" in changed:
        raise ValueError(
            "actor_lr; allowed: other hyperparameters (its decayed value is the objective's learning_rate)"
        )
    return dataclasses.replace(objective, hyperparameters=objective.hyperparameters.replace(**changed))


def mean_kl(objective: PolicyObjective, old_params: Any, new_params: Any, samples: Any) -> jax.Array:
    """The mean KL(π_old ‖ π_new) over a group's samples, in nats."""
    old, new = (objective.distribution(params, samples) for params in (old_params, new_params))
    return weighted_mean(distributions.kl_divergence(old, new, objective.layout), samples.weight)


# An adaptive coefficient stays within this factor of its first value. Without a bound, a coefficient that is halved
# after every update (as under a decaying learning rate) underflows to 0 and stays there.
COEFFICIENT_RANGE = 2.0**10


class Adaptive(NamedTuple):
    """The `extra` of `adaptive` for one group."""

    drift_coef: jax.Array
    extra: Any  # the `extra` of the adapted neighborhood


def adaptive(neighborhood: Neighborhood) -> Neighborhood:
    """The neighborhood with an adaptive drift coefficient per group.

    After an update with a mean KL(π_old ‖ π_new) of less than `kl_target / 1.5` the coefficient is halved; after one
    with more than `1.5 · kl_target` it is doubled (Schulman et al., 2017, Section 4).
    """

    def init(params: Any, hyperparameters: Any) -> Learner:
        learner = neighborhood.init(params, hyperparameters)
        return learner._replace(extra=Adaptive(hyperparameters.drift_coef, learner.extra))

    def improve(key: jax.Array, objective: Any, learner: Learner, rollout: Any) -> tuple[Learner, Info]:
        given, coefficient = objective.hyperparameters, learner.extra.drift_coef
        adapted = with_hyperparameters(objective, drift_coef=coefficient)
        new, info = neighborhood.improve(key, adapted, learner._replace(extra=learner.extra.extra), rollout)
        kl = mean_kl(objective, learner.params, new.params, rollout)
        factor = jnp.where(kl > 1.5 * given.kl_target, 2.0, jnp.where(kl < given.kl_target / 1.5, 0.5, 1.0))
        least, most = given.drift_coef / COEFFICIENT_RANGE, given.drift_coef * COEFFICIENT_RANGE
        extra = Adaptive(jnp.clip(coefficient * factor, least, most), new.extra)
        return new._replace(extra=extra), info | {"kl": kl, "drift_coef": coefficient}

    def prepare(key: jax.Array, hyperparameters: Any, learners: Learner, samples: Any) -> Learner:
        inner = neighborhood.prepared(key, hyperparameters, learners._replace(extra=learners.extra.extra), samples)
        return inner._replace(extra=learners.extra._replace(extra=inner.extra))

    read = combined(neighborhood.hyperparameters, AdaptiveHyperparameters)
    return Neighborhood(init, improve, neighborhood.settings, read, prepare)
