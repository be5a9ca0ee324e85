"""IPPO: independent PPO, which is MAPPO with a critic per agent (or group) on its own observation.

de Witt et al., *Is Independent Learning All You Need in the StarCraft Multi-Agent Challenge?* (2020):
https://arxiv.org/abs/2011.09533.
"""

from __future__ import annotations

import flax.linen as nn

from hajax.algorithms.happo import happo
from hajax.core.algorithm import Algorithm
from hajax.core.settings import GradientHyperparameters, GradientSettings
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

    Every agent runs PPO on its own advantage Âⁱ, from Vⁱ(oⁱ) and its own reward (`reward="individual"`; a team reward
    serves too, as every agent's own; once an agent is inactive, the active agents' values stand for its own). Actors
    and critics are shared alike: one of each per kind of agent by default.
    """
    settings.require("ippo", order="simultaneous", centralized=False)
    return happo(spec, settings, hyperparameters, actor=actor, critic=critic, name="ippo")
