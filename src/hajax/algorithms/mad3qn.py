"""MAD3QN: dueling double Q-learning with a joint critic, which is HAD3QN with simultaneous updates."""

from __future__ import annotations

import flax.linen as nn

from hajax.algorithms.had3qn import had3qn
from hajax.core.algorithm import Algorithm
from hajax.core.off_policy.settings import DoubleQHyperparameters, DoubleQSettings
from hajax.spec import EnvSpec


def mad3qn(
    spec: EnvSpec,
    settings: DoubleQSettings = DoubleQSettings(order="simultaneous", others="policy"),
    hyperparameters: DoubleQHyperparameters = DoubleQHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """MAD3QN for the team that `spec` describes; arguments and errors as in `had3qn`.

    Every agent regresses its values on the joint critic's at the *current* best choices of the others.
    """
    settings.require("mad3qn", order="simultaneous")
    return had3qn(spec, settings, hyperparameters, actor=actor, critic=critic, name="mad3qn")
