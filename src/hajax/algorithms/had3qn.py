"""HAD3QN: heterogeneous-agent dueling double deep Q-networks.

Double Q-learning (van Hasselt et al., 2016: https://arxiv.org/abs/1509.06461) with dueling networks (Wang et al., 2016:
https://arxiv.org/abs/1511.06581) in the sequential scheme of *Heterogeneous-Agent Mirror Learning* (Kuba et al., 2022b,
Eq. 7: https://arxiv.org/abs/2208.01682). The name is HARL's; no paper has pseudocode of it.
"""

from __future__ import annotations

import flax.linen as nn

from hajax.core.algorithm import Algorithm
from hajax.core.off_policy.double_q import double_q_learning
from hajax.core.off_policy.settings import DoubleQHyperparameters, DoubleQSettings
from hajax.spec import EnvSpec


def had3qn(
    spec: EnvSpec,
    settings: DoubleQSettings = DoubleQSettings(others="policy"),
    hyperparameters: DoubleQHyperparameters = DoubleQHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
    name: str = "had3qn",
) -> Algorithm:
    """HAD3QN for the team that `spec` describes, all of whose actions are discrete.

    Agents are updated one after another in random order. Agent i_m regresses its values on its slice of a joint dueling
    critic,

        q^{i_m}(o^{i_m}, a) → Q(s, a_new^{i_1:m-1}, a, a^{i_m+1:n})   for all its choices a,

    where the agents updated before take the best choices of their new values. (HARL regresses only on the choice that
    was best before, computes the choices of earlier agents from the state, and takes the choices in targets from target
    actors.) In training every agent in every environment explores independently with probability ε.

    For arguments and errors see `hajax.core.off_policy.double_q.double_q_learning`.
    """
    return double_q_learning(name, spec, settings, hyperparameters, actor=actor, critic=critic)
