"""The on-policy template: networks, `init`, `act`, advantages and critics. The policy update is an argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.core.actors import TeamActors, policy_input_mask, policy_torso
from hajax.core.algorithm import Algorithm, Update
from hajax.core.batches import OnPolicyBatch
from hajax.core.groups import Groups, make_groups
from hajax.core.losses import value_error, weighted_mean
from hajax.core.normalization import (
    ValueStatistics,
    denormalize_value,
    init_value_statistics,
    normalize_value,
    update_value_statistics,
)
from hajax.core.observation_moments import ObservationMoments, with_running_moments
from hajax.core.on_policy.advantages import generalized_advantages, trace_terms
from hajax.core.on_policy.critics import ValueFunctions
from hajax.core.on_policy.samples import Estimates, critic_samples, in_chunks
from hajax.core.on_policy.settings import Hyperparameters, Settings
from hajax.core.optimization import Learner, adam_step, decayed, init_learner, train_epochs
from hajax.core.settings import as_arrays
from hajax.nn.checks import check_memory, check_team_critic
from hajax.nn.memory import NO_MEMORY
from hajax.nn.networks import TeamCritic
from hajax.spec import EnvSpec


class OnPolicyState(NamedTuple):
    """The learner state of an on-policy algorithm. It contains the hyperparameters, so a sweep is a `vmap`."""

    actors: Learner  # stacked [G, …]
    critics: Learner  # stacked [1, …] if centralized, else [G, …]
    value_statistics: ValueStatistics | None
    updates: jax.Array  # int []: the number of updates so far
    hyperparameters: Any  # an instance of the algorithm's `Hyperparameters` class
    moments: ObservationMoments | None = None  # if observations are normalized


class ActExtras(NamedTuple):
    """The values that `act` returns for the batch beside the action."""

    log_prob: jax.Array  # [..., N]


def make_networks(
    name: str, spec: EnvSpec, settings: Settings, actor: nn.Module | None, critic: nn.Module | None
) -> tuple[TeamActors, ValueFunctions]:
    """The team's actors and critics, with the MLP of the settings where no torso is given, and their memory.

    Raises:
      ValueError: the reward is of the wrong kind, agents cannot share parameters, or a module does not suit (see
        `hajax.nn.checks`).
    """
    if spec.reward not in settings.rewards:
        raise ValueError(
            f"reward={spec.reward!r} of {spec.name} does not suit {name}, which learns from one advantage for the "
            f"whole team; allowed: {', '.join(settings.rewards)}"
        )
    groups, memory = make_groups(spec, settings.sharing), settings.make_memory()
    mask = policy_input_mask(spec, settings.agent_id)
    observed = (mask.shape[-1], not mask.all())
    critic_sees = (spec.state_size, False) if settings.centralized else observed
    actor = policy_torso(spec, settings, actor)
    if isinstance(critic, TeamCritic):
        settings.require(f"{name} with critic={type(critic).__name__}(...)", centralized=True)
        check_team_critic(critic, spec)
    else:
        critic = settings.torso("critic", critic, *critic_sees)
    if memory is settings.memory:  # a module of the user
        check_memory(memory, actor, *observed)
        if not isinstance(critic, TeamCritic):
            check_memory(memory, critic, *critic_sees)
    actors = TeamActors(
        spec,
        groups,
        actor,
        agent_id=settings.agent_id,
        action_scaling=settings.action_scaling,
        output_gain=settings.output_gain,
        std_scale=settings.std_scale,
        memory=memory,
        chunk_length=settings.chunk_length,
    )
    remembered = NO_MEMORY if isinstance(critic, TeamCritic) else memory
    critics = ValueFunctions(
        spec, groups, critic, settings.centralized, settings.agent_id, remembered, settings.chunk_length
    )
    return actors, critics


def make_algorithm(
    name: str,
    settings: Settings,
    hyperparameters: Hyperparameters,
    actors: TeamActors,
    critics: ValueFunctions,
    update: Update,
    init_actor: Callable[[Any, Hyperparameters], Learner] = lambda params, hyperparameters: init_learner(params),
) -> Algorithm:
    """The algorithm with a given `update`; `init` and `act` are the same for all on-policy algorithms.

    `init_actor(params, hyperparameters)` makes the learner of one group's actor; by default it has Adam's moments.
    """
    defaults = hyperparameters
    defaults.validate()

    def init(key: jax.Array, hyperparameters: Hyperparameters | None = None) -> OnPolicyState:
        chosen = as_arrays(defaults if hyperparameters is None else hyperparameters)
        return init_state(key, actors, critics, settings, chosen, init_actor)

    def act(key, state, timestep, memory, deterministic=False):
        action, log_prob, memory = actors.act(key, state.actors.params, timestep, memory, deterministic)
        return action, ActExtras(log_prob), memory

    algorithm = Algorithm(
        name=name,
        kind="on_policy",
        spec=actors.spec,
        settings=settings,
        hyperparameters=defaults,
        init=init,
        initial_memory=actors.initial_memory,
        act=act,
        update=update,
    )
    # Observations are normalized as they were for acting, so that the ratio of new to old policy starts at exactly 1.
    return with_running_moments(algorithm, actors.groups, update_first=False)


def init_state(
    key: jax.Array,
    actors: TeamActors,
    critics: ValueFunctions,
    settings: Settings,
    hyperparameters: Hyperparameters,
    init_actor: Callable[[Any, Hyperparameters], Learner],
) -> OnPolicyState:
    """The learner state before the first update."""
    actor_key, critic_key = jax.random.split(key)

    def stacked(make, groups: Groups, *args):
        return jax.tree.map(lambda x: jnp.stack([x] * groups.num_groups), make(*args))

    return OnPolicyState(
        actors=jax.vmap(init_actor, in_axes=(0, None))(actors.init(actor_key), hyperparameters),
        critics=jax.vmap(init_learner)(critics.init(critic_key)),
        value_statistics=stacked(init_value_statistics, critics.groups) if settings.normalize_values else None,
        updates=jnp.zeros((), int),
        hyperparameters=hyperparameters,
    )


def estimate(critics: ValueFunctions, state: OnPolicyState, batch: OnPolicyBatch) -> Estimates:
    """Values by the current critics, and from them GAE advantages and value targets."""
    hyperparameters, statistics = state.hyperparameters, state.value_statistics

    def in_reward_units(value):
        if statistics is None:
            return value
        per_value = jax.tree.map(lambda x: x[jnp.array(critics.groups.assignment)], statistics)
        return denormalize_value(per_value, value)

    value, final_value = critics.of_rollout(state.critics.params, batch)
    final_value = critics.fill_inactive(in_reward_units(final_value), batch.final_active)
    baseline = critics.fill_inactive(in_reward_units(value), batch.active)
    terms = trace_terms(
        reward=batch.reward[..., : value.shape[-1]],
        value=baseline,
        next_value=final_value,
        terminated=jnp.broadcast_to(batch.terminated[..., None], value.shape),
        truncated=jnp.broadcast_to(batch.truncated[..., None], value.shape),
        discount=hyperparameters.discount,
        gae_lambda=critics.bootstrapped(hyperparameters.gae_lambda, batch.final_active),
    )
    advantage = generalized_advantages(terms)
    return Estimates(value, advantage, advantage + baseline, critics.active(batch.active), terms)


def update_critics(
    key: jax.Array,
    critics: ValueFunctions,
    settings: Settings,
    state: OnPolicyState,
    batch: OnPolicyBatch,
    estimates: Estimates,
) -> tuple[OnPolicyState, dict[str, jax.Array]]:
    """Regresses every critic on its targets, in normalized units if values are normalized.

    The value statistics are updated first, so that the critic is trained in the units in which it is evaluated next;
    or, as in HARL, before the step on every minibatch (`value_statistics_per`).
    """
    hyperparameters, once = state.hyperparameters, settings.value_statistics_per == "update"
    learning_rate = decayed(hyperparameters.critic_lr, state.updates, hyperparameters.decay_updates)
    samples = critic_samples(critics, batch, estimates)

    def update_critic(group):
        key, learner, statistics, mask, samples = group

        def updated(statistics, samples):
            statistics = update_value_statistics(
                statistics, samples.target, samples.weight, hyperparameters.value_decay
            )
            return statistics, samples._replace(target=normalize_value(statistics, samples.target))

        if statistics is not None and once:
            statistics, samples = updated(statistics, samples)
        if critics.memory.remembers:
            _, memory = critics.group_value(learner.params, mask, samples.inputs, samples.memory_input)
            samples = in_chunks(samples, memory, critics.chunk_length)

        def loss(params, samples):
            value, _ = critics.group_value(params, mask, samples.inputs, samples.memory_input)
            clip = hyperparameters.clip if settings.clip_value else None
            error = value_error(
                value, samples.target, samples.old_value, settings.value_loss, hyperparameters.huber_delta, clip
            )
            return weighted_mean(error, samples.weight)

        def step(key, carry, minibatch):
            learner, statistics = carry
            if statistics is not None and not once:
                statistics, minibatch = updated(statistics, minibatch)
            value_loss, gradient = jax.value_and_grad(loss)(learner.params, minibatch)
            learner, norm = adam_step(
                learner, gradient, learning_rate, hyperparameters.max_grad_norm, hyperparameters.adam_eps
            )
            return (learner, statistics), {"value_loss": value_loss, "critic_grad_norm": norm}

        carry = learner, statistics
        (learner, statistics), info = train_epochs(
            key, carry, samples, step, settings.critic_epochs, settings.minibatches
        )
        return learner, statistics, info

    keys = jax.random.split(key, critics.groups.num_groups)
    learners, statistics, info = jax.lax.map(
        update_critic, (keys, state.critics, state.value_statistics, critics.mask, samples)
    )
    return state._replace(critics=learners, value_statistics=statistics), info
