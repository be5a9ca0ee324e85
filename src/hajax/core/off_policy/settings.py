"""Settings (static) and hyperparameters (which may be traced) of off-policy algorithms."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from hajax.core.settings import (
    AscentHyperparameters,
    ClipHyperparameters,
    CoefficientHyperparameters,
    TeamHyperparameters,
    TeamSettings,
)
from hajax.validation import is_list, setting

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


class AttentionHyperparameters(AscentHyperparameters, CriticHyperparameters):
    """Hyperparameters of MAAC, and of MAMD and MAMT. Defaults are MAAC's public code's."""

    actor_lr: float | jax.Array = 1e-3
    critic_lr: float | jax.Array = 1e-3
    target_rate: float | jax.Array = 1e-3
    max_grad_norm: float | jax.Array = 0.5
    reward_scale: float | jax.Array = setting(
        100.0, "ρ: rewards weigh ρ times as much as entropies, whose weight is 1/ρ", low=0, open_low=True
    )
    critic_max_grad_norm: float | jax.Array = setting(
        10.0,
        "the critics' gradient is scaled down to this norm times the number of agents",
        low=0,
        open_low=True,
        finite=False,
    )
    critic_l2: float | jax.Array = setting(1e-3, "the coefficient of the critics' parameters in their gradient", low=0)
    attention_penalty: float | jax.Array = setting(1e-3, "the weight of the attention's mean squared logits", low=0)
    logit_penalty: float | jax.Array = setting(1e-3, "the weight of the policies' mean squared logits", low=0)


@dataclasses.dataclass(frozen=True)
class AttentionSettings(JointSettings):
    """Static settings of MAAC, MAMD and MAMT. Defaults are MAAC's public code's."""

    order: str = "simultaneous"
    others: str = "policy"
    normalize_observations: bool = True
    batch_size: int = 1024
    attention_width: int = setting(128, "the width of the critics' layers")
    attention_heads: int = setting(4, "the number of attention heads, a divisor of `attention_width`")
    baseline_samples: int = setting(
        10,
        "actions from an agent's policy over which its baseline is averaged, in teams with a Box or too many choices; "
        "else it is exact",
    )

    @property
    def rewards(self) -> tuple[str, ...]:
        """The kinds of reward, the usual one last."""
        return ("team", "individual")


class MirrorHyperparameters(AttentionHyperparameters):
    """Hyperparameters of MAMD."""

    radius: float | jax.Array = setting(
        100.0,
        "δ: the weight of the distance to the old policy is 1/δ in every agent's objective (MAMT: its first value)",
        low=0,
        open_low=True,
    )
    tsallis_q: float | jax.Array = setting(
        0.2, "q: the distance is that of Tsallis logarithms ln_q; 1 gives the KL divergence"
    )


class DecompositionHyperparameters(MirrorHyperparameters):
    """Hyperparameters of MAMT."""

    radius: float | jax.Array = 0.01
    radius_min: float | jax.Array = setting(0.01, "the least radius δ", low=0, open_low=True)
    radius_max: float | jax.Array = setting(100.0, "the largest radius δ", low=0, open_low=True)
    radius_lr: float | jax.Array = setting(1e-3, "the learning rate of the radii, slow for their range", low=0)
    decomposition_lr: float | jax.Array = setting(1e-3, "the learning rate of the decomposition network", low=0)
    modeling_lr: float | jax.Array = setting(1e-3, "the learning rate of the modeling policies", low=0)
    edge_threshold: float | jax.Array = setting(
        0.05, "agents with a coordination coefficient of at least this much are joined in the network's graph", low=0
    )

    def validate(self) -> None:
        super().validate()
        limits = self.radius_min, self.radius, self.radius_max
        if not any(isinstance(x, jax.core.Tracer) for x in limits) and not limits[0] <= limits[1] <= limits[2]:
            raise ValueError(
                f"radius={self.radius}; allowed: a number from radius_min={self.radius_min} to "
                f"radius_max={self.radius_max}"
            )


@dataclasses.dataclass(frozen=True)
class MirrorSettings(AttentionSettings):
    """Static settings of mirror descent with local trust regions."""

    old_policy_interval: int = setting(
        100, "the policies are compared with copies that are made every so many updates", unit="updates"
    )


@dataclasses.dataclass(frozen=True)
class DependencySettings(MirrorSettings):
    """Static settings of MAMD."""

    dependencies: tuple[tuple[str, str], ...] | None = setting(
        None,
        "pairs of agents that depend on each other (MAMD-OP): agents in no pair have no trust region, as in MAAC; null "
        "gives one to all agents",
        allowed="pairs of names of agents, such as [[agent_0,agent_1]], [], or null",
    )

    def __post_init__(self):
        super().__post_init__()
        pairs: Any = self.dependencies
        if pairs is None:
            return
        listed = [tuple(pair) if is_list(pair) else () for pair in pairs] if is_list(pairs) else [()]
        if not all(len(pair) == 2 and pair[0] != pair[1] for pair in listed):
            raise ValueError(
                f"dependencies={pairs!r}; allowed: pairs of names of different agents, such as [[agent_0,agent_1]], "
                "[] or null"
            )
        object.__setattr__(self, "dependencies", tuple(listed))


@dataclasses.dataclass(frozen=True)
class DecompositionSettings(MirrorSettings):
    """Static settings of MAMT."""

    decomposition_width: int = setting(
        128, "the width of the layers of the decomposition network and of the modeling policies"
    )
