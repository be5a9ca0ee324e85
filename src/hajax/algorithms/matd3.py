"""MATD3: multi-agent TD3, which is HATD3 with simultaneous updates.

Ackermann et al., *Reducing Overestimation Bias in Multi-Agent Domains Using Double Centralized Critics* (2019):
https://arxiv.org/abs/1910.01465.
"""

from __future__ import annotations

import flax.linen as nn

from hajax.algorithms.hatd3 import hatd3
from hajax.core.algorithm import Algorithm
from hajax.core.off_policy.settings import DeterministicSettings, TwinHyperparameters
from hajax.spec import EnvSpec


def matd3(
    spec: EnvSpec,
    settings: DeterministicSettings = DeterministicSettings(order="simultaneous", others="policy", policy_delay=2),
    hyperparameters: TwinHyperparameters = TwinHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """MATD3 for the team that `spec` describes; arguments and errors as in `hatd3`.

    Every agent ascends the first critic at the *current* policies of the others. Ackermann et al. take the others'
    actions from the replay, `others="replay"`, and have critics per agent, `per_agent_critics=True`. HARL's code takes
    them from the replay too, with one pair of critics.
    """
    settings.require("matd3", order="simultaneous")
    return hatd3(spec, settings, hyperparameters, actor=actor, critic=critic, name="matd3")
