"""The interface of an algorithm: pure functions, closed over static configuration."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

import jax

from hajax.spec import EnvSpec, Timestep


class Init(Protocol):
    """Makes a learner state: parameters, optimizer states, statistics, and the hyperparameters as arrays."""

    def __call__(self, key: jax.Array, hyperparameters: Any = None) -> Any:
        """The learner state before the first update.

        Args:
          key: a typed key, `jax.random.key(seed)`.
          hyperparameters: replace the defaults, `algorithm.hyperparameters`, if not `None`. They may be traced.

        Raises:
          ValueError: a concrete hyperparameter is out of range.
        """


class InitialMemory(Protocol):
    """Makes the actors' memory at the start of an episode; a tree without leaves if they have none."""

    def __call__(self, batch_shape: tuple[int, ...], /) -> Any:
        """The memory for a batch of environments, arrays `[*batch_shape, N, …]`."""


class Act(Protocol):
    """Chooses the actions of all agents. Only the actors are evaluated, not the critics."""

    def __call__(
        self, key: jax.Array, state: Any, timestep: Timestep, memory: Any, deterministic: bool = False
    ) -> tuple[jax.Array, Any, Any]:
        """The actions for one timestep, with any leading batch axes `[…]`.

        Args:
          key: one key for the whole batch.
          state: the learner state.
          timestep: what the agents observe, with the shapes of `Timestep` after the batch axes.
          memory: the memory before this step, `[…, N, …]`. It is reset where `timestep.first`.
          deterministic: static. Takes the most likely action instead of a sample, without exploration.

        Returns:
          Actions `[…, N, D]` in native units; what the batch stores beside them (on-policy: `log_prob` `[…, N]`); and
          the new memory.
        """


class Update(Protocol):
    """Learns from one batch."""

    def __call__(self, key: jax.Array, state: Any, batch: Any) -> tuple[Any, dict[str, jax.Array]]:
        """The new learner state, and diagnostics by name: scalars, or arrays per group, agent or critic.

        `batch` is an `OnPolicyBatch` `[T, E, …]` if `Algorithm.kind` is `"on_policy"`, or else an `OffPolicyBatch`
        `[policy_delay, B, …]`.
        """


class Algorithm(NamedTuple):
    """A learning algorithm for one team: four pure functions, and their static configuration."""

    name: str
    kind: Literal["on_policy", "off_policy"]
    spec: EnvSpec
    settings: Any  # the static settings, a frozen dataclass
    hyperparameters: Any  # the defaults, a `BaseHyperparameters`
    init: Init
    initial_memory: InitialMemory
    act: Act
    update: Update
