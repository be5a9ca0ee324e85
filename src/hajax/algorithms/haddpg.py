"""HADDPG: heterogeneous-agent deep deterministic policy gradient.

Kuba et al., *Heterogeneous-Agent Mirror Learning* (2022b), Algorithm 3: https://arxiv.org/abs/2208.01682.
"""

from __future__ import annotations

import flax.linen as nn

from hajax.core.algorithm import Algorithm
from hajax.core.off_policy.deterministic import deterministic_policy_gradient
from hajax.core.off_policy.settings import DeterministicHyperparameters, DeterministicSettings
from hajax.spec import EnvSpec


def haddpg(
    spec: EnvSpec,
    settings: DeterministicSettings = DeterministicSettings(),
    hyperparameters: DeterministicHyperparameters = DeterministicHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
    name: str = "haddpg",
) -> Algorithm:
    """HADDPG for the team that `spec` describes, all of whose actions are Boxes.

    Agents are updated one after another in random order. Agent i_m ascends (Eq. 7)

        E[Q(s, μ_new^{i_1:m-1}(o), μ^{i_m}(o^{i_m}), a^{i_m+1:n})],

    a joint critic at the actions of the new policies of the agents updated before, and at the replay's actions of the
    agents updated later. (HARL takes the latter from the current policies: `others="policy"`.) There is no drift; only
    the learning rate limits the step.

    For arguments and errors see `hajax.core.off_policy.deterministic.deterministic_policy_gradient`.
    """
    return deterministic_policy_gradient(name, spec, settings, hyperparameters, twin=False, actor=actor, critic=critic)
