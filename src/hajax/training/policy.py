"""A trained team as a function of dictionaries, to act in environments that know nothing of hajax."""

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
from hajax.validation import check_known


class Policy:
    """The actors of an algorithm's state, for one environment at a time.

        actions, memory = policy(observations, memory)

    Dictionaries are keyed by the agents' names, as in PettingZoo's parallel API, which a policy drives directly.
    """

    def __init__(self, algorithm: Algorithm, state: Any, observe: Callable[[jax.Array], jax.Array] | None = None):
        """`state` is what `algorithm.init` or `algorithm.update` returned, without a seed axis.

        `observe` is the environment's, if it has one: what all agents observe, given the whole state.
        """
        self.algorithm = algorithm
        self.state = state
        self._observe = observe and jax.jit(observe)
        self._act = jax.jit(algorithm.act, static_argnums=4)

    @property
    def spec(self) -> EnvSpec:
        """The environment's specification that the policy was trained for: its agents and their spaces."""
        return self.algorithm.spec

    def initial_memory(self) -> Any:
        """What the actors remember at the start of an episode; empty for feed-forward policies."""
        return self.algorithm.initial_memory(())

    def __call__(
        self,
        observations: Mapping[str, ArrayLike] | None = None,
        memory: Any = None,
        state: ArrayLike | None = None,
        action_mask: Mapping[str, Any] | None = None,
        key: jax.Array | None = None,
    ) -> tuple[dict[str, Any], Any]:
        """Native actions of the agents that observe something, and the memory for the next step.

        Args:
            observations: an agent's observation in its natural shape, or flat. An agent that is absent (dead, or not
                yet there) gets no action. `None` where agents observe what follows from the whole `state`, as in
                MAMuJoCo with `obs=full`: `policy(memory=memory, state=env.state())`.
            memory: of the step before; at the start of an episode `initial_memory()`, or nothing.
            state: the critic's state `[S]` (`[N, S]` if every agent has its own), for algorithms whose actors use it;
                without observations, the whole state as the other environment shows it.
            action_mask: per agent, an entry per choice that is true where it is available (for MultiDiscrete, one such
                array per component, or all of them end to end). Without it every choice is.
            key: for a random action; without it the most probable one.

        Returns:
            Actions: an `int` for Discrete, `int64 [D]` for MultiDiscrete, `float32 [D]` within its bounds for Box.

        Raises:
            ValueError: an unknown agent, an observation, state or mask of the wrong size, or nothing to observe.
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
        rows = zip(spec.agents, np.asarray(action), strict=True)
        return {agent.name: _native(agent, row) for agent, row in rows if agent.name in observations}, memory

    def _seen(self, state: ArrayLike | None) -> dict[str, np.ndarray]:
        """What the agents observe, of the whole state."""
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
    """bool `[D, C]`: the choices that a mask leaves to the agent."""
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
    """The agent's action in its own space."""
    space = agent.action_space
    own = action[: space.num_components]
    if isinstance(space, Discrete):
        return int(own[0])
    if isinstance(space, Box):
        return np.clip(own, space.low, space.high).astype(np.float32)
    return own.astype(np.int64)
