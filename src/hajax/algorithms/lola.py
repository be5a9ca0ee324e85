"""LOLA: learning with opponent-learning awareness, from samples.

Foerster et al., *Learning with Opponent-Learning Awareness* (AAMAS 2018): https://arxiv.org/abs/1709.04326, and *DiCE:
The Infinitely Differentiable Monte Carlo Estimator* (ICML 2018): https://arxiv.org/abs/1802.05098.
"""

from __future__ import annotations

import flax.linen as nn

from hajax.core.actors import TeamActors, policy_torso
from hajax.core.algorithm import Algorithm
from hajax.core.groups import make_groups
from hajax.core.on_policy.anticipation import make_algorithm
from hajax.core.on_policy.settings import LolaHyperparameters, LolaSettings
from hajax.spec import EnvSpec


def lola(
    spec: EnvSpec,
    settings: LolaSettings = LolaSettings(),
    hyperparameters: LolaHyperparameters = LolaHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """LOLA for the agents that `spec` describes, who may have interests of their own.

    Every agent i ascends, by one step of Adam per rollout and simultaneously with the others,

        ∇_i Jⁱ + η Σ_{j≠i} (∇_i ∇_j Jʲ) ∇_j Jⁱ:

    it anticipates that agent j is about to move by η ∇_j Jʲ, which depends on its own parameters. All derivatives are
    those of one sampled objective at the rollout, DiCE. ∇_j Jⁱ and the second derivatives come from the same
    samples, so their product is biased by O(1/E), as in the paper. For games with a round of memory
    `hajax.tabular.opponents.lola_gradient` is the exact form.

    The paper has two agents; for more this is the sum of its terms. A rollout should hold whole episodes: what an
    action does to rewards after its end is not seen. There is no critic.

    Args:
      actor: a flax module used as torso (see `hajax.haml`). There is no choice of a critic.

    Raises:
      ValueError: a hyperparameter is out of range, agents share parameters, the order is not `simultaneous`, or a
        `critic` is given.
    """
    if critic is not None:
        raise ValueError("critic of lola; allowed: None, because it has none")
    settings.require("lola", sharing="none", order="simultaneous")
    torso, groups = policy_torso(spec, settings, actor), make_groups(spec, "none")
    actors = TeamActors(spec, groups, torso, settings.agent_id, True, settings.output_gain)
    return make_algorithm("lola", settings, hyperparameters, actors)
