"""Settings of the PPO family (HAPPO, MAPPO, IPPO): static ones that shape the program, and traced numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from hajax.core.losses import VALUE_LOSSES
from hajax.core.sequential import ORDERS
from hajax.nn.networks import ACTIVATIONS
from hajax.spec import RewardKind
from hajax.validation import check_choice, check_flag, check_number


class Hyperparameters(NamedTuple):
    """Numbers that may be traced, and so differ per vmapped run. Defaults: HARL's, but for `value_decay`."""

    actor_lr: float | jax.Array = 5e-4
    critic_lr: float | jax.Array = 5e-4
    clip: float | jax.Array = 0.2  # ε of the ratio, and of the value if `clip_value`
    entropy_coef: float | jax.Array = 0.01
    discount: float | jax.Array = 0.99
    gae_lambda: float | jax.Array = 0.95
    huber_delta: float | jax.Array = 10.0
    max_grad_norm: float | jax.Array = 10.0
    adam_eps: float | jax.Array = 1e-5
    value_decay: float | jax.Array = 0.9  # β of value normalisation (HARL: 0.99999, an average over the whole past)
    decay_updates: float | jax.Array = math.inf  # updates over which learning rates fall linearly to 0

    def validate(self) -> None:
        """Raises ValueError naming the first concrete value out of range; traced values pass."""
        concrete = {name: x for name, x in self._asdict().items() if not isinstance(x, jax.core.Tracer)}
        for name, value in concrete.items():
            if name in ("discount", "gae_lambda", "value_decay"):
                check_number(name, value, 0, 1)
            elif name == "decay_updates":
                check_number(name, value, 0, open_low=True, finite=False)
            else:
                check_number(name, value, 0, open_low=name in ("clip", "huber_delta", "max_grad_norm"))


@dataclasses.dataclass(frozen=True)
class Settings:
    """Static settings: what shapes the compiled program. Defaults: HARL's, but for `action_scaling` and `clip_value`.

    - `epochs`, `critic_epochs`, `minibatches`: passes over a rollout, for actors and critic, and their minibatches.
    - `order`: in which order groups update: `random` (fresh every iteration), `fixed`, or `simultaneous`.
    - `sharing`: which agents share parameters: `none`, `all`, `type` (agents with equal spaces), or a group per agent.
    - `agent_id`: append a one-hot agent id to the observation.
    - `centralised`: one critic on the state, or critics on the agents' own observations, grouped like the actors.
    - `hidden_sizes`, `activation`, `layer_norm`, `output_gain`, `std_scale`: the default networks.
    - `action_scaling`: a bounded Box's Gaussian has its bounds at ±1 (HARL: native units, which is `False`).
    - `value_loss` (`huber` or `squared`) and `clip_value` (HARL: `True`): the critic's loss.
    - `normalise_values`, `normalise_observations`: running statistics of value targets, of observations and states.
    """

    epochs: int = 5
    critic_epochs: int = 5
    minibatches: int = 1
    order: str = "random"
    sharing: str | tuple[int, ...] = "none"
    agent_id: bool = False
    centralised: bool = True
    hidden_sizes: tuple[int, ...] = (128, 128)
    activation: str = "relu"
    layer_norm: bool = True
    output_gain: float = 0.01
    std_scale: float = 0.5
    action_scaling: bool = True
    value_loss: str = "huber"
    clip_value: bool = False
    normalise_values: bool = True
    normalise_observations: bool = False

    def __post_init__(self):
        for name in ("hidden_sizes", "sharing"):
            value = getattr(self, name)
            if isinstance(value, Sequence) and not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))
        for name in ("epochs", "critic_epochs", "minibatches"):
            check_number(name, getattr(self, name), 1, whole=True)
        if not isinstance(self.hidden_sizes, tuple):
            raise ValueError(f"hidden_sizes={self.hidden_sizes!r}; allowed: a list of whole numbers, such as [64,64]")
        check_number("hidden_sizes", self.hidden_sizes or (0,), 1, whole=True)
        check_number("output_gain", self.output_gain, 0)
        check_number("std_scale", self.std_scale, 0, open_low=True)
        for field in dataclasses.fields(self):
            if isinstance(field.default, bool):
                check_flag(field.name, getattr(self, field.name))
        check_choice("order", self.order, ORDERS)
        check_choice("activation", self.activation, tuple(ACTIVATIONS))
        check_choice("value_loss", self.value_loss, VALUE_LOSSES)

    def require(self, algorithm: str, **fixed: Any) -> None:
        """Raises ValueError unless the settings that define `algorithm` have their values."""
        for name, value in fixed.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name}={getattr(self, name)!r} of {algorithm}; allowed: {value}, which defines it")

    @property
    def rewards(self) -> tuple[RewardKind, ...]:
        """The kinds of reward to learn from.

        One joint advantage needs the team's; so does a compound ratio, which is of the joint action. Agents that learn
        at once, each with a critic of its own, take either kind.
        """
        independent = not self.centralised and self.order == "simultaneous"
        return ("team", "individual") if independent else ("team",)
