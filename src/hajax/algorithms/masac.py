"""MASAC: multi-agent soft actor-critic, which is HASAC with simultaneous updates."""

from __future__ import annotations

import flax.linen as nn

from hajax.algorithms.hasac import hasac
from hajax.core.algorithm import Algorithm
from hajax.core.off_policy.settings import SoftHyperparameters, SoftSettings
from hajax.spec import EnvSpec


def masac(
    spec: EnvSpec,
    settings: SoftSettings = SoftSettings(order="simultaneous", others="policy"),
    hyperparameters: SoftHyperparameters = SoftHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """MASAC for the team that `spec` describes; arguments and errors as in `hasac`.

    Every agent ascends the soft critics at samples of the *current* policies of the others, as in MADDPG (Lowe et al.,
    2017) with SAC's critics and entropy (Haarnoja et al., 2018: https://arxiv.org/abs/1812.05905).
    """
    settings.require("masac", order="simultaneous")
    return hasac(spec, settings, hyperparameters, actor=actor, critic=critic, name="masac")
