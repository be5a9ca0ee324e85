"""Double Q-learning for teams: a dueling critic of the joint action, and every agent's own values of its part of it."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.core import off_policy
from hajax.core.actors import policy_torso
from hajax.core.advantages import weighted_mean
from hajax.core.algorithm import Algorithm
from hajax.core.choices import MOST_CHOICES, MOST_JOINT_CHOICES, TeamChoices, unlisted
from hajax.core.groups import make_groups
from hajax.core.inactive import blank
from hajax.core.observation_moments import with_running_moments
from hajax.core.off_policy import GroupSamples, Info, OffPolicyState
from hajax.core.off_policy_settings import DoubleQHyperparameters, DoubleQSettings
from hajax.core.optimization import Learner, decayed, descend, init_learner
from hajax.core.own_values import OwnValues, ValueTables, best, make_dueling
from hajax.core.transitions import OffPolicyBatch
from hajax.nn.dueling import Dueling, action_values
from hajax.nn.networks import init_params
from hajax.spec import EnvSpec, Timestep


@dataclasses.dataclass(frozen=True)
class JointValues:
    """Static description of the critic: a dueling network from the state to the values of all J joint choices.

    Parameters are stacked `[1, 1, …]`, one critic of one copy. The numbers of a team's choices, `[N, B, 1]`, are its
    joint action.
    """

    spec: EnvSpec
    choices: TeamChoices
    module: Dueling

    def init(self, key: jax.Array) -> Any:
        params = init_params(self.module, key, jnp.zeros(self.spec.state_size))
        return jax.tree.map(lambda x: x[None, None], params)

    def table(self, params: Any, state: jax.Array) -> jax.Array:
        """Q(s, ·) `[B, J]`."""
        return action_values(self.module, params, state)

    def value(self, params: Any, state: jax.Array, joint: jax.Array) -> jax.Array:
        """Q(s, a) `[B]`."""
        number = self.choices.joint(joint[..., 0])
        return jnp.take_along_axis(self.table(params, state), number[:, None], -1, mode="clip")[:, 0]


def double_q_learning(
    name: str,
    spec: EnvSpec,
    settings: DoubleQSettings,
    hyperparameters: DoubleQHyperparameters,
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """The algorithm for a team whose joint choices are few enough for a value each.

    The joint critic regresses on the double-Q target: the agents' own values say what they would do, the critic's
    target what that is worth,

        y = Σ_{j<k} γʲ rʲ + γᵏ (1 − terminated) Q′(s′, a′),   a′ⁱ = argmax_a qⁱ(o′ⁱ, a),

    with target φ′ ← τ φ + (1 − τ) φ′. Agents update one after another, in the settings' order, by `epochs` gradient
    steps. Agent i_m regresses its own values of all its choices on the critic's,

        E[mean over a of (q^{i_m}(o^{i_m}, a) − Q(s, a_new^{i_1:m-1}, a, a^{i_m+1:n}))²],

    in which the agents before it already take their new best choices, and those after it their current best
    (`others="policy"`) or the replay's (`others="replay"`). What cannot be seen averages out, so that the best of its
    own values is its best reply given what it sees. Choices that are not available have no part in any of this.

    Args:
      name: what the algorithm calls itself, in results and errors.
      spec: the environment's specification; all actions are discrete.
      settings, hyperparameters: the static settings, and the default numbers, which `init` may replace.
      actor, critic: flax modules used as torsos instead of the MLP, from `x` `[…, O]` (the critic: the state, `[…, S]`)
        to features `[…, H]`; see `core.haml.haml`.

    Raises:
      ValueError: a number is out of range, an agent has a Box or too many choices, the team has too many joint choices,
        agents cannot share parameters, the reward is of the wrong kind, or every agent has a state of its own.
    """
    off_policy.check_spec(name, spec, per_agent_critics=False)
    choices = team_choices(name, spec)
    if choices.num_joint > MOST_JOINT_CHOICES:
        counts = " x ".join(map(str, choices.counts))
        raise ValueError(
            f"{name} has a value for each of the team's {counts} = {choices.num_joint} joint choices; allowed: at most "
            f"{MOST_JOINT_CHOICES} (algo=id3qn has none)"
        )
    hyperparameters.validate()
    own = OwnValues(spec, make_groups(spec, settings.sharing), choices, policy_torso(spec, settings, actor), settings)
    critic = settings.torso("critic", critic, spec.state_size)
    critics = JointValues(spec, choices, make_dueling(settings, critic, choices.num_joint))
    defaults = hyperparameters

    def init(key: jax.Array, hyperparameters: Any = None) -> OffPolicyState:
        numbers = defaults if hyperparameters is None else hyperparameters
        numbers.validate()
        actor_key, critic_key = jax.random.split(key)
        values = critics.init(critic_key)
        return OffPolicyState(
            actors=jax.vmap(init_learner)(own.init(actor_key)),
            critics=jax.vmap(jax.vmap(init_learner))(values),
            target_actors=None,
            target_critics=values,
            updates=jnp.zeros((), int),
            hyperparameters=jax.tree.map(lambda x: jnp.asarray(x, float), numbers),
        )

    def target_values(state: OffPolicyState, key: jax.Array, batch: OffPolicyBatch) -> jax.Array:
        """Q′(s′, a′) `[1, B]` of where the transitions led."""
        joint = own.greedy(state.actors.params, batch.final_observation, batch.final_action_mask)
        joint = blank(joint, batch.final_active)
        params = jax.tree.map(lambda x: x[0, 0], state.target_critics)
        return critics.value(params, batch.final_state, joint.T[..., None])[None]

    def update(key: jax.Array, state: OffPolicyState, batch: OffPolicyBatch) -> tuple[OffPolicyState, Info]:
        numbers = state.hyperparameters
        actor_key, *critic_keys = jax.random.split(key, 1 + settings.policy_delay)
        critic_rate, actor_rate = (
            decayed(rate, state.updates, numbers.decay_updates) for rate in (numbers.critic_lr, numbers.actor_lr)
        )
        taken = choices.number(batch.action)  # [P, B, N]
        learners, critic_info = off_policy.fit_critics(
            critics,
            state.critics,
            batch,
            jnp.moveaxis(taken, -1, 1)[..., None],
            functools.partial(target_values, state),
            jnp.stack(critic_keys),
            critic_rate,
            numbers,
        )
        last = jax.tree.map(lambda x: x[-1], batch)
        table = critics.table(jax.tree.map(lambda x: x[0, 0], learners.params), last.state)

        def improve(key: jax.Array, tables: ValueTables, learner: Learner, samples: GroupSamples, joint: jax.Array):
            of_member = jax.vmap(choices.along, in_axes=(None, None, 0))
            wanted = of_member(table, joint[..., 0], samples.place)  # [K, B, M]
            available = jnp.broadcast_to(own.available(tables, samples.action_mask), wanted.shape)

            def values(params):
                return own.values(params, tables, samples.observation)

            def loss(params):
                error = jnp.mean(jnp.square(wanted - values(params)), -1, where=available)
                return weighted_mean(error, samples.weight)

            rates = (actor_rate, numbers.max_grad_norm, numbers.adam_eps)
            learner, info = descend(learner, loss, settings.epochs, *rates)
            return learner, best(values(learner.params), available)[..., None], info

        if settings.others == "replay":
            before = taken[-1]
        else:
            before = own.greedy(state.actors.params, last.observation, last.action_mask)
        policies, actor_info = off_policy.improve_in_sequence(
            actor_key,
            own,
            settings.order,
            state.actors,
            off_policy.group_samples(own, last),
            blank(before, last.active).T[..., None],
            improve,
        )
        state = state._replace(
            actors=policies,
            critics=learners,
            target_critics=off_policy.polyak_average(state.target_critics, learners.params, numbers.target_rate),
            updates=state.updates + 1,
        )
        return state, actor_info | critic_info

    algorithm = Algorithm(
        name, "off_policy", spec, settings, defaults, init, lambda shape: (), epsilon_greedy(own), update
    )
    return with_running_moments(algorithm, own.groups)


def team_choices(name: str, spec: EnvSpec) -> TeamChoices:
    """The team's choices; ValueError if they do not suit an algorithm with values for all of them."""
    if reason := unlisted(spec, range(spec.num_agents)):
        raise ValueError(
            f"{name} has a value for every choice of an agent, but {reason}; allowed: discrete actions, at most "
            f"{MOST_CHOICES} joint choices of an agent"
        )
    return TeamChoices(spec)


def epsilon_greedy(own: OwnValues):
    """`Algorithm.act` of policies that take the best of their own values, and in training any with probability ε."""

    def act(key: jax.Array, state: OffPolicyState, timestep: Timestep, memory: Any, deterministic: bool = False):
        params = state.actors.params
        if deterministic:
            number = own.greedy(params, timestep.observation, timestep.action_mask)
        else:
            number = own.epsilon_greedy(key, params, state.hyperparameters.epsilon, timestep)
        return own.choices.action(number), (), memory

    return act
