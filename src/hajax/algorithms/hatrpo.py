"""HATRPO: heterogeneous-agent trust region policy optimization.

Kuba et al., *Trust Region Policy Optimisation in Multi-Agent Reinforcement Learning* (ICLR 2022), Algorithm 2:
https://arxiv.org/abs/2109.11251.
"""

from __future__ import annotations

import flax.linen as nn

from hajax.core.algorithm import Algorithm
from hajax.core.drifts import no_drift
from hajax.core.neighborhoods import kl_ball
from hajax.core.on_policy.haml import haml
from hajax.core.on_policy.settings import TrustRegionHyperparameters, TrustRegionSettings
from hajax.spec import EnvSpec


def hatrpo(
    spec: EnvSpec,
    settings: TrustRegionSettings = TrustRegionSettings(),
    hyperparameters: TrustRegionHyperparameters = TrustRegionHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """HATRPO for the team that `spec` describes.

    Agents are updated one after another in random order. Agent i_m maximizes (Eq. 7)

        E[r · M]   subject to   E[KL(π_old(·|oᵐ) ‖ π_new(·|oᵐ))] ≤ δ,   r = π_new(aᵐ|oᵐ) / π_old(aᵐ|oᵐ),

    by one step along the natural gradient x ≈ H⁻¹g, where M is the advantage times the compound ratio of the agents
    updated before. The longest step, √(2δ / xᵀHx) · x, reaches the boundary of the ball to second order. It is
    shortened by factors α^j until the surrogate increases by at least κ times the first-order prediction and the true
    KL divergence is within δ (Eq. 8). If no candidate satisfies both, the agent's parameters are unchanged.

    Differences from HARL's code: the KL divergence is the true one for every kind of action, and over active steps
    only; the damping affects the direction but not the length of the step; and those of `happo`. Differences from the
    paper: the compound ratio is truncated (`guard`), and a step is accepted by its KL divergence too, as in HARL.

    It is mirror learning without drift in the neighborhood `kl_ball`. For arguments and errors see `hajax.haml`. The
    info contains per agent `kl`, `expected_improvement` (of the longest step), `improvement`, whether a step was
    `accepted`, and its `candidate` index j.
    """
    return haml(
        "hatrpo",
        spec,
        settings,
        hyperparameters,
        drift=no_drift,
        neighborhood=kl_ball,
        actor=actor,
        critic=critic,
    )
