"""Settings of algorithms: static ones, which shape the program, and hyperparameters, which may be traced.

Here are those that all algorithms have and those of on-policy algorithms.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hajax.core.losses import VALUE_LOSSES
from hajax.core.sequential import ORDERS
from hajax.nn.checks import check_torso
from hajax.nn.layers import ACTIVATIONS, LAYER_NORM_MIN_INPUTS, MLP
from hajax.nn.memory import GRU, MEMORIES, NO_MEMORY, Memory
from hajax.spec import RewardKind
from hajax.validation import MOST, check_choice, check_flag, check_number, check_numbers


class BaseHyperparameters(struct.PyTreeNode):
    """Numbers of an algorithm, which may be traced, and so differ per vmapped run.

    `hyperparameters.replace(name=value)` returns a changed copy.
    """

    def validate(self) -> None:
        """Raises ValueError naming the first concrete value out of range; traced values pass."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, jax.core.Tracer):
                check_number(field.name, value, **({"low": 0} | _RANGES.get(field.name, {})))


def as_arrays(hyperparameters: Any) -> Any:
    """The hyperparameters, validated, as floating-point arrays."""
    hyperparameters.validate()
    return jax.tree.map(lambda x: jnp.asarray(x, float), hyperparameters)


class Hyperparameters(BaseHyperparameters):
    """Hyperparameters of every on-policy algorithm. Defaults: HARL's, but for `value_decay`."""

    critic_lr: float | jax.Array = 5e-4
    clip: float | jax.Array = 0.2  # ε of the value if `clip_value`; PPO's of the ratio too
    discount: float | jax.Array = 0.99
    gae_lambda: float | jax.Array = 0.95
    huber_delta: float | jax.Array = 10.0
    max_grad_norm: float | jax.Array = 10.0
    adam_eps: float | jax.Array = 1e-5
    value_decay: float | jax.Array = 0.9  # β of value normalization (HARL: 0.99999, an average over the whole past)
    decay_updates: float | jax.Array = math.inf  # updates over which learning rates fall linearly to 0


class AscentHyperparameters(BaseHyperparameters):
    """What gradient steps read (`neighborhoods.unrestricted`, `gradient_step`)."""

    actor_lr: float | jax.Array = 5e-4


class BallHyperparameters(BaseHyperparameters):
    """What a step within a KL ball reads (`neighborhoods.kl_ball`). Defaults: HARL's."""

    kl_radius: float | jax.Array = 0.01  # δ, which the mean KL(π_old ‖ π_new) of an update does not exceed (by √eps)
    accept_ratio: float | jax.Array = 0.5  # κ: a step must gain this share of what the gradient promises
    backtrack: float | jax.Array = 0.8  # α: each candidate step is this share of the one before
    damping: float | jax.Array = 0.1  # added to the Fisher matrix when solving for the direction


class CoefficientHyperparameters(BaseHyperparameters):
    """What drifts `c · D` read."""

    drift_coef: float | jax.Array = 1.0  # c, or its first value if it adapts


class AdaptiveHyperparameters(CoefficientHyperparameters):
    """What `neighborhoods.adaptive` reads."""

    kl_target: float | jax.Array = 0.01  # the mean KL(π_old ‖ π_new) of an update at which c stays as it is


class GradientHyperparameters(AscentHyperparameters, Hyperparameters):
    """Hyperparameters of HAPPO, HAA2C and their baselines."""

    entropy_coef: float | jax.Array = 0.01


class DriftHyperparameters(AdaptiveHyperparameters, GradientHyperparameters):
    """Hyperparameters of algorithms with a drift `c · D`, whose coefficient may adapt."""


class TrustRegionHyperparameters(BallHyperparameters, Hyperparameters):
    """Hyperparameters of HATRPO."""


# Ranges other than "a finite number ≥ 0".
_POSITIVE: dict[str, Any] = {"low": 0, "open_low": True}
_SHARE: dict[str, Any] = {"low": 0, "high": 1}
_RANGES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("clip", "huber_delta", "kl_radius", "kl_target", "gumbel_temperature"), _POSITIVE),
    **dict.fromkeys(
        ("discount", "gae_lambda", "value_decay", "accept_ratio", "target_entropy_share", "epsilon"), _SHARE
    ),
    "target_entropy": {"low": -math.inf},
    **dict.fromkeys(("backtrack", "target_rate", "ou_rate"), _SHARE | {"open_low": True}),
    **dict.fromkeys(("decay_updates", "max_grad_norm"), _POSITIVE | {"finite": False}),
}


@dataclasses.dataclass(frozen=True)
class TeamSettings:
    """Static settings of every algorithm.

    - `order`: in which order groups update: `random` (fresh every iteration), `fixed`, or `simultaneous`.
    - `sharing`: which agents share parameters: `none`, `all`, `type` (agents with equal spaces), or a group per agent.
    - `agent_id`: append a one-hot agent id to the observation.
    - `hidden_sizes`, `activation`, `layer_norm`, `output_gain`: the default networks.
    - `layer_norm_min_inputs`: with `layer_norm`, inputs of fewer entries are not normalized, which would take most of
      what they tell: of one entry everything, of two all but their order. HARL normalizes all, as 1 does.
    """

    order: str = "random"
    sharing: str | tuple[int, ...] = "none"
    agent_id: bool = False
    hidden_sizes: tuple[int, ...] = (128, 128)
    activation: str = "relu"
    layer_norm: bool = True
    layer_norm_min_inputs: int = LAYER_NORM_MIN_INPUTS
    output_gain: float = 0.01

    def __post_init__(self):
        check_numbers("hidden_sizes", self.hidden_sizes, 1, whole=True)
        check_number("output_gain", self.output_gain, 0)
        for name in ("hidden_sizes", "sharing"):
            value = getattr(self, name)
            if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))
        for field in dataclasses.fields(self):
            if isinstance(field.default, bool):
                check_flag(field.name, getattr(self, field.name))
            elif isinstance(field.default, int):
                value = getattr(self, field.name)
                if isinstance(value, float) and value.is_integer():  # 1e6
                    value = int(value)
                check_number(field.name, value, 1, MOST, whole=True)
                object.__setattr__(self, field.name, int(value))
        check_choice("order", self.order, ORDERS)
        check_choice("activation", self.activation, ACTIVATIONS)
        getattr(super(), "__post_init__", lambda: None)()  # that of a part which settings are combined with

    def torso(self, role: str, own: nn.Module | None, width: int, masked: bool = False) -> nn.Module:
        """The torso of an actor or a critic (its `role`) with `width` inputs: a user's own, checked, or the MLP."""
        if own is None:
            return MLP(self.hidden_sizes, self.activation, self.layer_norm, self.layer_norm_min_inputs)
        check_torso(role, own, width, masked)
        return own

    def blinds(self, width: int) -> str:
        """What the default network leaves an agent of so many inputs to see; empty if that is enough."""
        left = {1: "nothing", 2: "only the order"}
        return left.get(width, "") if self.layer_norm and self.layer_norm_min_inputs <= width else ""

    def require(self, algorithm: str, **fixed: Any) -> None:
        """Raises ValueError unless the settings that define `algorithm` have their values."""
        for name, value in fixed.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name}={getattr(self, name)!r} of {algorithm}; allowed: {value}, which defines it")


@dataclasses.dataclass(frozen=True)
class Settings(TeamSettings):
    """Static settings of every on-policy algorithm: what shapes the program, beside `TeamSettings`.

    Defaults: HARL's, but for `action_scaling` and `clip_value`.

    - `critic_epochs`, `minibatches`: passes over a rollout for the critic, and minibatches in every pass.
    - `centralized`: one critic on the state, or critics on the agents' own observations, grouped like the actors.
    - `std_scale`: the largest standard deviation of the default networks' Gaussian.
    - `memory`: `gru` puts one behind every torso (one's own too), as wide as the last of `hidden_sizes`; `none`:
      feed-forward networks.
    - `chunk_length`: steps through which a memory's gradient goes back; minibatches are made of such chunks.
    - `action_scaling`: a bounded Box's Gaussian has its bounds at ±1 (HARL: native units, which is `False`).
    - `value_loss` (`huber` or `squared`) and `clip_value` (HARL: `True`): the critic's loss.
    - `normalize_values`, `normalize_observations`: running statistics of value targets, of observations and states.
    """

    critic_epochs: int = 5
    minibatches: int = 1
    centralized: bool = True
    std_scale: float = 0.5
    memory: str | Memory = "none"
    chunk_length: int = 10
    action_scaling: bool = True
    value_loss: str = "huber"
    clip_value: bool = False
    normalize_values: bool = True
    normalize_observations: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_number("std_scale", self.std_scale, 0, open_low=True)
        check_choice("value_loss", self.value_loss, VALUE_LOSSES)
        if not isinstance(self.memory, Memory):
            check_choice("memory", self.memory, MEMORIES)

    @property
    def sample_length(self) -> int:
        """Steps of one sample, which a minibatch takes or leaves: 1, or those of a chunk if there is a memory."""
        return self.chunk_length if self.make_memory().remembers else 1

    def make_memory(self) -> Memory:
        """The memory behind every torso: the user's own or the one that the name stands for."""
        if isinstance(self.memory, Memory):
            return self.memory
        return GRU(self.hidden_sizes[-1], self.layer_norm, name="gru") if self.memory == "gru" else NO_MEMORY

    @property
    def rewards(self) -> tuple[RewardKind, ...]:
        """The kinds of reward to learn from.

        One joint advantage needs the team's; so does a compound ratio, which is of the joint action. Agents that learn
        simultaneously, each with a critic of its own, take either kind.
        """
        independent = not self.centralized and self.order == "simultaneous"
        return ("team", "individual") if independent else ("team",)


@dataclasses.dataclass(frozen=True)
class AscentSettings:
    """What gradient ascent reads (`neighborhoods.unrestricted`).

    - `epochs`: the actors' passes over a rollout.
    """

    epochs: int = 5


@dataclasses.dataclass(frozen=True)
class BallSettings:
    """What a step within a KL ball reads (`neighborhoods.kl_ball`).

    - `cg_iterations`: of the conjugate gradient method, at most.
    - `line_search_steps`: how often a step is shortened, at most, before the update is given up.
    """

    cg_iterations: int = 10
    line_search_steps: int = 10


@dataclasses.dataclass(frozen=True)
class GradientSettings(AscentSettings, Settings):
    """Static settings of HAPPO, HAA2C and their baselines."""


@dataclasses.dataclass(frozen=True)
class TrustRegionSettings(BallSettings, Settings):
    """Static settings of HATRPO."""


@functools.cache
def combined(base: Any, *parts: Any) -> Any:
    """A class with all that `base` and the `parts` have; where they disagree on a default, the first one's counts."""
    for part in parts:
        if issubclass(part, base):
            base = part
            continue
        missing = {field.name for field in dataclasses.fields(part)} - {f.name for f in dataclasses.fields(base)}
        if missing:
            base = type(f"{base.__name__}And{part.__name__}", (base, part), {})
            if not issubclass(base, BaseHyperparameters):
                base = dataclasses.dataclass(frozen=True)(base)
    return base
