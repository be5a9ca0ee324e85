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
from hajax.spec import ActionLayout, AgentSpec, EnvSpec, Timestep
from hajax.validation import check_known, check_number


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
        """
        if num_envs is not None:
            check_number("num_envs", num_envs, 1, whole=True)
        self.algorithm = algorithm
        self.state = state
        self.num_envs = num_envs
        self._observe = observe and jax.jit(observe)
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
        see = self._shown if self.num_envs is None else self._shown_to_all
        names, shown = see(observations, state, action_mask or {})
        memory = self.initial_memory() if memory is None else memory
        deterministic = key is None
        action, _, memory = self._act(
            jax.random.key(0) if key is None else key, self.state, shown, memory, deterministic
        )
        by_agent = zip(spec.agents, np.moveaxis(np.asarray(action), -2, 0), strict=True)  # [N, …, D]
        return {agent.name: _native(agent, own) for agent, own in by_agent if agent.name in names}, memory

    def _shown_to_all(self, *given: Any) -> tuple[tuple[str, ...], Timestep]:
        """As `_shown`, of several environments."""
        for path, array in jax.tree_util.tree_leaves_with_path(given):
            if np.shape(array)[:1] != (self.num_envs,):
                what, *agent = [str(getattr(key, "key", getattr(key, "idx", ""))) for key in path[:2]]
                name = " of ".join([("observation", "state", "action_mask")[int(what)], *agent])
                raise ValueError(f"{name} has shape {np.shape(array)}; allowed: ({self.num_envs}, …), for num_envs")
        rows = [self._shown(*jax.tree.map(lambda x, k=k: np.asarray(x)[k], given)) for k in range(self.num_envs or 0)]
        return rows[0][0], jax.tree.map(lambda *x: jnp.stack(x), *(timestep for _, timestep in rows))

    def _shown(
        self, observations: Mapping[str, ArrayLike] | None, state: ArrayLike | None, masks: Mapping[str, Any]
    ) -> tuple[tuple[str, ...], Timestep]:
        """The active agents' names, and what all see in one environment."""
        if observations is None:
            observations, state = self._seen(state), None
        return tuple(observations), self._timestep(observations, state, masks)

    def _seen(self, state: ArrayLike | None) -> dict[str, np.ndarray]:
        """The agents' observations as functions of the whole state."""
        if self._observe is None or state is None:
            given = "no state" if state is None else f"a state; {self.spec.name} does not say what agents observe of it"
            raise ValueError(f"observations=None, and {given}; allowed: each agent's observation by its name")
        rows = zip(self.spec.agents, np.asarray(self._observe(jnp.ravel(jnp.asarray(state, float)))), strict=True)
        return {agent.name: row[: agent.observation_size] for agent, row in rows}

    def _timestep(
        self, observations: Mapping[str, ArrayLike], state: ArrayLike | None, masks: Mapping[str, Any]
    ) -> Timestep:
        spec = self.spec
        names = [agent.name for agent in spec.agents]
        for name in [*observations, *masks]:
            check_known("agent", name, names)
        observation = np.zeros((spec.num_agents, spec.observation_size), np.result_type(float))
        available = np.array(spec.action_layout.choices)
        for i, agent in enumerate(spec.agents):
            if agent.name in observations:
                own = np.ravel(np.asarray(observations[agent.name], float))
                _check_size(f"observation of {agent.name}", own, agent.observation_size)
                observation[i, : own.size] = own
            if agent.name in masks:
                available[i] = _available(agent, masks[agent.name], spec.action_layout, i)
        critic_state = np.zeros(spec.state_shape) if state is None else np.asarray(state, float)
        _check_size("state", critic_state, math.prod(spec.state_shape))
        return timestep(
            spec,
            jnp.asarray(observation),
            jnp.asarray(critic_state.reshape(spec.state_shape)),
            action_mask=jnp.asarray(available),
            active=jnp.array([name in observations for name in names]),
        )


def _available(agent: AgentSpec, mask: Any, layout: ActionLayout, index: int) -> np.ndarray:
    """The choices of an agent that its mask allows, bool `[D, C]`."""
    exists = np.array(layout.choices[index])
    choices = agent.action_space.choices
    flat = np.concatenate([np.ravel(part) for part in mask]) if isinstance(mask, tuple | list) else np.ravel(mask)
    _check_size(f"action_mask of {agent.name}", flat, sum(choices))
    ends = np.cumsum(choices)
    for d, (end, n) in enumerate(zip(ends, choices, strict=True)):
        part = flat[end - n : end].astype(bool)
        if not part.any():
            raise ValueError(f"action_mask of {agent.name} leaves no choice; allowed: at least one that is available")
        exists[d, :n] = part
    return exists


def _check_size(what: str, array: np.ndarray, size: int) -> None:
    if array.size != size:
        raise ValueError(f"{what} has {array.size} entries; allowed: {size}")


def _native(agent: AgentSpec, action: np.ndarray) -> Any:
    """The action as an element of the agent's action space, or several with a leading axis."""
    space = agent.action_space
    own = action[..., : space.num_components]
    if isinstance(space, Discrete):
        return int(own[0]) if own.ndim == 1 else own[..., 0].astype(np.int64)
    if isinstance(space, Box):
        return np.clip(own, space.low, space.high).astype(np.float32)
    return own.astype(np.int64)
