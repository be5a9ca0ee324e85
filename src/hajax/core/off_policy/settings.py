"""Settings (static) and hyperparameters (which may be traced) of off-policy algorithms."""

from __future__ import annotations

import dataclasses

import jax

from hajax.core.settings import (
    AscentHyperparameters,
    ClipHyperparameters,
    CoefficientHyperparameters,
    TeamHyperparameters,
    TeamSettings,
)
from hajax.validation import setting

EXPECTATIONS = ("sampled", "exact")
OTHERS = ("replay", "policy")
EXPLORATIONS = ("gaussian", "ou")


class OffPolicyHyperparameters(TeamHyperparameters):
    """Hyperparameters of every off-policy algorithm. Defaults are HARL's."""

    target_rate: float | jax.Array = setting(
        0.005, "τ: target networks move this share of the way after every update", low=0, high=1, open_low=True
    )


class CriticHyperparameters(OffPolicyHyperparameters):
    """Hyperparameters of off-policy algorithms with critics."""

    critic_lr: float | jax.Array = setting(1e-3, "the critics' learning rate", low=0)


class DeterministicHyperparameters(AscentHyperparameters, CriticHyperparameters):
    """Hyperparameters of HADDPG and MADDPG."""

    exploration_noise: float | jax.Array = setting(
        0.1, "σ of the noise added to actions in training", low=0, unit="actions with bounds at ±1"
    )
    ou_rate: float | jax.Array = setting(
        0.15, "with `exploration=ou`, the share of the noise that decays in a step", low=0, high=1, open_low=True
    )


class TwinHyperparameters(DeterministicHyperparameters):
    """Hyperparameters of HATD3 and MATD3."""

    target_noise: float | jax.Array = setting(
        0.2, "σ of the noise added to the target policies' actions", low=0, unit="actions with bounds at ±1"
    )
    target_noise_clip: float | jax.Array = setting(
        0.5, "c: that noise is clipped to ±c", low=0, unit="actions with bounds at ±1"
    )


class ChoiceHyperparameters(OffPolicyHyperparameters):
    """Hyperparameters of Q-learning."""

    discount: float | jax.Array = 0.95
    epsilon: float | jax.Array = setting(
        0.05, "ε: the probability that an agent's action is random in training", low=0, high=1
    )


class IndependentQHyperparameters(AscentHyperparameters, ChoiceHyperparameters):
    """Hyperparameters of ID3QN."""


class DoubleQHyperparameters(AscentHyperparameters, ChoiceHyperparameters, CriticHyperparameters):
    """Hyperparameters of HAD3QN and MAD3QN."""


class EntropyHyperparameters(CriticHyperparameters):
    """Hyperparameters of every maximum-entropy algorithm.

    `max_grad_norm` applies to the critics and to actors that follow a gradient, `adam_eps` also to the temperatures.
    """

    critic_lr: float | jax.Array = 5e-4
    temperature: float | jax.Array = setting(
        0.2, "α: the weight of entropy, or its first value with `auto_temperature`", low=0
    )
    temperature_lr: float | jax.Array = setting(3e-4, "the learning rate of the temperatures", low=0)
    target_entropy: float | jax.Array = setting(
        -1.0, "the target entropy of a real action component, in units in which its bounds are ±1", unit="nats"
    )
    target_entropy_share: float | jax.Array = setting(
        0.5,
        "the target entropy of a choice, as a share of log n, n the choices available (HARL: 0.98, which its code "
        "evaluates to 0; docs/results compares them)",
        low=0,
        high=1,
    )
    gumbel_temperature: float | jax.Array = setting(
        1.0, "the temperature of the Gumbel softmax by which choices are sampled", low=0, open_low=True
    )


class SoftHyperparameters(AscentHyperparameters, EntropyHyperparameters):
    """Hyperparameters of HASAC and MASAC."""


class SoftDriftHyperparameters(CoefficientHyperparameters, ClipHyperparameters, SoftHyperparameters):
    """Hyperparameters of maximum-entropy mirror learning with a drift."""


@dataclasses.dataclass(frozen=True)
class OffPolicySettings(TeamSettings):
    """Static settings of every off-policy algorithm.

    Defaults are HARL's, except for the initialization, and HASAC's temperature and `n_step`.
    """

    layer_norm: bool = False
    epochs: int = setting(1, "gradient steps of every agent per update, on the same minibatch")
    policy_delay: int = setting(
        1,
        "minibatches per update, each for a critic step; actors and targets are updated on the last one (without "
        "critics the actors take a step on each)",
    )
    batch_size: int = setting(1000, "the size of a minibatch", unit="transitions")
    buffer_size: int = setting(
        1_000_000,
        "the replay's capacity for all environments; a step takes one row, the end of an episode another",
        unit="observations",
    )
    n_step: int = setting(1, "n: rewards that are summed before a target bootstraps, without off-policy correction")
    warmup_steps: int = setting(10_000, "steps with random actions before the first update", unit="environment steps")
    updates_per_step: float = setting(
        1.0, "critic steps per step of all environments (not of each)", low=0, open_low=True
    )


@dataclasses.dataclass(frozen=True)
class JointSettings(OffPolicySettings):
    """Static settings of off-policy algorithms with a joint critic.

    The default of `others` is that of Kuba et al., 2022b; HASAC (Eq. 10) and HARL use `policy`.
    """

    others: str = setting(
        "replay",
        "the actions of agents that have not been updated yet: the `replay`'s, or those of their current `policy`",
        choices=OTHERS,
    )


@dataclasses.dataclass(frozen=True)
class DeterministicSettings(JointSettings):
    """Static settings of HADDPG, HATD3 and their baselines."""

    exploration: str = setting(
        "gaussian",
        "noise in training: `gaussian`, independent in every step, or the Ornstein-Uhlenbeck process `ou`",
        choices=EXPLORATIONS,
    )
    per_agent_critics: bool = setting(
        False, "one critic per agent on the individual reward, instead of one on the team reward"
    )


@dataclasses.dataclass(frozen=True)
class SoftSettings(JointSettings):
    """Static settings of maximum-entropy algorithms."""

    hidden_sizes: tuple[int, ...] = (256, 256)
    auto_temperature: bool = setting(True, "adapt every agent's α to the target entropy; otherwise it is constant")
    expectation: str = setting(
        "sampled",
        "the expectation over an agent's actions: `sampled` (one action, reparametrized), or `exact` (all choices), "
        "which is better for few choices",
        choices=EXPECTATIONS,
    )


@dataclasses.dataclass(frozen=True)
class DuelingSettings(OffPolicySettings):
    """Static settings of algorithms with dueling networks."""

    head_sizes: tuple[int, ...] = setting(
        (128,),
        "the widths of the hidden layers of each of a dueling network's two streams, after those of `hidden_sizes`",
        empty=True,
    )


@dataclasses.dataclass(frozen=True)
class DoubleQSettings(DuelingSettings, JointSettings):
    """Static settings of double Q-learning with a joint critic."""
