"""Settings and hyperparameters of algorithms whose critics attend: MAAC, MAMD and MAMT."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from hajax.core.off_policy.settings import CriticHyperparameters, JointSettings
from hajax.core.settings import AscentHyperparameters
from hajax.validation import is_list, setting


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
