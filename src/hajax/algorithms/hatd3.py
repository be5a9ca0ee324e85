"""HATD3: heterogeneous-agent twin delayed deep deterministic policy gradient.

Zhong et al., *Heterogeneous-Agent Reinforcement Learning* (JMLR 2024): https://arxiv.org/abs/2304.09870. It is HADDPG
(Kuba et al., 2022b, Algorithm 3) with TD3's changes to DDPG (Fujimoto et al., 2018: https://arxiv.org/abs/1802.09477).
"""

from __future__ import annotations

import flax.linen as nn

from hajax.core.algorithm import Algorithm
from hajax.core.off_policy.deterministic import deterministic_policy_gradient
from hajax.core.off_policy.settings import DeterministicSettings, TwinHyperparameters
from hajax.spec import EnvSpec


def hatd3(
    spec: EnvSpec,
    settings: DeterministicSettings = DeterministicSettings(policy_delay=2),
    hyperparameters: TwinHyperparameters = TwinHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
    name: str = "hatd3",
) -> Algorithm:
    """HATD3 for the team that `spec` describes, all of whose actions are Boxes.

    HADDPG with three changes: targets use the smaller value of two critics; clipped noise is added to the target
    policies' actions, which smooths the critics,

        y = r + γ min_j Q′_j(s′, clip(μ′(o′) + clip(ε, ±c))),   ε ~ N(0, σ²);

    and there are `policy_delay` critic steps per step of actors and targets. Actors ascend the first critic. As in
    HADDPG the actions of the agents updated later are the replay's (HARL: their current policies', `others="policy"`).

    For arguments and errors see `hajax.core.off_policy.deterministic.deterministic_policy_gradient`.
    """
    return deterministic_policy_gradient(name, spec, settings, hyperparameters, twin=True, actor=actor, critic=critic)
