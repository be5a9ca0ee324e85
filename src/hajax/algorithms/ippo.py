"""IPPO: independent PPO, which is MAPPO with a critic per agent (or group) on individual observations.

de Witt et al., *Is Independent Learning All You Need in the StarCraft Multi-Agent Challenge?* (2020):
https://arxiv.org/abs/2011.09533.
"""

from __future__ import annotations

import flax.linen as nn

from hajax.algorithms.happo import happo
from hajax.core.algorithm import Algorithm
from hajax.core.on_policy.settings import GradientHyperparameters, GradientSettings
from hajax.spec import EnvSpec


def ippo(
    spec: EnvSpec,
    settings: GradientSettings = GradientSettings(order="simultaneous", sharing="type", centralized=False),
    hyperparameters: GradientHyperparameters = GradientHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """IPPO for the team that `spec` describes; arguments and errors as in `happo`.

    Every agent runs PPO on its advantage Âⁱ, from Vⁱ(oⁱ) and its individual reward (`reward="individual"`). A team
    reward is also possible: every agent receives it, and the mean of the active agents' values replaces that of an
    inactive agent. Actors and critics share parameters in the same way: by default one of each per kind of agent.
    """
    settings.require("ippo", order="simultaneous", centralized=False)
    return happo(spec, settings, hyperparameters, actor=actor, critic=critic, name="ippo")
