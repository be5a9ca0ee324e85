"""Maximum-entropy heterogeneous-agent mirror learning: soft policies improved in sequence, with any drift.

Liu et al., *Maximum Entropy Heterogeneous-Agent Reinforcement Learning* (ICLR 2024), Algorithms 1 and 2:
https://arxiv.org/abs/2306.10715. HASAC is the instance without drift.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.core import off_policy
from hajax.core.actors import GroupTables, TeamActors, policy_torso
from hajax.core.advantages import weighted_mean
from hajax.core.algorithm import Algorithm
from hajax.core.drifts import Drift, no_drift, numbers_read
from hajax.core.groups import make_groups
from hajax.core.inactive import blank
from hajax.core.joint_actions import JointActions
from hajax.core.joint_critics import ActionValues
from hajax.core.neighborhoods import Neighborhood, unrestricted
from hajax.core.observation_moments import with_running_moments
from hajax.core.off_policy import GroupActor, GroupSamples, Info, OffPolicyState
from hajax.core.off_policy_settings import EntropyHyperparameters, SoftSettings
from hajax.core.optimization import Learner, adam_step, decayed, init_learner
from hajax.core.soft_neighborhoods import SoftMirrorObjective
from hajax.core.soft_objective import SoftObjective, own_choices
from hajax.core.transitions import OffPolicyBatch
from hajax.nn.distributions import ActionParameters
from hajax.nn.networks import available_choices
from hajax.nn.squashing import Drawn, action_of, draw, most_likely
from hajax.spec import EnvSpec, Timestep
from hajax.validation import check_has, check_number


def mehaml(
    name: str,
    spec: EnvSpec,
    settings: SoftSettings | None = None,
    hyperparameters: EntropyHyperparameters | None = None,
    *,
    drift: Drift = no_drift,
    neighborhood: Neighborhood = unrestricted,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """Maximum-entropy mirror learning with that drift, for the team that `spec` describes.

    Agents update one after another, in the settings' order. Agent i_m ascends, for `epochs` steps,

        E[min_j Q_j(s, a_new^{i_1:m-1}, a^{i_m}, a^{i_m+1:n}) − α log π̂(a^{i_m}|o^{i_m}) − D(π̂)],   a^{i_m} ~ π̂,

    in which the agents before it act by samples of their new policies, and those after it by samples of their current
    ones (`others="policy"`) or as the replay says (`others="replay"`). Two critics regress on

        y = Σ_{j<k} γʲ rʲ + γᵏ (1 − terminated) (min_j Q′_j(s′, a′) − Σᵢ αᵢ log πⁱ(a′ⁱ|o′ⁱ)),   a′ ~ π,

    with targets φ′ ← τ φ + (1 − τ) φ′; the entropies of the steps between are left out, as in HARL. Agents that are not
    alive have no part in entropies. With `auto_temperature`
    every agent's α descends E[−α (log π(a|o) + H)]: H is `target_entropy` for each real component (in units in which
    its bounds are ±1) and `target_entropy_share` · log n for each choice among n that are available.

    Args:
      name: what the algorithm calls itself, in results and errors.
      spec: the environment's specification; agents may mix discrete and Box actions.
      settings, hyperparameters: the static settings, and the default numbers, which `init` may replace, with all that
        neighborhood and drift read (`SoftDriftHyperparameters`); the neighborhood's own if `None`.
      drift: D, as of `core/drifts.py`. Its samples are drawn from the policy before the update; their advantage M is
        Q − α log π, against another sample of that policy.
      neighborhood: `unrestricted` (`epochs` of Adam), `gradient_step` or `kl_ball` of `core/neighborhoods.py`. The
        line search of the last judges by sampled actions, of which discrete ones jump: with `expectation="exact"` it
        judges what it climbs. `gradient_step`, which no drift changes, is as long as `max_grad_norm` says, which is
        infinite unless it is set.
      actor, critic: flax modules used as torsos instead of the MLP; see `core.deterministic`.

    Raises:
      ValueError: a number is out of range or missing, agents cannot share parameters, the reward is of the wrong kind,
        every agent has a state of its own, or an exact expectation is not to be had.
    """

    soft = neighborhood.soft
    if soft is None:
        raise ValueError("neighborhood has no soft form; allowed: unrestricted, gradient_step, kl_ball, or one's own")
    settings = soft.settings if settings is None else settings
    hyperparameters = soft.numbers if hyperparameters is None else hyperparameters
    check_has(settings, soft.settings)
    check_has(hyperparameters, soft.numbers)

    def check_numbers(numbers: EntropyHyperparameters) -> None:
        numbers.validate()
        if settings.auto_temperature and not isinstance(numbers.temperature, jax.core.Tracer):
            check_number("temperature", numbers.temperature, 0, open_low=True)  # an α of 0 could not grow

    off_policy.check_spec(name, spec, per_agent_critics=False)
    check_numbers(hyperparameters)
    numbers_read(drift, hyperparameters, spec)
    groups, actions = make_groups(spec, settings.sharing), JointActions(spec)
    actor = policy_torso(spec, settings, actor)
    critic = settings.torso("critic", critic, spec.state_size + actions.size)
    actors = TeamActors(spec, groups, actor, settings.agent_id, True, settings.output_gain, std="network")
    critics = ActionValues(spec, actions, critic, per_agent=False, copies=2)
    layout, defaults = actors.layout, hyperparameters
    choices = own_choices(name, spec, groups) if settings.expectation == "exact" else None

    def target_entropy(batch: OffPolicyBatch, numbers: Any) -> jax.Array:
        """H `[N, B]`, in nats, of native actions."""
        available = available_choices(layout, batch.action_mask).sum(-1)  # [B, N, D]
        choice = numbers.target_entropy_share * jnp.log(jnp.maximum(available, 1))
        real = numbers.target_entropy + jnp.log(layout.scale)
        return jnp.where(layout.discrete, choice, jnp.where(layout.continuous, real, 0)).sum(-1).T

    def init(key: jax.Array, hyperparameters: Any = None) -> OffPolicyState:
        numbers = defaults if hyperparameters is None else hyperparameters
        check_numbers(numbers)
        numbers = jax.tree.map(lambda x: jnp.asarray(x, float), numbers)
        actor_key, critic_key = jax.random.split(key)
        values = critics.init(critic_key)
        log_temperature = jnp.full(spec.num_agents, jnp.log(numbers.temperature))
        return OffPolicyState(
            actors=jax.vmap(neighborhood.init)(actors.init(actor_key)),
            critics=jax.vmap(jax.vmap(init_learner))(values),
            target_actors=None,
            target_critics=values,
            updates=jnp.zeros((), int),
            hyperparameters=numbers,
            temperatures=jax.vmap(init_learner)(log_temperature) if settings.auto_temperature else None,
        )

    def temperatures(state: OffPolicyState) -> jax.Array:
        """α of every agent, `[N]`."""
        if state.temperatures is None:
            return jnp.broadcast_to(state.hyperparameters.temperature, (spec.num_agents,))
        return jnp.exp(state.temperatures.params)

    def team(params: Any, observation: jax.Array, action_mask: jax.Array) -> ActionParameters:
        mask = action_mask if spec.masks_actions else None
        return actors.team_distribution(params, None, observation, mask)[0]

    def act(key: jax.Array, state: OffPolicyState, timestep: Timestep, memory: Any, deterministic: bool = False):
        parameters = team(state.actors.params, timestep.observation, timestep.action_mask)
        if deterministic:
            return action_of(layout, *most_likely(parameters, layout)), (), memory
        drawn = draw(key, parameters, layout, state.hyperparameters.softness)
        return action_of(layout, drawn.choice, drawn.unit), (), memory

    def team_features(drawn: Drawn, active: jax.Array) -> jax.Array:
        """Features `[N, B, F]` of a whole team's actions `[B, N, …]`, zeros for inactive agents."""
        return jnp.moveaxis(blank(actions.join(layout, drawn.choice, drawn.unit), active), -2, 0)

    def target_values(state: OffPolicyState, key: jax.Array, batch: OffPolicyBatch) -> jax.Array:
        """The soft value `[1, B]` of where the transitions led."""
        parameters = team(state.actors.params, batch.final_observation, batch.final_action_mask)
        drawn = draw(key, parameters, layout, state.hyperparameters.softness)
        value = critics.values(state.target_critics, batch.final_state, team_features(drawn, batch.final_active)).min(1)
        return value - jnp.sum(jnp.where(batch.final_active, temperatures(state) * drawn.log_prob, 0), -1)

    def update(key: jax.Array, state: OffPolicyState, batch: OffPolicyBatch) -> tuple[OffPolicyState, Info]:
        numbers = state.hyperparameters
        actor_key, others_key, *critic_keys = jax.random.split(key, 2 + settings.policy_delay)
        critic_rate, actor_rate, temperature_rate = (
            decayed(rate, state.updates, numbers.decay_updates)
            for rate in (numbers.critic_lr, getattr(numbers, "actor_lr", 0.0), numbers.temperature_lr)
        )  # a trust region has no `actor_lr`
        alpha = temperatures(state)

        learners, critic_info = off_policy.fit_critics(
            critics,
            state.critics,
            batch,
            jnp.moveaxis(blank(actions.features(layout, batch.action), batch.active), -2, 1),
            functools.partial(target_values, state),
            jnp.stack(critic_keys),
            critic_rate,
            numbers,
        )
        last = jax.tree.map(lambda x: x[-1], batch)

        def improve(key: jax.Array, tables: GroupTables, learner: Learner, samples: GroupSamples, joint: jax.Array):
            actor = GroupActor(actors, tables)
            objective = SoftObjective(
                actions,
                critics,
                actor,
                samples,
                joint,
                jax.tree.map(lambda x: x[0], learners.params),
                last.state,
                jnp.take(alpha, samples.place, mode="clip")[:, None],
                numbers.softness,
            )

            def gain(key, old, new):
                value_key, drift_key = jax.random.split(key)
                value = objective(value_key, new)
                if drift is no_drift:
                    return value
                return value - objective.penalty(drift_key, drift, old, new, numbers)

            def distribution(params):
                return actor.distribution(params, samples)

            mirror = SoftMirrorObjective(
                gain, distribution, tables.layout, samples.weight, settings, numbers, actor_rate
            )
            ascent_key, fresh_key = jax.random.split(key)
            learner, info = soft.improve(ascent_key, mirror, learner)
            drawn, features = objective.drawn(fresh_key, distribution(learner.params))
            return learner, features, info | {"log_prob": drawn.log_prob}

        samples = off_policy.group_samples(actors, last)._replace(choices=choices)
        policies, actor_info = off_policy.improve_in_sequence(
            actor_key, actors, settings.order, state.actors, samples, others(others_key, state, last), improve
        )
        log_prob = groups.scatter(actor_info.pop("log_prob"), axis=0)  # [N, B], of the new policies
        weight = jnp.moveaxis(last.active, -1, 0).astype(log_prob.dtype)
        surplus = jax.vmap(weighted_mean)(-log_prob - target_entropy(last, numbers), weight)
        adapted = state.temperatures
        if adapted is not None:
            adapt = jax.vmap(adam_step, in_axes=(0, 0, None, None, None))
            adapted, _ = adapt(adapted, alpha * surplus, temperature_rate, math.inf, numbers.adam_eps)
        state = state._replace(
            actors=policies,
            critics=learners,
            target_critics=off_policy.polyak_average(state.target_critics, learners.params, numbers.target_rate),
            updates=state.updates + 1,
            temperatures=adapted,
        )
        entropy = -jax.vmap(weighted_mean)(log_prob, weight)
        info = critic_info | {"entropy": entropy, "temperature": alpha}
        return state, actor_info | info

    def others(key: jax.Array, state: OffPolicyState, batch: OffPolicyBatch) -> jax.Array:
        """The joint action `[N, B, F]` that the first group sees."""
        if settings.others == "replay":
            return jnp.moveaxis(blank(actions.features(layout, batch.action), batch.active), -2, 0)
        parameters = team(state.actors.params, batch.observation, batch.action_mask)
        return team_features(draw(key, parameters, layout, state.hyperparameters.softness), batch.active)

    algorithm = Algorithm(name, "off_policy", spec, settings, defaults, init, lambda shape: (), act, update)
    return with_running_moments(algorithm, groups)
