"""HAA2C: heterogeneous-agent advantage actor-critic.

Kuba et al., *Heterogeneous-Agent Mirror Learning* (2022), Algorithm 2: https://arxiv.org/abs/2208.01682.
"""

from __future__ import annotations

import flax.linen as nn

from hajax.core.algorithm import Algorithm
from hajax.core.drifts import no_drift
from hajax.core.neighborhoods import unrestricted
from hajax.core.on_policy.haml import haml
from hajax.core.settings import GradientHyperparameters, GradientSettings
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

    Agents update one after another in random order. Agent i_m ascends, for `epochs` mini-epochs,

        E[r · M] + c · H,   r = π_new(aᵐ|oᵐ) / π_old(aᵐ|oᵐ),

    in which M is the advantage times the compound ratio of the agents before it (Eq. 6). Nothing holds r near 1 but
    the number of mini-epochs and the learning rate: the drift is trivial, D = 0. The paper steps along the plain
    gradient in its pseudo-code and by Adam in its experiments (Table 1), as here.

    For arguments and errors see `core.haml.haml`, which is the algorithm.
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
