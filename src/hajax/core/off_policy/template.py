"""The off-policy template: critics are fitted to targets, then policies are improved one after another.

An algorithm is defined by its `Parts`: policies, critics and their target values, an objective per group, and a
neighborhood. See `deterministic.py`, `mehaml.py`, `double_q.py`, `counterfactual.py`, `mirror_descent.py` and
`decomposition.py`.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hajax.core.algorithm import Algorithm
from hajax.core.batches import OffPolicyBatch
from hajax.core.neighborhoods import Objective
from hajax.core.observation_moments import ObservationMoments, with_running_moments
from hajax.core.off_policy.joint_critics import check_minibatches, fit_critics
from hajax.core.off_policy.joint_sequence import Info, OffPolicySamples, group_samples, improve_in_sequence
from hajax.core.optimization import Learner, actor_rate, decayed, init_learner, polyak_average
from hajax.core.settings import as_arrays
from hajax.spec import EnvSpec, Timestep


class OffPolicyState(NamedTuple):
    """The learner state of an off-policy algorithm. It contains the hyperparameters, so a sweep is a `vmap`."""

    actors: Learner  # stacked [G, …]
    critics: Any  # a `Learner`, stacked [V, copies, …]; `None` if there are none
    target_actors: Any  # parameters, stacked [G, …]; `None` if targets use the actors themselves
    target_critics: Any  # parameters, stacked [V, copies, …]; `None` if there are none
    updates: jax.Array  # int []: the number of updates so far
    hyperparameters: Any
    temperatures: Learner | None = None  # log α of every agent, [N], if it is adapted
    moments: ObservationMoments | None = None  # if observations are normalized
    extra: Any = None  # what only the algorithm's parts read, for example an old policy


# `(tables, joint, samples) -> objective` of one group, from its slice of `policies.tables`, the joint action [B, N, F]
# that it sees, and its samples.
ObjectiveOfGroup = Callable[[Any, jax.Array, OffPolicySamples], Objective]


class Parts(ABC):
    """The parts of an off-policy algorithm. Subclasses are frozen dataclasses. A `minibatch` has rows `[B, …]`."""

    policies: Any  # `Policies`: `TeamActors` or `OwnValues`
    critics: Any  # `Critics`; `None` if there are none
    settings: Any
    neighborhood: Any  # a `Neighborhood`
    has_target_actors: ClassVar[bool] = False
    stochastic: ClassVar[bool] = False  # whether `actions` samples and needs a key

    def check(self, hyperparameters: Any) -> None:
        """Raises ValueError unless the hyperparameters suit the settings."""
        hyperparameters.validate()

    def initial_memory(self, batch_shape: tuple[int, ...]) -> Any:
        """The initial memory of acting, such as exploration noise."""
        return ()

    @abstractmethod
    def act(self, key: jax.Array, state: OffPolicyState, timestep: Timestep, memory: Any, deterministic: bool) -> Any:
        """`(action, memory)`, as in `Algorithm.act`."""

    def common(self, state: OffPolicyState) -> dict[str, Any]:
        """The fields of the base class `GroupObjective`."""
        return {
            "settings": self.settings,
            "hyperparameters": state.hyperparameters,
            "learning_rate": actor_rate(state),
        }

    def init_temperatures(self, hyperparameters: Any) -> Learner | None:
        """The learner of the policies' temperatures; `None` if there are none or they are constant."""
        return None

    def init_extra(self, key: jax.Array, actors: Any, hyperparameters: Any) -> Any:
        """The first `extra` of the state, given the actors' parameters `[G, …]`."""
        return None

    def prepare(self, key: jax.Array, state: OffPolicyState, minibatch: OffPolicyBatch) -> tuple[OffPolicyState, Info]:
        """The beginning of an update, before critics and policies: what depends on the whole team."""
        return state, {}

    @abstractmethod
    def joint(self, batch: OffPolicyBatch) -> jax.Array:
        """The features of the batch's joint actions, `[…, N, F]`, zeros for inactive agents."""

    @abstractmethod
    def actions(self, key: jax.Array, state: OffPolicyState, minibatch: OffPolicyBatch) -> jax.Array:
        """The features `[B, N, F]` of joint actions of the current policies, zeros for inactive agents."""

    def first_joint(self, key: jax.Array, state: OffPolicyState, minibatch: OffPolicyBatch) -> jax.Array:
        """The joint actions `[B, N, F]` that the first group sees: of the replay or of the current policies."""
        if self.settings.others == "replay":
            return self.joint(minibatch)
        return self.actions(key, state, minibatch)

    @abstractmethod
    def target_values(self, state: OffPolicyState, key: jax.Array, minibatch: OffPolicyBatch) -> jax.Array:
        """The values `[V, B]` of the transitions' final states, from which targets bootstrap."""

    def samples(self, state: OffPolicyState, minibatch: OffPolicyBatch) -> OffPolicySamples:
        """The samples of all groups, `[G, K, B, …]`."""
        return group_samples(self.policies, minibatch)

    @abstractmethod
    def objective(
        self, key: jax.Array, state: OffPolicyState, minibatch: OffPolicyBatch, first: jax.Array
    ) -> ObjectiveOfGroup:
        """The function that makes one group's objective. `state` contains the updated critics.

        The first group sees the joint action `first` `[B, N, F]`, and so do all others if they are simultaneous.
        """

    @abstractmethod
    def new_actions(
        self, key: jax.Array, objective: Any, params: Any, samples: OffPolicySamples
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The features `[K, B, F]` of a group's actions by its new policy, and further info for `finish`."""

    def finish(self, state: OffPolicyState, minibatch: OffPolicyBatch, info: Info) -> tuple[OffPolicyState, Info]:
        """The end of an update, such as a step of the temperatures, given the groups' info stacked `[G]`."""
        return state, info


def make_algorithm(name: str, parts: Parts, hyperparameters: Any) -> Algorithm:
    """The algorithm with these parts.

    An update consists of `policy_delay` critic steps, each on a separate minibatch; one improvement of every policy on
    the last of these minibatches, in the order of the settings; and one step of the target networks
    φ′ ← τ φ + (1 − τ) φ′. Without critics the policies are improved on every minibatch.

    Raises:
      ValueError: a hyperparameter is out of range.
    """
    parts.check(hyperparameters)
    defaults, settings, critics, policies = hyperparameters, parts.settings, parts.critics, parts.policies

    def init(key: jax.Array, hyperparameters: Any = None) -> OffPolicyState:
        chosen = defaults if hyperparameters is None else hyperparameters
        parts.check(chosen)
        chosen = as_arrays(chosen)
        actor_key, critic_key = jax.random.split(key) if critics is not None else (key, key)
        actors = policies.init(actor_key)
        values = None if critics is None else critics.init(critic_key)
        return OffPolicyState(
            actors=jax.vmap(parts.neighborhood.init, in_axes=(0, None))(actors, chosen),
            critics=None if critics is None else jax.vmap(jax.vmap(init_learner))(values),
            target_actors=actors if parts.has_target_actors else None,
            target_critics=values,
            updates=jnp.zeros((), int),
            hyperparameters=chosen,
            temperatures=parts.init_temperatures(chosen),
            extra=parts.init_extra(jax.random.fold_in(key, 2), actors, chosen),  # `split` derives keys 0 and 1
        )

    def act(key: jax.Array, state: OffPolicyState, timestep: Timestep, memory: Any, deterministic: bool = False):
        action, memory = parts.act(key, state, timestep, memory, deterministic)
        return action, (), memory

    def fit(keys: jax.Array, state: OffPolicyState, batch: OffPolicyBatch) -> tuple[OffPolicyState, Info]:
        assert critics is not None
        rate = decayed(state.hyperparameters.critic_lr, state.updates, state.hyperparameters.decay_updates)
        target_values = functools.partial(parts.target_values, state)
        learners, info = fit_critics(
            critics, state.critics, batch, parts.joint(batch), target_values, keys, rate, state.hyperparameters
        )
        return state._replace(critics=learners), info

    def improve(
        key: jax.Array, others_key: jax.Array, state: OffPolicyState, minibatch: OffPolicyBatch
    ) -> tuple[OffPolicyState, Info]:
        neighborhood, samples = parts.neighborhood, parts.samples(state, minibatch)
        joint = parts.first_joint(others_key, state, minibatch)
        prepare_key, objective_key = (jax.random.fold_in(key, i) for i in (2, 3))  # `split` derives keys 0 and 1
        objective_of = parts.objective(objective_key, state, minibatch, joint)
        learners = neighborhood.prepared(prepare_key, state.hyperparameters, state.actors, samples)

        def improve_group(key: jax.Array, tables: Any, learner: Learner, samples: OffPolicySamples, joint: jax.Array):
            objective = objective_of(tables, joint, samples)
            improve_key, act_key = jax.random.split(key)
            learner, info = neighborhood.improve(improve_key, objective, learner, samples)
            features, further = parts.new_actions(act_key, objective, learner.params, samples)
            return learner, features, info | further

        learners, info = improve_in_sequence(key, policies, settings.order, learners, samples, joint, improve_group)
        return state._replace(actors=learners), info

    def update(key: jax.Array, state: OffPolicyState, batch: OffPolicyBatch) -> tuple[OffPolicyState, Info]:
        check_minibatches(settings.policy_delay, batch)
        last = jax.tree.map(lambda x: x[-1], batch)
        prepare_key = jax.random.fold_in(key, settings.policy_delay + 2)  # beyond the keys that `split` derives
        state, prepared = parts.prepare(prepare_key, state, last)
        if critics is None:

            def on_minibatch(state, inputs):
                return improve(inputs[0], inputs[0], state, inputs[1])

            state, info = lax.scan(on_minibatch, state, (jax.random.split(key, settings.policy_delay), batch))
            info = jax.tree.map(lambda x: x.mean(0), info)
            critic_info: Info = {}
        else:
            actor_key, *keys = jax.random.split(key, 1 + parts.stochastic + settings.policy_delay)
            others_key = keys.pop(0) if parts.stochastic else actor_key
            state, critic_info = fit(jnp.stack(keys), state, batch)
            state, info = improve(actor_key, others_key, state, last)
        state, info = parts.finish(state, last, info)
        return follow(state), info | critic_info | prepared

    def follow(state: OffPolicyState) -> OffPolicyState:
        """Moves the target networks toward the new parameters."""
        rate = state.hyperparameters.target_rate
        if parts.has_target_actors:
            state = state._replace(target_actors=polyak_average(state.target_actors, state.actors.params, rate))
        if critics is not None:
            state = state._replace(target_critics=polyak_average(state.target_critics, state.critics.params, rate))
        return state._replace(updates=state.updates + 1)

    algorithm = Algorithm(
        name, "off_policy", policies.spec, settings, defaults, init, parts.initial_memory, act, update
    )
    return with_running_moments(algorithm, policies.groups, update_first=True)


def check_spec(name: str, spec: EnvSpec, per_agent_critics: bool) -> None:
    """Raises ValueError if the kind of reward does not suit the critics, or if there is a state per agent."""
    allowed = ("team", "individual") if per_agent_critics else ("team",)
    if spec.reward not in allowed:
        raise ValueError(
            f"reward={spec.reward!r} of {spec.name} does not suit {name}, whose critic is the whole team's; "
            f"allowed: {', '.join(allowed)}"
        )
    if spec.state_per_agent:
        raise ValueError(
            f"state_per_agent=True of {spec.name} does not suit {name}, whose critics see one state of the "
            "environment; allowed: False"
        )
