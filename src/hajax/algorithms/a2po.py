"""A2PO: agent-by-agent policy optimization.

Wang et al., *Order Matters: Agent-by-agent Policy Optimization* (ICLR 2023): https://arxiv.org/abs/2302.06205.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.core.algorithm import Algorithm
from hajax.core.drifts import PolicyChange, reads
from hajax.core.neighborhoods import unrestricted
from hajax.core.on_policy.compound_ratio import Position
from hajax.core.on_policy.haml import haml
from hajax.core.on_policy.settings import A2POHyperparameters, GradientSettings
from hajax.spec import EnvSpec
from hajax.validation import check_has


@reads("clip")
def joint_clip(change: PolicyChange, hyperparameters: Any) -> jax.Array:
    """D = ReLU([l − clip(l, 1 ± ε)] · Â) with the joint ratio l = r · g: HAPPO's drift, clipped with the agents before.

    If |g − 1| < ε it is zero with zero gradient at the old policy, and so a drift functional: `guard=interval` is
    |g − 1| ≤ ε/2.
    """
    joint = change.ratio * change.preceding
    clipped = jnp.clip(joint, 1 - hyperparameters.clip, 1 + hyperparameters.clip)
    return jax.nn.relu((joint - clipped) / change.preceding * change.advantage)


def growing_clip(hyperparameters: A2POHyperparameters, position: Position) -> A2POHyperparameters:
    """ε_k = ε (f + (1 − f) k/N) for the k-th of N agents, f = `clip_floor`: early agents leave room for later ones."""
    share = (position.before + position.agents) / position.num_agents
    floor = hyperparameters.clip_floor
    return hyperparameters.replace(clip=hyperparameters.clip * (floor + (1 - floor) * share))


def outside_clip(change: PolicyChange, hyperparameters: A2POHyperparameters) -> dict[str, jax.Array]:
    """Whether the joint ratio is beyond 1 ± ε."""
    joint = change.ratio * change.preceding
    return {"clip_fraction": (jnp.abs(joint - 1) > hyperparameters.clip).astype(joint.dtype)}


def a2po(
    spec: EnvSpec,
    settings: GradientSettings = GradientSettings(order="semi_greedy", guard="interval"),
    hyperparameters: A2POHyperparameters = A2POHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """A2PO for the team that `spec` describes; arguments and errors as in `happo`.

    Agents are updated one after another in semi-greedy order. The k-th maximizes

        E[min(l · A, clip(l, 1 ± ε_k) · A)] + c · H,   l = r · clip(R, 1 ± ε_k/2),

    where r is its own ratio, R the product of the ratios of the agents before, ε_k grows with k (`clip_floor`), and A
    the standardized advantage with traces cut by R: A_t = δ_t + γ λ min(1, R_{t+1}) A_{t+1}. The critic is fitted once
    per update, to the usual targets.

    Here agents are ordered by what they can gain by a small step (`order`), since the paper's score, E|Â|, is the same
    for all agents with one joint advantage. The public code differs from the paper: it multiplies λ twice into the
    traces, clips R to a fixed interval, standardizes the advantages of all agents together, and has a critic per agent,
    whose scores it divides by their values. Asked for the paper's, it updates the policies to the same weights
    (`benchmarks/a2po_beside_code.py`).
    """
    settings.require("a2po", guard="interval", center_advantage=False)
    check_has(hyperparameters, A2POHyperparameters)
    if settings.order == "simultaneous":
        raise ValueError("order='simultaneous' of a2po; allowed: random, fixed, greedy, semi_greedy")
    return haml(
        "a2po",
        spec,
        settings,
        hyperparameters,
        drift=joint_clip,
        neighborhood=unrestricted,
        diagnostics=outside_clip,
        at_position=growing_clip,
        corrected_traces=True,
        actor=actor,
        critic=critic,
    )
