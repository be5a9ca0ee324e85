"""ID3QN: independent dueling double Q-learning, in which every agent learns from its own targets.

Tampuu et al., *Multiagent Cooperation and Competition with Deep Reinforcement Learning* (2017):
https://arxiv.org/abs/1511.08779; with double Q-learning (van Hasselt et al., 2016: https://arxiv.org/abs/1509.06461)
and dueling networks (Wang et al., 2016: https://arxiv.org/abs/1511.06581).
"""

from __future__ import annotations

import flax.linen as nn

from hajax.core.actors import policy_torso
from hajax.core.algorithm import Algorithm
from hajax.core.groups import make_groups
from hajax.core.off_policy.choices import team_choices
from hajax.core.off_policy.double_q import IndependentParts
from hajax.core.off_policy.own_values import OwnValues
from hajax.core.off_policy.settings import DuelingSettings, IndependentQHyperparameters
from hajax.core.off_policy.template import make_algorithm
from hajax.spec import EnvSpec


def id3qn(
    spec: EnvSpec,
    settings: DuelingSettings = DuelingSettings(order="simultaneous"),
    hyperparameters: IndependentQHyperparameters = IndependentQHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """ID3QN for the team that `spec` describes, all of whose actions are discrete.

    Every agent regresses its values qⁱ(oⁱ, aⁱ) on

        yⁱ = Σ_{j<k} γʲ rⁱʲ + γᵏ (1 − terminated) q′ⁱ(o′ⁱ, argmax_a qⁱ(o′ⁱ, a)),

    with the team reward or the individual reward (`reward="individual"`), and targets φ′ ← τ φ + (1 − τ) φ′. For a
    single agent this is D3QN. An agent that became inactive within the n steps has no value afterwards. With a team
    reward, which continues, the mean of the active agents' values replaces it; an individual reward is not continued.

    Args:
      actor: a flax module used as torso; see `hajax.core.off_policy.double_q.double_q_learning`. There is no critic.

    Raises:
      ValueError: as `double_q_learning`, except that the number of the team's joint choices is not limited; or a
        `critic` is given.
    """
    name = "id3qn"
    settings.require(name, order="simultaneous")
    if critic is not None:
        raise ValueError(f"critic={type(critic).__name__} of {name}, which has none; allowed: None")
    torso = policy_torso(spec, settings, actor)
    own = OwnValues(spec, make_groups(spec, settings.sharing), team_choices(name, spec), torso, settings)
    return make_algorithm(name, IndependentParts(own, settings), hyperparameters)
