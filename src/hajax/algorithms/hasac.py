"""HASAC: heterogeneous-agent soft actor-critic.

Liu et al., *Maximum Entropy Heterogeneous-Agent Reinforcement Learning* (ICLR 2024), Algorithm 2:
https://arxiv.org/abs/2306.10715.
"""

from __future__ import annotations

import flax.linen as nn

from hajax.core.algorithm import Algorithm
from hajax.core.drifts import no_drift
from hajax.core.off_policy.mehaml import mehaml
from hajax.core.off_policy.settings import SoftHyperparameters, SoftSettings
from hajax.spec import EnvSpec


def hasac(
    spec: EnvSpec,
    settings: SoftSettings = SoftSettings(others="policy"),
    hyperparameters: SoftHyperparameters = SoftHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
    name: str = "hasac",
) -> Algorithm:
    """HASAC for the team that `spec` describes; actions may be discrete, Boxes, or both.

    Agents are updated one after another in random order. Agent i_m ascends (Eq. 10)

        E[min_j Q_j(s, a_new^{i_1:m-1}, a^{i_m}, a^{i_m+1:n}) − α log π(a^{i_m}|o^{i_m})],   a^{i_m} ~ π,

    with reparametrized samples: a Gaussian squashed by tanh for Boxes, a Gumbel softmax for choices (or, with
    `expectation="exact"`, a sum over all choices). The actions of the agents updated before are samples of their new
    policies; those of the agents updated later are samples of their current policies, over which the paper's
    multi-agent Q is an expectation. (HARL omits the log of an action's scale from its log-probability, and its target
    entropy of choices evaluates to 0.)

    For few choices use the exact expectation. A Gumbel softmax uses gradients of the learned critic between choices,
    where it was never fitted; in the paper's matrix game this leads to other policies (`docs/results/theory.md`).

    It is maximum-entropy mirror learning without drift. For arguments and errors see `hajax.mehaml`.
    """
    return mehaml(name, spec, settings, hyperparameters, drift=no_drift, actor=actor, critic=critic)
