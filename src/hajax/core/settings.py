"""Settings (static, they shape the compiled program) and hyperparameters (which may be traced) of algorithms.

This module defines those of all algorithms, and of neighborhoods and drifts.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from hajax.core.sequential import ORDERS
from hajax.nn.checks import check_torso
from hajax.nn.layers import ACTIVATIONS, LAYER_NORM_MIN_INPUTS, MLP
from hajax.validation import about, setting


class BaseHyperparameters(struct.PyTreeNode):
    """Hyperparameters of an algorithm: numbers that may be traced, and so may differ between vmapped runs.

    Each field is declared by `hajax.settings.setting` with its default, meaning and range. Without a range any finite
    number is allowed. `hyperparameters.replace(name=value)` returns a changed copy.
    """

    def validate(self) -> None:
        """Raises ValueError if a concrete value is out of range. Traced values are not checked."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, jax.core.Tracer):
                dataclasses.replace(about(type(self), field.name), kind="float").checked(field.name, value)


def as_arrays(hyperparameters: Any) -> Any:
    """The hyperparameters as floating-point arrays, after validation."""
    hyperparameters.validate()
    return jax.tree.map(lambda x: jnp.asarray(x, float), hyperparameters)


class TeamHyperparameters(BaseHyperparameters):
    """Hyperparameters of every algorithm."""

    discount: float | jax.Array = setting(0.99, "γ: the weight of the next step's reward", low=0, high=1)
    max_grad_norm: float | jax.Array = setting(
        math.inf, "gradients are scaled down to this norm", low=0, open_low=True, finite=False
    )
    adam_eps: float | jax.Array = setting(1e-8, "ε of Adam, added to the denominator", low=0)
    decay_updates: float | jax.Array = setting(
        math.inf,
        "the updates over which learning rates decay linearly to 0; `lr_decay=true` sets it to the length of the run",
        low=0,
        open_low=True,
        finite=False,
    )


class ClipHyperparameters(BaseHyperparameters):
    """Hyperparameters of the drift `hajax.drifts.ppo_clip`."""

    clip: float | jax.Array = setting(
        0.2,
        "ε: PPO clips the ratio of probabilities to 1 ± ε; with `clip_value` the value's change is clipped to ± ε",
        low=0,
        open_low=True,
    )


class AscentHyperparameters(BaseHyperparameters):
    """Hyperparameters of gradient steps (`hajax.neighborhoods.unrestricted`, `gradient_step`)."""

    actor_lr: float | jax.Array = setting(5e-4, "the actors' learning rate", low=0)


class BallHyperparameters(BaseHyperparameters):
    """Hyperparameters of a step within a KL ball (`hajax.neighborhoods.kl_ball`). Defaults are HARL's."""

    kl_radius: float | jax.Array = setting(
        0.01,
        "δ: the mean KL(π_old ‖ π_new) of an update does not exceed it (by more than √eps)",
        low=0,
        open_low=True,
        unit="nats",
    )
    accept_ratio: float | jax.Array = setting(
        0.5, "κ: the least gain of an accepted step, as a share of the first-order prediction", low=0, high=1
    )
    backtrack: float | jax.Array = setting(
        0.8, "α: each candidate step is this share of the one before", low=0, high=1, open_low=True
    )
    damping: float | jax.Array = setting(0.1, "added to the Fisher matrix when solving for the direction", low=0)


class CoefficientHyperparameters(BaseHyperparameters):
    """Hyperparameters of drifts with a coefficient, c · D."""

    drift_coef: float | jax.Array = setting(1.0, "c: the weight of the drift, or its first value if it adapts", low=0)


class AdaptiveHyperparameters(CoefficientHyperparameters):
    """Hyperparameters of drifts with an adaptive coefficient (`adaptive=True` of `hajax.haml`)."""

    kl_target: float | jax.Array = setting(
        0.01,
        "the mean KL(π_old ‖ π_new) of an update at which the drift's coefficient is unchanged",
        low=0,
        open_low=True,
        unit="nats",
    )


@dataclasses.dataclass(frozen=True)
class TeamSettings:
    """Static settings of every algorithm. Each field is declared by `setting` with its default, meaning and range."""

    order: str = setting(
        "random",
        "the order of the groups' updates: `random` (a fresh permutation every update), `fixed`, or `simultaneous`",
        choices=ORDERS,
    )
    sharing: str | tuple[int, ...] = setting(
        "none",
        "which agents share parameters: `none`, `all`, `type` (those with equal spaces), or a group index per agent",
        allowed="none, all, type, or a list with the group of each agent",
    )
    agent_id: bool = setting(False, "append a one-hot agent id to the observation")
    hidden_sizes: tuple[int, ...] = setting((128, 128), "the widths of the default networks' hidden layers")
    activation: str = setting("relu", "the activation function of the default networks", choices=tuple(ACTIVATIONS))
    layer_norm: bool = setting(True, "normalize the inputs and the hidden layers of the default networks")
    layer_norm_min_inputs: int = setting(
        LAYER_NORM_MIN_INPUTS,
        "with `layer_norm`, inputs of fewer entries are not normalized, because normalization removes all information "
        "of one entry, and all except the order of two (HARL: 1)",
    )
    output_gain: float = setting(0.01, "the gain of the initialization of the policies' last layer", low=0)

    normalize_observations: bool = setting(False, "normalize observations and states by running statistics")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = about(type(self), field.name).checked(field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        getattr(super(), "__post_init__", lambda: None)()  # of another class in a combination, see `combined`

    def torso(self, role: str, own: nn.Module | None, width: int, masked: bool = False) -> nn.Module:
        """The torso of the `role` `actor` or `critic` with `width` inputs: the user's module, checked, or the MLP."""
        if own is None:
            return MLP(self.hidden_sizes, self.activation, self.layer_norm, self.layer_norm_min_inputs)
        check_torso(role, own, width, masked)
        return own

    def left_to_see(self, width: int) -> str:
        """The information that normalization leaves of `width` inputs, in words; empty if they are not normalized."""
        left = {1: "nothing", 2: "only the order"}
        return left.get(width, "") if self.layer_norm and self.layer_norm_min_inputs <= width else ""

    def require(self, algorithm: str, **fixed: Any) -> None:
        """Raises ValueError unless the settings that define `algorithm` have the values of `fixed`."""
        for name, value in fixed.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name}={getattr(self, name)!r} of {algorithm}; allowed: {value}, which defines it")


@dataclasses.dataclass(frozen=True)
class AscentSettings:
    """Settings of gradient ascent (`hajax.neighborhoods.unrestricted`)."""

    epochs: int = setting(5, "the actors' passes over a rollout")


@dataclasses.dataclass(frozen=True)
class BallSettings:
    """Settings of a step within a KL ball (`hajax.neighborhoods.kl_ball`)."""

    cg_iterations: int = setting(10, "the largest number of conjugate gradient iterations")
    line_search_steps: int = setting(10, "the largest number of candidate steps, the first of full length")


def combined(base: Any, *parts: Any) -> Any:
    """A class with the fields of `base` and all `parts`. If defaults differ, the first class with the field decides."""
    return _combined(*(source for part in (base, *parts) for source in vars(part).get("combined_from", (part,))))


@functools.cache
def _combined(base: Any, *parts: Any) -> Any:
    sources = (base, *parts)
    for part in parts:
        if issubclass(part, base):
            base = part
            continue
        missing = {field.name for field in dataclasses.fields(part)} - {f.name for f in dataclasses.fields(base)}
        if missing:
            own = {"combined_from": sources, "__reduce__": _reduce}
            base = type(f"{base.__name__}And{part.__name__}", (base, part), own)
            if not issubclass(base, BaseHyperparameters):
                base = dataclasses.dataclass(frozen=True)(base)
    return base


def _reduce(instance: Any) -> tuple[Any, ...]:
    """For pickle: an instance of a combined class is stored by its source classes, because no module defines it."""
    owner = type(instance)
    values = {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance)}
    return _made_of, (vars(owner).get("combined_from", (owner,)), values)


def _made_of(sources: tuple[Any, ...], values: dict[str, Any]) -> Any:
    return combined(*sources)(**values)
