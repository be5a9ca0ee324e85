"""MADDPG: multi-agent deep deterministic policy gradient, which is HADDPG with simultaneous updates.

Lowe et al., *Multi-Agent Actor-Critic for Mixed Cooperative-Competitive Environments* (NeurIPS 2017):
https://arxiv.org/abs/1706.02275; the baseline of Kuba et al., 2022b, Eq. 3.
"""

from __future__ import annotations

import flax.linen as nn

from hajax.algorithms.haddpg import haddpg
from hajax.core.algorithm import Algorithm
from hajax.core.off_policy.settings import DeterministicHyperparameters, DeterministicSettings
from hajax.spec import EnvSpec


def maddpg(
    spec: EnvSpec,
    settings: DeterministicSettings = DeterministicSettings(order="simultaneous", others="policy"),
    hyperparameters: DeterministicHyperparameters = DeterministicHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """MADDPG for the team that `spec` describes; arguments and errors as in `haddpg`.

    Every agent ascends E[Q(s, μ^i(oⁱ), μ^{−i}(o^{−i}))] at the *current* policies of the others (Kuba et al., 2022b,
    Eq. 3). Lowe et al. take the others' actions from the replay, `others="replay"`, and have one critic per agent,
    `per_agent_critics=True`, which learns from the individual reward (`reward="individual"`). HARL's code takes them
    from the replay too, with one critic.
    """
    settings.require("maddpg", order="simultaneous")
    return haddpg(spec, settings, hyperparameters, actor=actor, critic=critic, name="maddpg")
