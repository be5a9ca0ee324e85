"""Settings of off-policy algorithms: static ones, which shape the program, and hyperparameters, which may be traced."""

from __future__ import annotations

import dataclasses
import math

import jax

from hajax.core.settings import (
    AscentHyperparameters,
    BaseHyperparameters,
    CoefficientHyperparameters,
    TeamSettings,
)
from hajax.validation import check_choice, check_number, check_numbers

EXPECTATIONS = ("sampled", "exact")
OTHERS = ("replay", "policy")
EXPLORATIONS = ("gaussian", "ou")


class OffPolicyHyperparameters(BaseHyperparameters):
    """Hyperparameters of every off-policy algorithm. Defaults: HARL's."""

    discount: float | jax.Array = 0.99
    target_rate: float | jax.Array = 0.005  # τ: targets move this share of the way after every update
    max_grad_norm: float | jax.Array = math.inf
    adam_eps: float | jax.Array = 1e-8
    decay_updates: float | jax.Array = math.inf  # updates over which learning rates fall linearly to 0


class CriticHyperparameters(OffPolicyHyperparameters):
    """Hyperparameters of those with critics beside the actors."""

    critic_lr: float | jax.Array = 1e-3


class DeterministicHyperparameters(AscentHyperparameters, CriticHyperparameters):
    """Hyperparameters of HADDPG and MADDPG. Noise is in units in which an action's bounds are ±1."""

    exploration_noise: float | jax.Array = 0.1  # σ of what is added to actions in training
    ou_rate: float | jax.Array = 0.15  # with `exploration=ou`: the share of the noise that is gone after a step


class TwinHyperparameters(DeterministicHyperparameters):
    """Hyperparameters of HATD3 and MATD3."""

    target_noise: float | jax.Array = 0.2  # σ of what is added to the target policies' actions
    target_noise_clip: float | jax.Array = 0.5  # its bound


class IndependentQHyperparameters(AscentHyperparameters, OffPolicyHyperparameters):
    """Hyperparameters of ID3QN."""

    discount: float | jax.Array = 0.95
    epsilon: float | jax.Array = 0.05  # the probability that an agent's action is random in training


class DoubleQHyperparameters(AscentHyperparameters, CriticHyperparameters):
    """Hyperparameters of HAD3QN and MAD3QN."""

    discount: float | jax.Array = 0.95
    epsilon: float | jax.Array = 0.05  # the probability that an agent's action is random in training


class EntropyHyperparameters(CriticHyperparameters):
    """Hyperparameters of every maximum-entropy algorithm.

    `max_grad_norm` and `adam_eps` are the critics', the temperatures' and, where they follow a gradient, the actors'.
    """

    critic_lr: float | jax.Array = 5e-4
    temperature: float | jax.Array = 0.2  # α, or its first value if it adapts
    temperature_lr: float | jax.Array = 3e-4
    target_entropy: float | jax.Array = -1.0  # of a real component, in units in which its bounds are ±1
    target_entropy_share: float | jax.Array = 0.98  # of a choice: this share of log n, n the choices available
    gumbel_temperature: float | jax.Array = 1.0  # of the Gumbel softmax by which choices are sampled


class SoftHyperparameters(AscentHyperparameters, EntropyHyperparameters):
    """Hyperparameters of HASAC and MASAC, whose actors follow a gradient."""


class SoftDriftHyperparameters(CoefficientHyperparameters, SoftHyperparameters):
    """Hyperparameters of maximum-entropy mirror learning with a drift."""

    clip: float | jax.Array = 0.2  # ε of `ppo_clip`


@dataclasses.dataclass(frozen=True)
class OffPolicySettings(TeamSettings):
    """Static settings of every off-policy algorithm, beside `TeamSettings`.

    Defaults: HARL's, but for the initialization, and HASAC's temperature and `n_step`.

    What an update does:

    - `epochs`: gradient steps of every agent per update, on the same minibatch.
    - `policy_delay`: minibatches per update, each for a step of the critics; on the last the actors and targets follow.
      (An algorithm without critics takes a step of its actors on each.)
    - `normalize_observations`: running statistics of observations and states, of every minibatch that was drawn.

    What the loop does:

    - `batch_size`: transitions of a minibatch.
    - `buffer_size`: observations that the replay keeps, of all environments. A step takes one, and the end of an
      episode another.
    - `n_step`: rewards that are summed before a target looks at values. There is no off-policy correction.
    - `warmup_steps`: environment steps with random actions, before the first update.
    - `updates_per_step`: critic steps per step of all environments (not of each).
    """

    layer_norm: bool = False
    epochs: int = 1
    policy_delay: int = 1
    normalize_observations: bool = False
    batch_size: int = 1000
    buffer_size: int = 1_000_000
    n_step: int = 1
    warmup_steps: int = 10_000
    updates_per_step: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        check_number("updates_per_step", self.updates_per_step, 0, open_low=True)


@dataclasses.dataclass(frozen=True)
class JointSettings(OffPolicySettings):
    """Static settings of those with a joint critic.

    - `others`: whose actions stand for the agents that have not been updated yet: the `replay`'s, or those that their
      current `policy` would take. Defaults: those of the mirror-learning paper and of HASAC's (Eq. 10), not HARL's.
    """

    others: str = "replay"

    def __post_init__(self):
        super().__post_init__()
        check_choice("others", self.others, OTHERS)


@dataclasses.dataclass(frozen=True)
class DeterministicSettings(JointSettings):
    """Static settings of deterministic policies.

    - `exploration`: `gaussian` noise, fresh in every step, or the `ou` process of Ornstein and Uhlenbeck.
    - `per_agent_critics`: every agent has a critic of its own, which learns from its own reward, instead of one critic
      on the team's.
    """

    exploration: str = "gaussian"
    per_agent_critics: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_choice("exploration", self.exploration, EXPLORATIONS)


@dataclasses.dataclass(frozen=True)
class SoftSettings(JointSettings):
    """Static settings of maximum-entropy algorithms.

    - `auto_temperature`: every agent's α follows its entropy's distance from the target; otherwise it stays.
    - `expectation`: over an agent's own actions, `sampled` (one action each, reparametrized), or `exact`, for discrete
      actions: the critic evaluates every one of them.
    """

    hidden_sizes: tuple[int, ...] = (256, 256)
    auto_temperature: bool = True
    expectation: str = "sampled"

    def __post_init__(self):
        super().__post_init__()
        check_choice("expectation", self.expectation, EXPECTATIONS)


@dataclasses.dataclass(frozen=True)
class DuelingSettings(OffPolicySettings):
    """Static settings of dueling networks.

    - `head_sizes`: the hidden layers of each of a dueling network's two streams, behind those of `hidden_sizes`; there
      may be none.
    """

    head_sizes: tuple[int, ...] = (128,)

    def __post_init__(self):
        super().__post_init__()
        check_numbers("head_sizes", self.head_sizes, 1, whole=True, empty=True)
        object.__setattr__(self, "head_sizes", tuple(self.head_sizes))


@dataclasses.dataclass(frozen=True)
class DoubleQSettings(DuelingSettings, JointSettings):
    """Static settings of double Q-learning with a joint critic."""
