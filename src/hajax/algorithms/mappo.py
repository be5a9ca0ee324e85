"""MAPPO: multi-agent PPO, which is HAPPO with simultaneous updates and no compound ratio.

Yu et al., *The Surprising Effectiveness of PPO in Cooperative Multi-Agent Games* (NeurIPS 2022):
https://arxiv.org/abs/2103.01955.
"""

from __future__ import annotations

import flax.linen as nn

from hajax.algorithms.happo import happo
from hajax.core.algorithm import Algorithm
from hajax.core.on_policy.settings import GradientHyperparameters, GradientSettings
from hajax.spec import EnvSpec


def mappo(
    spec: EnvSpec,
    settings: GradientSettings = GradientSettings(order="simultaneous", sharing="type"),
    hyperparameters: GradientHyperparameters = GradientHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """MAPPO for the team that `spec` describes; arguments and errors as in `happo`.

    Every agent maximizes E[min(r · Â, clip(r, 1 ± ε) · Â)] given the *old* policies of all others: M = Â. Agents with
    equal spaces share a policy by default; `sharing="none"` gives each agent its own. HARL's code shares one policy
    among all agents (`sharing="all"`).
    """
    settings.require("mappo", order="simultaneous", centralized=True)
    return happo(spec, settings, hyperparameters, actor=actor, critic=critic, name="mappo")
