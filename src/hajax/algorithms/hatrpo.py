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
from hajax.core.settings import TrustRegionHyperparameters, TrustRegionSettings
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

    Agents update one after another in random order. Agent i_m maximizes (Eq. 7)

        E[r · M]   subject to   E[KL(π_old(·|oᵐ) ‖ π_new(·|oᵐ))] ≤ δ,   r = π_new(aᵐ|oᵐ) / π_old(aᵐ|oᵐ),

    in which M is the advantage times the compound ratio of the agents before it, by one step along the natural
    gradient x ≈ H⁻¹g, as long as the ball allows to second order, √(2δ / xᵀHx), and shortened to α^j of that until it
    gains at least κ times what the gradient promises and its true KL divergence is within δ (Eq. 8). If no candidate
    does, the agent stays exactly as it was.

    Other than HARL's code: the KL divergence is the true one for every kind of action, and over active steps only; the
    damping bends the direction but does not shorten the step; and the test of the step is Algorithm 2's and the KL's.

    It is mirror learning with no drift in the neighborhood `kl_ball`. For arguments and errors see `core.haml.haml`,
    which is the algorithm. The info holds, per agent: `kl`, `expected_improvement` (of the longest step) and
    `improvement`, whether the step was `accepted`, and at which `candidate` j.
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
