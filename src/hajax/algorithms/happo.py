"""HAPPO: heterogeneous-agent proximal policy optimization.

Kuba et al., *Trust Region Policy Optimisation in Multi-Agent Reinforcement Learning* (ICLR 2022), Algorithm 3:
https://arxiv.org/abs/2109.11251.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from hajax.core.algorithm import Algorithm
from hajax.core.drifts import PolicyChange, ppo_clip
from hajax.core.neighborhoods import unrestricted
from hajax.core.on_policy.haml import haml
from hajax.core.on_policy.settings import GradientHyperparameters, GradientSettings
from hajax.spec import EnvSpec


def happo(
    spec: EnvSpec,
    settings: GradientSettings = GradientSettings(),
    hyperparameters: GradientHyperparameters = GradientHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
    name: str = "happo",
) -> Algorithm:
    """HAPPO for the team that `spec` describes.

    Agents are updated one after another in random order. Agent i_m maximizes the clipped surrogate (Eq. 11)

        E[min(r · M, clip(r, 1 ± ε) · M)] + c · H,   r = π_new(aᵐ|oᵐ) / π_old(aᵐ|oᵐ),

    where M is the advantage times the compound ratio of the agents updated before. After all its epochs the ratio is
    recomputed on the full batch for the agents updated later. The ratio of an inactive agent is 1. The compound ratio
    is truncated at `truncation`, which rarely changes a weight here, and is needed where steps are long or agents are
    many (`docs/results/guards.md`). The paper has `guard="none"`: M ← r · M.

    Differences from HARL's code: it multiplies the ratios of inactive agents in, and truncates nothing. Its advantage
    of the last step of a truncated episode is 0; here the value of the final observation follows. With k components of
    choices its ratio is raised to the power k. It adds the critic's targets to their statistics before every minibatch
    (`value_statistics_per="minibatch"`), and clips values (`clip_value`).

    It is mirror learning with the drift `ppo_clip`, since min(r · M, clip(r) · M) = r · M − ReLU([r − clip(r)] · M).
    For arguments and errors see `hajax.haml`.
    """

    def clip_fraction(change: PolicyChange, hyperparameters: GradientHyperparameters):
        return {"clip_fraction": (jnp.abs(change.ratio - 1) > hyperparameters.clip).astype(change.ratio.dtype)}

    return haml(
        name,
        spec,
        settings,
        hyperparameters,
        drift=ppo_clip,
        neighborhood=unrestricted,
        diagnostics=clip_fraction,
        actor=actor,
        critic=critic,
    )
