"""MAMT: multi-agent mirror descent with trust-region decomposition.

Li et al., *Dealing with Non-Stationarity in MARL via Trust-Region Decomposition* (ICLR 2022), Algorithm 1:
https://arxiv.org/abs/2102.10616.
"""

from __future__ import annotations

import flax.linen as nn

from hajax.algorithms.maac import attention_parts
from hajax.core.algorithm import Algorithm
from hajax.core.off_policy import template
from hajax.core.off_policy.attention_settings import DecompositionHyperparameters, DecompositionSettings
from hajax.core.off_policy.decomposition import DecompositionParts
from hajax.spec import EnvSpec


def mamt(
    spec: EnvSpec,
    settings: DecompositionSettings = DecompositionSettings(),
    hyperparameters: DecompositionHyperparameters = DecompositionHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """MAMT for the team that `spec` describes.

    Mirror descent as in MAMD (`hajax.algorithms.mamd.mamd`), with a radius δᵢ per agent that is learned. Every update
    begins with the following, for joint actions a ~ π at a minibatch of the replay:

    - the coordination coefficients C_ij = softmax over i ≠ j of |Qᵢ(o, a) − Vⱼ(o)|, Vⱼ = Σ_b πʲ(b|oʲ) Qⱼ(o, b, a⁻ʲ)
      (Eq. 7);
    - the non-stationarity Dᵢ = KL(πʲ(·|oʲ) ‖ π̂ⁱ(·|oⁱ, j)) / Mⱼ that agent i meets in its closest partner
      j = argmax_j Σ C_ij, whose policy has Mⱼ outputs: choices, and means of real components (Eq. 5). The modeling
      policies π̂ⁱ learn the others' actions in the replay by cross-entropy;
    - the slow step, of the radii: Adam on Σᵢ E_π[ln_q πⁱ − ln_q πⁱ_old] / δᵢ + mean K̂, clipped to `radius_min` and
      `radius_max`. The first sum is what the radii change in the policies' objectives, with its expectation over an
      agent's own choices; K̂ᵢ(o, a, δ) is the decomposition network's estimate of Dᵢ (Eq. 8);
    - the fast step, of that network: regression of K̂ᵢ on Dᵢ. It is a product of two factors per agent, one of which
      passes the agents' encodings over the graph of C (`hajax.nn.decomposition.TrustRegionDecomposition`).

    Info, per agent: `radius`, `non_stationarity`, `coordination` and `coordination_std` (the mean and standard
    deviation of C_ij over samples and j), `modeling_loss`; `decomposition_loss`.

    `critic_max_grad_norm` and `critic_l2` are also the network's, `max_grad_norm` is also that of the radii and models,
    and `logit_penalty` also the models'. The paper's table has one learning rate of Adam, 0.001, for all of these; the
    radii are slow because their range is large, 0.01 to 100.

    Differences from the public code: there the policies' losses give δ no gradient, and the modeling policies are not
    trained; all of this follows the critics' step, and here comes before it, as in Algorithm 1; the copies of the
    policies are made before their step and not after it; δ has weight decay; agents' messages to themselves have
    weight 0, and other weights are of other edges than they should be.

    Args:
      actor: a flax module used as torso (see `hajax.haml`). There is no choice of a critic.

    Raises:
      ValueError: as `maac`, or `radius` is not between `radius_min` and `radius_max`.
    """
    actors, critics = attention_parts("mamt", spec, settings, actor, critic)
    parts = DecompositionParts(actors, critics, settings, (True,) * spec.num_agents)
    return template.make_algorithm("mamt", parts, hyperparameters)
