"""The contract of an algorithm: pure functions closed over static configuration."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

import jax

from hajax.spec import EnvSpec, Timestep


class Init(Protocol):
    """Makes a state: parameters, optimizers, statistics, and the hyperparameters as arrays."""

    def __call__(self, key: jax.Array, hyperparameters: Any = None) -> Any:
        """The state of a fresh team.

        Args:
          key: a typed key, `jax.random.key(seed)`.
          hyperparameters: those to learn with, which may be traced; `algorithm.hyperparameters` if `None`.

        Raises:
          ValueError: a concrete hyperparameter is out of range.
        """


class InitialMemory(Protocol):
    """Makes what the actors remember before an episode's first step; a tree without leaves if they do not remember."""

    def __call__(self, batch_shape: tuple[int, ...], /) -> Any:
        """Of so many environments, arrays `[*batch_shape, N, …]`."""


class Act(Protocol):
    """Chooses the actions of all agents. Only actors run: no values are computed."""

    def __call__(
        self, key: jax.Array, state: Any, timestep: Timestep, memory: Any, deterministic: bool = False
    ) -> tuple[jax.Array, Any, Any]:
        """On any leading batch axes `[…]`.

        Args:
          key: one key, for the whole batch.
          state: what `init` or `update` returned.
          timestep: `[…, N, O]` and so on, as of `Timestep`.
          memory: what was remembered before, `[…, N, …]`; forgotten where `timestep.first`.
          deterministic: static; the most likely action instead of a sampled one, without exploration.

        Returns:
          Actions `[…, N, D]`, in native units; what the batch needs beside them (on-policy, `log_prob` `[…, N]`); and
          the new memory.
        """


class Update(Protocol):
    """Learns from one batch."""

    def __call__(self, key: jax.Array, state: Any, batch: Any) -> tuple[Any, dict[str, jax.Array]]:
        """The new state, and what happened: diagnostics by name, of the team, per group or per critic.

        `batch` is an `OnPolicyBatch` `[T, E, …]` or an `OffPolicyBatch` `[policy_delay, B, …]`, as `Algorithm.kind`
        says.
        """


class Algorithm(NamedTuple):
    """A learning algorithm for one team: four pure functions, and what runners need to know."""

    name: str
    kind: Literal["on_policy", "off_policy"]
    spec: EnvSpec
    settings: Any  # the static settings, a frozen dataclass
    hyperparameters: Any  # the default ones, a `BaseHyperparameters`
    init: Init
    initial_memory: InitialMemory
    act: Act
    update: Update
