"""Settings and hyperparameters of on-policy algorithms."""

from __future__ import annotations

import dataclasses

import jax

from hajax.core.losses import VALUE_LOSSES
from hajax.core.on_policy.guards import GUARDS
from hajax.core.sequential import ORDERS, ORDERS_BY_SCORE
from hajax.core.settings import (
    AdaptiveHyperparameters,
    AscentHyperparameters,
    AscentSettings,
    BallHyperparameters,
    BallSettings,
    ClipHyperparameters,
    TeamHyperparameters,
    TeamSettings,
)
from hajax.nn.memory import GRU, MEMORIES, NO_MEMORY, BaseMemory
from hajax.spec import RewardKind
from hajax.validation import setting

KL_BUDGETS = ("agent", "joint", "unspent")


class Hyperparameters(ClipHyperparameters, TeamHyperparameters):
    """Hyperparameters of every on-policy algorithm. Defaults are HARL's, except for `value_decay`."""

    truncation: float | jax.Array = setting(
        2.0, "c: with `guard=truncate`, the largest compound ratio", low=1, finite=False
    )

    max_grad_norm: float | jax.Array = 10.0
    adam_eps: float | jax.Array = 1e-5
    critic_lr: float | jax.Array = setting(5e-4, "the critic's learning rate", low=0)
    gae_lambda: float | jax.Array = setting(
        0.95, "λ of generalized advantage estimation: 0 is one-step, 1 is Monte Carlo", low=0, high=1
    )
    huber_delta: float | jax.Array = setting(
        10.0, "with `value_loss=huber`, the error beyond which the loss is linear", low=0, open_low=True
    )
    value_decay: float | jax.Array = setting(
        0.9,
        "β: the running statistics of values keep this share when they are updated (HARL: 0.99999, an average over all "
        "updates)",
        low=0,
        high=1,
    )


class GradientHyperparameters(AscentHyperparameters, Hyperparameters):
    """Hyperparameters of HAPPO, HAA2C and their baselines."""

    entropy_coef: float | jax.Array = setting(0.01, "c: the weight of the policies' entropy in their objective", low=0)


class A2POHyperparameters(GradientHyperparameters):
    """Hyperparameters of A2PO."""

    clip: float | jax.Array = setting(
        0.2,
        "ε: the joint ratio of all agents is clipped to 1 ± ε",
        low=0,
        high=1,
        open_low=True,
    )
    clip_floor: float | jax.Array = setting(
        0.5, "f: the k-th of N agents clips to 1 ± ε (f + (1 − f) k/N), ε = `clip`", low=0, high=1, open_low=True
    )


class DriftHyperparameters(AdaptiveHyperparameters, GradientHyperparameters):
    """Hyperparameters of algorithms with a drift c · D, whose coefficient may be adaptive."""


class TrustRegionHyperparameters(BallHyperparameters, Hyperparameters):
    """Hyperparameters of HATRPO."""


@dataclasses.dataclass(frozen=True)
class Settings(TeamSettings):
    """Static settings of every on-policy algorithm.

    Defaults are HARL's, except for `action_scaling`, `clip_value`, `guard` and `value_statistics_per`.
    """

    order: str = setting(
        "random",
        "the order of the groups' updates: `random` (a fresh permutation every update), `fixed`, `simultaneous`, "
        "`greedy` (by the expected gain of a small step, the largest first), or `semi_greedy` (the group with the "
        "largest gain that is left, then a random one, and so on)",
        choices=(*ORDERS, *ORDERS_BY_SCORE),
    )
    guard: str = setting(
        "truncate",
        "the weights of the advantage: the compound ratio of the agents updated before (`none`, as in the papers), at "
        "most `truncation` (`truncate`), the product of ratios clipped to 1 ± `clip` (`clip`), clipped to 1 ± "
        "`clip` / 2 (`interval`), or divided by its mean (`normalize`)",
        choices=tuple(GUARDS),
    )
    center_advantage: bool = setting(
        False,
        "subtract a constant from the weighted advantage, so that it has the mean of the advantage without weights; "
        "policies that are updated late in the order can keep more entropy",
    )
    critic_epochs: int = setting(5, "the critic's passes over a rollout")
    minibatches: int = setting(1, "minibatches in every pass over a rollout")
    centralized: bool = setting(
        True,
        "one critic on the state; otherwise critics on individual observations, grouped like the actors",
    )
    std_scale: float = setting(
        0.5, "the largest standard deviation of the default networks' Gaussian", low=0, open_low=True
    )
    memory: str | BaseMemory = setting(
        "none",
        "`gru` adds a gated recurrent unit after every torso, as wide as the last of `hidden_sizes`; `none`: "
        "feed-forward networks",
        choices=MEMORIES,
        instances=(BaseMemory,),
        allowed="none, gru, or in Python a hajax.nn.Memory",
    )
    chunk_length: int = setting(
        10, "steps of truncated back-propagation through a memory; minibatches consist of such chunks"
    )
    action_scaling: bool = setting(
        True, "a bounded Box's Gaussian has its bounds at ±1 (HARL: false, which is native units)"
    )
    value_loss: str = setting("huber", "the critic's loss", choices=VALUE_LOSSES)
    clip_value: bool = setting(False, "clip the change of values in the critic's loss, as in PPO's code (HARL: true)")
    normalize_values: bool = setting(True, "normalize the critic's targets by running statistics")
    value_statistics_per: str = setting(
        "update",
        "what the running statistics are updated with: all of the critic's targets, once per `update`, or those of "
        "every `minibatch`, as in HARL",
        choices=("update", "minibatch"),
    )

    @property
    def sample_length(self) -> int:
        """The number of steps per sample of a minibatch: 1, or `chunk_length` with a memory."""
        return self.chunk_length if self.make_memory().remembers else 1

    def make_memory(self) -> BaseMemory:
        """The memory after every torso: the user's module, or the one that `memory` names."""
        if isinstance(self.memory, BaseMemory):
            return self.memory
        return GRU(self.hidden_sizes[-1], self.layer_norm, name="gru") if self.memory == "gru" else NO_MEMORY

    @property
    def rewards(self) -> tuple[RewardKind, ...]:
        """The kinds of reward that suit these settings.

        A joint advantage needs the team reward, and so does the compound ratio, which weights a joint advantage. Agents
        that are updated simultaneously, each with its own critic, may learn from either kind.
        """
        independent = not self.centralized and self.order == "simultaneous"
        return ("team", "individual") if independent else ("team",)


@dataclasses.dataclass(frozen=True)
class GradientSettings(AscentSettings, Settings):
    """Static settings of HAPPO, HAA2C and their baselines."""


@dataclasses.dataclass(frozen=True)
class TrustRegionSettings(BallSettings, Settings):
    """Static settings of HATRPO."""

    kl_budget: str = setting(
        "agent",
        "what `kl_radius` bounds: the KL divergence of every `agent`; that of the `joint` policy, which is the sum "
        "over agents, in equal shares; or the same, with what earlier agents left `unspent` shared by the later ones",
        choices=KL_BUDGETS,
    )


class LolaHyperparameters(AscentHyperparameters, TeamHyperparameters):
    """Hyperparameters of LOLA."""

    discount: float | jax.Array = 0.96
    actor_lr: float | jax.Array = 0.05
    lookahead: float | jax.Array = setting(
        1.0, "η: the step along its own gradient that an agent expects of every other; 0 is a naive learner", low=0
    )


@dataclasses.dataclass(frozen=True)
class LolaSettings(TeamSettings):
    """Static settings of LOLA."""

    order: str = "simultaneous"
    layer_norm: bool = False

    @property
    def rewards(self) -> tuple[str, ...]:
        """The kinds of reward, the usual one last."""
        return ("team", "individual")
