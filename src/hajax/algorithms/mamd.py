"""MAMD: multi-agent mirror descent with equal trust regions, and MAMD-OP, with those of a known dependency graph.

Li et al., *Dealing with Non-Stationarity in MARL via Trust-Region Decomposition* (ICLR 2022), Algorithm 2 and Appendix
D: https://arxiv.org/abs/2102.10616.
"""

from __future__ import annotations

import itertools

import flax.linen as nn

from hajax.algorithms.maac import attention_parts
from hajax.core.algorithm import Algorithm
from hajax.core.off_policy import template
from hajax.core.off_policy.attention_settings import DependencySettings, MirrorHyperparameters
from hajax.core.off_policy.mirror_descent import MirrorParts
from hajax.spec import EnvSpec


def mamd(
    spec: EnvSpec,
    settings: DependencySettings = DependencySettings(),
    hyperparameters: MirrorHyperparameters = MirrorHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """MAMD for the team that `spec` describes.

    Critics, targets and baselines are MAAC's (`hajax.algorithms.maac.maac`). The policies take a step of mirror
    descent, in which the distance to an old policy takes the place of the entropy,

        E[log πⁱ(aⁱ|oⁱ) · (Qᵢ(o, a) − Σ_b πⁱ(b|oⁱ) Qᵢ(o, b, a⁻ⁱ) − (ln_q πⁱ(aⁱ|oⁱ) − ln_q πⁱ_old(aⁱ|oⁱ)) / δ)],   a ~ π,

    whose second factor is constant in the gradient (Eq. 10). ln_q(p) = (p^(1−q) − 1) / (1 − q) is the Tsallis
    logarithm of probabilities of at least 10⁻⁶; with q = 1 it is the logarithm, and the mean distance is
    KL(πⁱ ‖ πⁱ_old). For other q it is not a divergence: its mean is negative for some pairs of policies. In a team with
    a Box π is a density in units in which bounds are ±1, with no least value, and only q = 1 has a meaning without
    units. δ is the agents' common `radius`, and π_old a copy of the policies, made every `old_policy_interval` updates.

    With `dependencies` (MAMD-OP) only agents in one of its pairs have a trust region. For the others the cost is
    log π / ρ, so that `dependencies=[]` is MAAC.

    Info: `kl_to_old`, the mean KL(πⁱ ‖ πⁱ_old) of every group, with or without trust regions.

    Args:
      actor: a flax module used as torso (see `hajax.haml`). There is no choice of a critic.

    Raises:
      ValueError: as `maac`, or `dependencies` names an agent that the team does not have.
    """
    names = [agent.name for agent in spec.agents]
    pairs = settings.dependencies
    if unknown := [name for name in itertools.chain(*(pairs or ())) if name not in names]:
        raise ValueError(
            f"dependencies={[list(pair) for pair in pairs or ()]} names {unknown[0]!r}, which is not an "
            f"agent of {spec.name}; allowed: {', '.join(names)}"
        )
    constrained = tuple(pairs is None or any(name in pair for pair in pairs) for name in names)
    actors, critics = attention_parts("mamd", spec, settings, actor, critic)
    return template.make_algorithm("mamd", MirrorParts(actors, critics, settings, constrained), hyperparameters)
