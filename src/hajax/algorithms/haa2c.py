"""HAA2C: heterogeneous-agent advantage actor-critic.

Kuba et al., *Heterogeneous-Agent Mirror Learning* (2022b), Algorithm 2: https://arxiv.org/abs/2208.01682.
"""

from __future__ import annotations

import flax.linen as nn

from hajax.core.algorithm import Algorithm
from hajax.core.drifts import no_drift
from hajax.core.neighborhoods import unrestricted
from hajax.core.on_policy.haml import haml
from hajax.core.on_policy.settings import GradientHyperparameters, GradientSettings
from hajax.spec import EnvSpec


def haa2c(
    spec: EnvSpec,
    settings: GradientSettings = GradientSettings(),
    hyperparameters: GradientHyperparameters = GradientHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
    name: str = "haa2c",
) -> Algorithm:
    """HAA2C for the team that `spec` describes.

    Agents are updated one after another in random order. Agent i_m ascends, for `epochs` mini-epochs,

        E[r · M] + c · H,   r = π_new(aᵐ|oᵐ) / π_old(aᵐ|oᵐ),

    where M is the advantage times the compound ratio of the agents updated before (Eq. 6), truncated (`guard`). The
    drift is D = 0, so only the number of mini-epochs and the learning rate keep r near 1. The paper uses plain
    gradient steps in its pseudocode and Adam in its experiments (Table 1), as here. It differs from HARL's code as
    HAPPO does (`happo`).

    For arguments and errors see `hajax.haml`.
    """
    return haml(
        name,
        spec,
        settings,
        hyperparameters,
        drift=no_drift,
        neighborhood=unrestricted,
        actor=actor,
        critic=critic,
    )
