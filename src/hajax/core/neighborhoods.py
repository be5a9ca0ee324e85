"""Neighborhood operators: which policies one update may reach, and how it looks for the best of them.

In heterogeneous-agent mirror learning (Kuba et al., *Heterogeneous-Agent Mirror Learning*, 2022, Definition 2 and
Algorithm Template 1: https://arxiv.org/abs/2208.01682) agent i_m takes, of all policies in a neighborhood of its own,
the one that maximizes its objective. With networks, that maximum is approached by gradients. The objectives are those
of `compound_ratio.py` (on-policy), `soft_objective.py` (maximum entropy), `deterministic.py` and `double_q.py`.
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
    """What one group of agents maximizes, and the settings with which it does.

    `samples` are the group's, a NamedTuple of arrays `[K, B, …]` with their `weight` `[K, B]`.
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
        """Into how many minibatches each of `epochs` divides the samples."""

    def samples_of(self, params: Any, rollout: Any) -> Any:
        """The samples to learn from; for policies with memory, chunks of the rollout's sequences."""

    def loss(self, key: jax.Array, params: Any, old_params: Any, samples: Any) -> tuple[jax.Array, Info]:
        """What gradient steps minimize: minus the objective's mean over the samples, less any bonus; and its info."""


class PolicyObjective(Objective, Protocol):
    """An objective of distributions, for neighborhoods that measure how far apart two policies are."""

    @property
    def layout(self) -> ActionLayout: ...

    def distribution(self, params: Any, samples: Any) -> ActionParameters:
        """The policy's distributions at the samples."""

    def gain(self, key: jax.Array, new: ActionParameters, old: ActionParameters, samples: Any) -> jax.Array:
        """The objective's mean over the samples, of a step from the policies `old` to `new`."""


class InitLearner(Protocol):
    """Makes the learner of one group."""

    def __call__(self, params: Any, hyperparameters: Any, /) -> Learner:
        """The learner of these parameters, with what the neighborhood remembers of the group in `extra`."""


class Improve(Protocol):
    """One group's whole update."""

    def __call__(self, key: jax.Array, objective: Any, learner: Learner, rollout: Any, /) -> tuple[Learner, Info]:
        """The improved learner and diagnostics, scalars by name.

        Args:
          objective: an `Objective`, or a `PolicyObjective`.
          rollout: the group's samples `[K, B, …]`; for policies with memory its sequences `[K, E, T, …]`, of which
            `objective.samples_of` makes the chunks to learn from.
        """


class Prepare(Protocol):
    """What needs the whole team: runs once, before the first group is updated."""

    def __call__(self, key: jax.Array, hyperparameters: Any, learners: Learner, rollout: Any, /) -> Learner:
        """The learners of all groups, `[G, …]`, with the `extra` that `improve` finds, from samples `[G, K, B, …]`."""


class Neighborhood(NamedTuple):
    """How one group of agents improves its policy.

    `settings` and `hyperparameters` are the classes of what `improve` reads, with its defaults.
    """

    init: InitLearner
    improve: Improve
    settings: type
    hyperparameters: type
    prepare: Prepare | None = None

    def prepared(self, key: jax.Array, hyperparameters: Any, learners: Learner, samples: Any) -> Learner:
        """The learners after `prepare`, if there is one."""
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

    def share(samples):  # of each sample in a mean
        return samples.weight / jnp.where(total > 0, total, 1)

    # With a memory, derivatives are truncated to chunks. What a step does is measured on whole rollouts, with the
    # memory that the new policy itself would have had.
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
"""All policies: `epochs` of Adam (on-policy, of `minibatches`), as in HAPPO, HAA2C, HADDPG and HASAC."""

gradient_step = Neighborhood(lambda params, _: Learner(params), _step_once, TeamSettings, AscentHyperparameters)
"""One step θ + α g on all samples, so that ‖Δθ‖ ≤ `actor_lr` · `max_grad_norm`.

Drifts have no gradient at the old policy, where g is taken: this step is the same with all of them, and with none.
"""

kl_ball = Neighborhood(lambda params, _: Learner(params), _step_within_kl_ball, BallSettings, BallHyperparameters)
"""Mean KL(π_old ‖ π_new) ≤ `kl_radius`: a natural-gradient step and a line search, as in HATRPO."""

NEIGHBORHOODS: dict[str, Neighborhood] = {
    "unrestricted": unrestricted,
    "gradient_step": gradient_step,
    "kl_ball": kl_ball,
}


def with_hyperparameters(objective: Any, **changed: Any) -> Any:
    """The objective with other hyperparameters, such as those of one group in its `extra`.

    Raises ValueError for `actor_lr`, of which `learning_rate` has been made.
    """
    if "actor_lr" in changed:
        raise ValueError(
            "actor_lr; allowed: other hyperparameters (its decayed value is the objective's learning_rate)"
        )
    return dataclasses.replace(objective, hyperparameters=objective.hyperparameters.replace(**changed))


def mean_kl(objective: PolicyObjective, old_params: Any, new_params: Any, samples: Any) -> jax.Array:
    """The mean KL(π_old ‖ π_new) over the samples of a group, in nats."""
    old, new = (objective.distribution(params, samples) for params in (old_params, new_params))
    return weighted_mean(distributions.kl_divergence(old, new, objective.layout), samples.weight)


# An adaptive coefficient stays within this factor of where it began. Without a bound, one that is halved after every
# update, as while learning rates fall, would come to 0 and never be anything else.
COEFFICIENT_RANGE = 2.0**10


class Adaptive(NamedTuple):
    """What `adaptive` remembers of one group."""

    drift_coef: jax.Array
    extra: Any  # the adapted neighborhood's own


def adaptive(neighborhood: Neighborhood) -> Neighborhood:
    """The neighborhood with a drift coefficient per group that follows the KL divergence of the group's updates.

    After an update whose mean KL(π_old ‖ π_new) is less than `kl_target / 1.5` the coefficient is halved, after one of
    more than `1.5 · kl_target` it is doubled (Schulman et al., 2017, Section 4).
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
