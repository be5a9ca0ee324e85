"""A trained team as a function of dictionaries, for environments outside of hajax."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from hajax.core.algorithm import Algorithm
from hajax.envs.base import timestep
from hajax.spaces import Box, Discrete
from hajax.spec import AgentSpec, EnvSpec, Timestep
from hajax.validation import check_known, check_number


def check_one_seed(algorithm: Algorithm, state: Any) -> None:
    """Raises ValueError if the learner state has a seed axis."""
    given, usual = (jax.tree.leaves(getattr(tree, "hyperparameters", None))[:1] for tree in (state, algorithm))
    if given and usual and jnp.ndim(given[0]) > jnp.ndim(usual[0]):  # a state of another kind may have none
        raise ValueError(
            f"state has {len(given[0])} seeds; allowed: that of one, such as jax.tree.map(lambda x: x[0], state), or "
            "trained.state() of what hajax.train returned"
        )


class Policy:
    """The actors of a learner state, for one environment or for several at a time.

        actions, memory = policy(observations, memory)

    Dictionaries are keyed by the agents' names, as in PettingZoo's parallel API.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        state: Any,
        observe: Callable[[jax.Array], jax.Array] | None = None,
        *,
        num_envs: int | None = None,
    ):
        """Makes a policy.

        Args:
            algorithm: the algorithm.
            state: the learner state, without a seed axis.
            observe: `Environment.observe` of the environment, if it has one.
            num_envs: act for so many environments at once: observations, states, masks and actions then have this
                leading axis. In all of them the same agents are active.

        Raises:
            ValueError: the state has a seed axis, or `num_envs` is not a positive number.
        """
        if num_envs is not None:
            check_number("num_envs", num_envs, 1, whole=True)
        check_one_seed(algorithm, state)
        self.algorithm = algorithm
        self.state = state
        self.num_envs = num_envs
        self._observe = observe and jax.jit(observe if num_envs is None else jax.vmap(observe))
        self._act = jax.jit(algorithm.act, static_argnums=4)

    @property
    def spec(self) -> EnvSpec:
        """The specification of the environment that the policy was trained for."""
        return self.algorithm.spec

    def initial_memory(self) -> Any:
        """The actors' memory at the start of an episode; empty for feed-forward policies."""
        return self.algorithm.initial_memory(() if self.num_envs is None else (self.num_envs,))

    def __call__(
        self,
        observations: Mapping[str, ArrayLike] | None = None,
        memory: Any = None,
        state: ArrayLike | None = None,
        action_mask: Mapping[str, Any] | None = None,
        key: jax.Array | None = None,
    ) -> tuple[dict[str, Any], Any]:
        """Native actions of the agents that have an observation, and the memory for the next step.

        With `num_envs` every array below has that leading axis, and so have the actions.

        Args:
            observations: each agent's observation, in its natural shape or flat. Agents without one are inactive and
                have no action. `None` if observations are functions of the whole `state`, as in MAMuJoCo with
                `obs=full`: `policy(memory=memory, state=env.state())`.
            memory: the memory of the previous step; `initial_memory()` or `None` at the start of an episode.
            state: the critic's state `[S]` (`[N, S]` if there is a state per agent), for algorithms whose actors use
                it. Without observations, the whole state of the other environment.
            action_mask: for each agent an array that is true for available choices (for MultiDiscrete one array per
                component, or their concatenation). By default all choices are available.
            key: the key of sampled actions. By default the most likely actions are taken.

        Returns:
            Actions by agent (`int` for Discrete, `int64 [D]` for MultiDiscrete, `float32 [D]` within its bounds for
            Box), and the new memory.

        Raises:
            ValueError: an agent is unknown, an observation, state or mask has the wrong size, or there are no
                observations.
        """
        spec = self.spec
        if observations is None:
            observations, state = self._seen(state), None
        shown = self._timestep(observations, state, action_mask or {})
        memory = self.initial_memory() if memory is None else memory
        deterministic = key is None
        action, _, memory = self._act(
            jax.random.key(0) if key is None else key, self.state, shown, memory, deterministic
        )
        by_agent = zip(spec.agents, np.moveaxis(np.asarray(action), -2, 0), strict=True)  # [N, …, D]
        return {agent.name: _native(agent, own) for agent, own in by_agent if agent.name in observations}, memory

    def _seen(self, state: ArrayLike | None) -> dict[str, np.ndarray]:
        """The agents' observations as functions of the whole state."""
        if self._observe is None or state is None:
            given = "no state" if state is None else f"a state; {self.spec.name} does not say what agents observe of it"
            raise ValueError(f"observations=None, and {given}; allowed: each agent's observation by its name")
        every = np.asarray(self._observe(jnp.asarray(self._flat("state", state))))
        return {agent.name: every[..., i, : agent.observation_size] for i, agent in enumerate(self.spec.agents)}

    def _timestep(
        self, observations: Mapping[str, ArrayLike], state: ArrayLike | None, masks: Mapping[str, Any]
    ) -> Timestep:
        spec, lead = self.spec, self._lead
        names = [agent.name for agent in spec.agents]
        for name in [*observations, *masks]:
            check_known("agent", name, names)
        observation = np.zeros((*lead, spec.num_agents, spec.observation_size), np.result_type(float))
        layout = spec.action_layout.choices
        available = np.array(np.broadcast_to(layout, (*lead, *layout.shape)))
        for i, agent in enumerate(spec.agents):
            if agent.name in observations:
                size = agent.observation_size
                own = self._flat(f"observation of {agent.name}", observations[agent.name], size)
                observation[..., i, :size] = own
            if agent.name in masks:
                self._mask(available[..., i, :, :], agent, masks[agent.name])
        shape = (*lead, *spec.state_shape)
        critic_state = np.zeros(shape) if state is None else self._flat("state", state, math.prod(spec.state_shape))
        return timestep(
            spec,
            jnp.asarray(observation),
            jnp.asarray(critic_state.reshape(shape)),
            action_mask=jnp.asarray(available),
            active=jnp.broadcast_to(jnp.array([name in observations for name in names]), (*lead, len(names))),
        )

    @property
    def _lead(self) -> tuple[int, ...]:
        """The axes of arrays before those of one environment."""
        return () if self.num_envs is None else (self.num_envs,)

    def _flat(self, what: str, given: ArrayLike, size: int | None = None) -> np.ndarray:
        """The numbers of every environment in one row. Raises ValueError for another number of them."""
        array, lead = np.asarray(given), self._lead
        if array.shape[: len(lead)] != lead:
            raise ValueError(f"{what} has shape {array.shape}; allowed: ({self.num_envs}, …), for num_envs")
        flat = array.reshape(*lead, -1).astype(float)
        if size is not None and flat.shape[-1] != size:
            raise ValueError(f"{what} has {flat.shape[-1]} entries; allowed: {size}")
        return flat

    def _mask(self, available: np.ndarray, agent: AgentSpec, mask: Any) -> None:
        """Leaves in an agent's choices, bool `[…, D, C]`, those that its mask allows."""
        what, choices = f"action_mask of {agent.name}", agent.action_space.choices
        parts = [self._flat(what, part) for part in (mask if isinstance(mask, tuple | list) else [mask])]
        flat = np.concatenate(parts, axis=-1).astype(bool)
        if flat.shape[-1] != sum(choices):
            raise ValueError(f"{what} has {flat.shape[-1]} entries; allowed: {sum(choices)}")
        ends = np.cumsum(choices)
        for d, (end, n) in enumerate(zip(ends, choices, strict=True)):
            part = flat[..., end - n : end]
            if not part.any(-1).all():
                raise ValueError(f"{what} leaves no choice; allowed: at least one that is available")
            available[..., d, :n] = part


def _native(agent: AgentSpec, action: np.ndarray) -> Any:
    """The action as an element of the agent's action space, or several with a leading axis."""
    space = agent.action_space
    own = action[..., : space.num_components]
    if isinstance(space, Discrete):
        return int(own[0]) if own.ndim == 1 else own[..., 0].astype(np.int64)
    if isinstance(space, Box):
        return np.clip(own, space.low, space.high).astype(np.float32)
    return own.astype(np.int64)
