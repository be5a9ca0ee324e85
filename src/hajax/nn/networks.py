"""Flax networks of actors and critics: a torso (yours or the MLP) and a head that takes padding into account."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.nn.distributions import ActionParameters, mask_logits
from hajax.nn.initializers import orthogonal
from hajax.nn.layers import dense
from hajax.nn.memory import NO_MEMORY, NOTHING, BaseMemory, MemoryInput
from hajax.spec import ActionLayout

StdKind = Literal["parameter", "network", "none"]
LOG_STD_RANGE = (-20.0, 2.0)


def apply_torso(torso: nn.Module, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """`torso(x, mask=mask)` if `__call__` has a parameter `mask`, else `torso(x)`. Padded entries of `x` are zeros."""
    takes_mask = "mask" in inspect.signature(type(torso).__call__).parameters
    return torso(x, mask=mask) if takes_mask else torso(x)


class Actor(nn.Module):
    """A torso, an optional memory, and the action head: observations `[…, O]` to `ActionParameters` and the new memory.

    Observations are single steps or sequences `[…, L, O]`; the shapes of `memory_input` decide which.

    Discrete components have logits (−inf where unavailable). Box components have a mean from the network. Their
    standard deviation depends on `std`: `"parameter"` is `std_scale · sigmoid(log_std)`, independent of the
    observation, with `log_std` initialized to 1, as in HARL; `"network"` is e^l with l from the network, clipped to
    [−20, 2]; `"none"` has no standard deviation.
    """

    torso: nn.Module
    num_components: int
    num_choices: int
    has_discrete: bool
    has_continuous: bool
    equal_choices: bool = False  # every component has all C choices, so only an action mask makes one unavailable
    output_gain: float = 0.01
    std: StdKind = "parameter"
    std_scale: float = 0.5
    memory: BaseMemory = NO_MEMORY
    preserve_adopted_names = True  # a memory with a name keeps it

    @nn.compact
    def __call__(
        self,
        observation: jax.Array,
        observation_mask: jax.Array | None,
        layout: ActionLayout,
        action_mask: jax.Array | None = None,
        memory_input: MemoryInput = NOTHING,
    ) -> tuple[ActionParameters, Any]:
        features, memory = self.memory(apply_torso(self.torso, observation, observation_mask), memory_input)
        head_init = orthogonal(self.output_gain)
        logits = mean = std = None
        if self.has_discrete:
            width = self.num_components * self.num_choices
            logits = dense(width, head_init, features, "logits")
            logits = logits.reshape(*logits.shape[:-1], self.num_components, self.num_choices)
            if action_mask is not None or not self.equal_choices:
                logits = mask_logits(logits, available_choices(layout, action_mask))
        if self.has_continuous:
            mean = dense(self.num_components, head_init, features, "mean")
            if self.std == "parameter":
                log_std = self.param("log_std", nn.initializers.ones, (self.num_components,), mean.dtype)
                std = jnp.broadcast_to(self.std_scale * nn.sigmoid(log_std), mean.shape)
            elif self.std == "network":
                std = jnp.exp(jnp.clip(dense(self.num_components, head_init, features, "log_std"), *LOG_STD_RANGE))
        return ActionParameters(logits, mean, std), memory


def available_choices(layout: ActionLayout, action_mask: jax.Array | None) -> jax.Array:
    """The choices that exist and that the action mask allows, bool `[…, D, C]`.

    The mask is ignored for components that are not discrete. If it excludes all choices of a component (of an inactive
    agent in some environments) it is ignored too, because a categorical without choices is NaN.
    """
    choices = jnp.asarray(layout.choices)
    if action_mask is None:
        return choices
    allowed = choices & action_mask
    usable = jnp.asarray(layout.discrete) & allowed.any(-1)
    return jnp.where(usable[..., None], allowed, choices)


class Critic(nn.Module):
    """A torso, an optional memory, and a linear output: `x […, S]` to values `[…]` and the new memory, as `Actor`."""

    torso: nn.Module
    memory: BaseMemory = NO_MEMORY
    preserve_adopted_names = True  # a memory with a name keeps it

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array | None = None, memory_input: MemoryInput = NOTHING
    ) -> tuple[jax.Array, Any]:
        features, memory = self.memory(apply_torso(self.torso, x, mask), memory_input)
        return dense(1, orthogonal(1.0), features, "value")[..., 0], memory


class TeamCritic(nn.Module):
    """The base class of a critic of the whole team, used in place of a torso. A subclass defines `__call__`.

    `reads` names the arguments of `__call__`, in order:

    - `state` `[…, S]`: the environment's state for critics (`[…, N, S]` if there is a state per agent);
    - `observation` `[…, N, O]`: the agents' observations, zeros where padded or inactive;
    - `action` `[…, N, F]`: the features of the agents' actions, zeros where padded or inactive. A discrete component
      is one-hot over its choices; a Box component is in units in which its bounds are ±1. Not available to critics of
      state values;
    - `active` bool `[…, N]`: the agent is active.

    `__call__` returns values `[…]` for any batch axes.
    """

    reads: ClassVar[tuple[str, ...]] = ("state",)


class JointCritic(TeamCritic):
    """A torso and a linear output, on the concatenated state and actions of all agents."""

    torso: nn.Module
    columns: tuple[int, ...] | None = None  # the entries of `action`, flattened, that agents have; None: all
    reads = ("state", "action")

    @nn.compact
    def __call__(self, state: jax.Array, action: jax.Array) -> jax.Array:
        rows = action.reshape(*action.shape[:-2], -1)
        own = rows if self.columns is None else rows[..., jnp.array(self.columns, int)]
        features = apply_torso(self.torso, jnp.concatenate([state, own.astype(state.dtype)], -1), None)
        return dense(1, orthogonal(1.0), features, "value")[..., 0]


def init_params(module: nn.Module, key: jax.Array, *inputs: Any) -> Any:
    """The module's initial parameters, its `params` collection."""
    return module.init(key, *inputs)["params"]
