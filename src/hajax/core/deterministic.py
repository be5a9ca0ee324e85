"""Deterministic policy gradients for teams: HADDPG, HATD3, and their multi-agent baselines."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.core import off_policy
from hajax.core.actors import GroupTables, TeamActors, policy_torso
from hajax.core.algorithm import Algorithm
from hajax.core.groups import make_groups
from hajax.core.inactive import blank
from hajax.core.joint_actions import JointActions
from hajax.core.joint_critics import ActionValues
from hajax.core.observation_moments import with_running_moments
from hajax.core.off_policy import GroupActor, GroupSamples, Info, OffPolicyState
from hajax.core.off_policy_settings import DeterministicHyperparameters, DeterministicSettings
from hajax.core.optimization import Learner, decayed, descend, init_learner
from hajax.core.transitions import OffPolicyBatch
from hajax.nn.squashing import clip_to_bounds, native, squashed_mean
from hajax.spaces import Box
from hajax.spec import EnvSpec, Timestep


def deterministic_policy_gradient(
    name: str,
    spec: EnvSpec,
    settings: DeterministicSettings,
    hyperparameters: DeterministicHyperparameters,
    *,
    twin: bool,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """The algorithm with single critics (DDPG) or twin critics and noise on the target policies' actions (TD3).

    Agents update one after another, in the settings' order. Agent i_m ascends

        E[Q(s, μ_new^{i_1:m-1}(o), μ^{i_m}(o^{i_m}), a^{i_m+1:n})]

    for `epochs` steps, in which the later agents' actions are the replay's (`others="replay"`) or their current
    policies'. The critics regress on Σ_{j<k} γʲ rʲ + γᵏ (1 − terminated) Q′(s′, μ′(o′)), with targets
    φ′ ← τ φ + (1 − τ) φ′. An update is `policy_delay` steps of the critics, each on a minibatch of its own, one of the
    actors on the last of these, and one of the targets. A policy's output is squashed by tanh where an action is
    bounded.

    Args:
      name: what the algorithm calls itself, in results and errors.
      spec: the environment's specification; every action must be a Box.
      settings, hyperparameters: the static settings, and the default numbers, which `init` may replace.
      twin: whether the smaller of two critics' values makes the targets, with noise on the target actions.
      actor, critic: flax modules used as torsos instead of the MLP, from `x` `[…, O]` (the critic: the state and the
        joint action's features, `[…, S + A]`) to features `[…, H]`; see `core.haml.haml`.

    Raises:
      ValueError: a number is out of range, an action is not a Box, agents cannot share parameters, the reward is of the
        wrong kind, or every agent has a state of its own.
    """
    for agent in spec.agents:
        if not isinstance(agent.action_space, Box):
            raise ValueError(
                f"action_space={agent.action_space} of {agent.name} does not suit {name}, whose policies are "
                "deterministic; allowed: Box"
            )
    off_policy.check_spec(name, spec, settings.per_agent_critics)
    hyperparameters.validate()
    groups, actions = make_groups(spec, settings.sharing), JointActions(spec)
    actor = policy_torso(spec, settings, actor)
    critic = settings.torso("critic", critic, spec.state_size + actions.size)
    actors = TeamActors(spec, groups, actor, settings.agent_id, True, settings.output_gain, std="none")
    critics = ActionValues(spec, actions, critic, settings.per_agent_critics, copies=2 if twin else 1)
    layout, defaults = actors.layout, hyperparameters

    def init(key: jax.Array, hyperparameters: Any = None) -> OffPolicyState:
        numbers = defaults if hyperparameters is None else hyperparameters
        numbers.validate()
        actor_key, critic_key = jax.random.split(key)
        policies, values = actors.init(actor_key), critics.init(critic_key)
        return OffPolicyState(
            actors=jax.vmap(init_learner)(policies),
            critics=jax.vmap(jax.vmap(init_learner))(values),
            target_actors=policies,
            target_critics=values,
            updates=jnp.zeros((), int),
            hyperparameters=jax.tree.map(lambda x: jnp.asarray(x, float), numbers),
        )

    def team_action(params: Any, observation: jax.Array) -> jax.Array:
        """What the policies do, `[…, N, D]`, in units in which bounds are ±1."""
        return squashed_mean(layout, actors.team_distribution(params, None, observation, None)[0])

    def initial_memory(batch_shape: tuple[int, ...]) -> Any:
        """The noise of the step before, if it is a process."""
        shape = (*batch_shape, spec.num_agents, spec.num_components)
        return jnp.zeros(shape) if settings.exploration == "ou" else ()

    def act(key: jax.Array, state: OffPolicyState, timestep: Timestep, memory: Any, deterministic: bool = False):
        u = team_action(state.actors.params, timestep.observation)
        if not deterministic:
            numbers = state.hyperparameters
            noise = numbers.exploration_noise * jax.random.normal(key, u.shape, u.dtype)
            if settings.exploration == "ou":
                before = jnp.where(timestep.first[..., None, None], 0, memory)
                memory = noise = (1 - numbers.ou_rate) * before + noise
            u = clip_to_bounds(layout, u + noise)
        return native(layout, u), (), memory

    def target_values(state: OffPolicyState, key: jax.Array, batch: OffPolicyBatch) -> jax.Array:
        """Q′(s′, μ′(o′)) `[V, B]` of where the transitions led."""
        u = team_action(state.target_actors, batch.final_observation)
        if twin:
            numbers = state.hyperparameters
            noise = numbers.target_noise * jax.random.normal(key, u.shape, u.dtype)
            noise = jnp.clip(noise, -numbers.target_noise_clip, numbers.target_noise_clip)
            u = clip_to_bounds(layout, u + noise)
        joint = blank(actions.join(layout, None, u), batch.final_active)
        return critics.values(state.target_critics, batch.final_state, jnp.moveaxis(joint, -2, 0)).min(1)

    def update(key: jax.Array, state: OffPolicyState, batch: OffPolicyBatch) -> tuple[OffPolicyState, Info]:
        numbers = state.hyperparameters
        actor_key, *critic_keys = jax.random.split(key, 1 + settings.policy_delay)
        critic_rate, actor_rate = (
            decayed(rate, state.updates, numbers.decay_updates) for rate in (numbers.critic_lr, numbers.actor_lr)
        )

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
        first_copy = jax.tree.map(lambda x: x[:, 0], learners.params)

        def improve(key: jax.Array, tables: GroupTables, learner: Learner, samples: GroupSamples, joint: jax.Array):
            actor, own_layout = GroupActor(actors, tables), tables.layout

            def features(params):
                return actions.join(own_layout, None, squashed_mean(own_layout, actor.distribution(params, samples)))

            def loss(params):
                return -off_policy.judge(critics, first_copy, last.state, joint, samples, features(params))

            rates = (actor_rate, numbers.max_grad_norm, numbers.adam_eps)
            learner, info = descend(learner, loss, settings.epochs, *rates)
            return learner, features(learner.params), info

        if settings.others == "replay":
            before = actions.features(layout, last.action)
        else:
            before = actions.join(layout, None, team_action(state.actors.params, last.observation))
        policies, actor_info = off_policy.improve_in_sequence(
            actor_key,
            actors,
            settings.order,
            state.actors,
            off_policy.group_samples(actors, last),
            jnp.moveaxis(blank(before, last.active), -2, 0),
            improve,
        )
        state = state._replace(
            actors=policies,
            critics=learners,
            target_actors=off_policy.polyak_average(state.target_actors, policies.params, numbers.target_rate),
            target_critics=off_policy.polyak_average(state.target_critics, learners.params, numbers.target_rate),
            updates=state.updates + 1,
        )
        return state, actor_info | critic_info

    algorithm = Algorithm(name, "off_policy", spec, settings, defaults, init, initial_memory, act, update)
    return with_running_moments(algorithm, groups)
