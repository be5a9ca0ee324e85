"""MAAC: multi-actor-attention-critic.

Iqbal & Sha, *Actor-Attention-Critic for Multi-Agent Reinforcement Learning* (ICML 2019):
https://arxiv.org/abs/1810.02912.
"""

from __future__ import annotations

import flax.linen as nn

from hajax.core.actors import TeamActors, policy_torso
from hajax.core.algorithm import Algorithm
from hajax.core.groups import make_groups
from hajax.core.off_policy import template
from hajax.core.off_policy.attention_settings import AttentionHyperparameters, AttentionSettings
from hajax.core.off_policy.attention_values import AttentionValues
from hajax.core.off_policy.choices import TeamChoices, unlisted
from hajax.core.off_policy.counterfactual import CounterfactualParts
from hajax.spec import EnvSpec


def maac(
    spec: EnvSpec,
    settings: AttentionSettings = AttentionSettings(),
    hyperparameters: AttentionHyperparameters = AttentionHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """MAAC for the team that `spec` describes.

    Every agent has values of its own choices, Qᵢ(o, ·, a⁻ⁱ), from a network that attends to the observations and
    actions of the other agents (`hajax.nn.attention.AttentionCritic`). Simultaneously they ascend

        E[log πⁱ(aⁱ|oⁱ) · (Qᵢ(o, a) − Σ_b πⁱ(b|oⁱ) Qᵢ(o, b, a⁻ⁱ) − log πⁱ(aⁱ|oⁱ) / ρ)],   a ~ π,

    whose second factor is constant in the gradient, less a small multiple of the squared logits. The sum over one's own
    choices is a counterfactual baseline. The critics regress on

        yⁱ = Σ_{j<k} γʲ rⁱʲ + γᵏ (1 − terminated) (Q′ᵢ(o′, a′) − log π′ⁱ(a′ⁱ|o′ⁱ) / ρ),   a′ ~ π′,

    with target critics and target policies, φ′ ← τ φ + (1 − τ) φ′, and are penalized for large logits of the attention.
    1/ρ is the weight of entropy (`reward_scale`). Rewards may be individual or the team's.

    If an agent of the team has a Box, or more choices than can be enumerated, values read the agent's own action too,
    Qᵢ(o, aⁱ, a⁻ⁱ), and the baseline is their mean over `baseline_samples` actions from its policy. Policies are
    Gaussians, whose actions the environment and the critics see clipped to their bounds, and π is a density in units in
    which bounds are ±1. This is ours: the paper and its code have discrete actions.

    With another `order` agents are updated one after another, each at actions of the new policies of those before; this
    is not in the paper.

    Info: `attention`, how much agents attend to each other on average over heads, `[N, N]` (in `metrics.csv` for at
    most eight agents).

    Differences from the public code: it subtracts log π′/ρ outside the discount, and so after a termination too; it
    normalizes inputs by the statistics of every batch, here they are running ones (`normalize_observations`); its
    layers are initialized as PyTorch does.

    Args:
      actor: a flax module used as torso (see `hajax.haml`). There is no choice of a critic.

    Raises:
      ValueError: a hyperparameter is out of range, `others` is not `policy` or `epochs` not 1, `attention_heads` does
        not divide `attention_width`, agents cannot share parameters, the environment has a state per agent, or a
        `critic` is given.
    """
    actors, critics = attention_parts("maac", spec, settings, actor, critic)
    return template.make_algorithm("maac", CounterfactualParts(actors, critics, settings), hyperparameters)


def attention_parts(
    name: str, spec: EnvSpec, settings: AttentionSettings, actor: nn.Module | None, critic: nn.Module | None
) -> tuple[TeamActors, AttentionValues]:
    """The policies and critics of MAAC and of the algorithms that extend it, after the checks of their arguments."""
    if critic is not None:
        raise ValueError(f"critic of {name}; allowed: None, because its critics attend to the agents")
    settings.require(name, others="policy", epochs=1)  # its gradient is that of actions of the current policies
    template.check_spec(name, spec, per_agent_critics=True)
    if settings.attention_width % settings.attention_heads:
        raise ValueError(
            f"attention_heads={settings.attention_heads}; allowed: a divisor of attention_width="
            f"{settings.attention_width}"
        )
    groups = make_groups(spec, settings.sharing)
    choices = None if unlisted(spec, range(spec.num_agents)) else TeamChoices(spec)
    torso = policy_torso(spec, settings, actor)
    actors = TeamActors(spec, groups, torso, settings.agent_id, True, settings.output_gain)
    return actors, AttentionValues(spec, choices, settings.attention_width, settings.attention_heads)
