"""MAA2C: multi-agent advantage actor-critic, which is HAA2C with simultaneous updates and no compound ratio.

Papoudakis et al., *Benchmarking Multi-Agent Deep Reinforcement Learning Algorithms in Cooperative Tasks* (2021):
https://arxiv.org/abs/2006.07869; the baseline of Kuba et al., 2022b, Eq. 2.
"""

from __future__ import annotations

import flax.linen as nn

from hajax.algorithms.haa2c import haa2c
from hajax.core.algorithm import Algorithm
from hajax.core.on_policy.settings import GradientHyperparameters, GradientSettings
from hajax.spec import EnvSpec


def maa2c(
    spec: EnvSpec,
    settings: GradientSettings = GradientSettings(order="simultaneous", sharing="type"),
    hyperparameters: GradientHyperparameters = GradientHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """MAA2C for the team that `spec` describes; arguments and errors as in `haa2c`.

    Every agent ascends E[r · Â] given the *old* policies of all others: M = Â. Agents with equal spaces share a policy
    by default (the paper's MAA2C-S); `sharing="none"` gives each agent its own (MAA2C-NS).
    """
    settings.require("maa2c", order="simultaneous", centralized=True)
    return haa2c(spec, settings, hyperparameters, actor=actor, critic=critic, name="maa2c")
