"""The contract of an algorithm: pure functions closed over static configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax

from hajax.spec import EnvSpec


class Algorithm(NamedTuple):
    """A learning algorithm for one team, as pure functions.

    - `init(key, hyperparameters=None) -> state`; `None` takes `algorithm.hyperparameters`.
    - `initial_memory(batch_shape) -> memory` of the actors; empty for feed-forward policies.
    - `act(key, state, timestep, memory, deterministic=False) -> (action, extras, memory)` on any leading batch axes;
      `deterministic` is static. `extras` is what the batch needs beside the action.
    - `update(key, state, batch) -> (state, info)`, with `batch` as `kind` says: for `on_policy` an `OnPolicyBatch`, for
      `off_policy` an `OffPolicyBatch`.

    The rest is static: what the runners need to know.
    """

    name: str
    kind: Literal["on_policy", "off_policy"]
    spec: EnvSpec
    settings: Any  # the static settings, a frozen dataclass
    hyperparameters: Any  # the default numbers, a `Numbers`
    init: Callable[..., Any]
    initial_memory: Callable[[tuple[int, ...]], Any]
    act: Callable[..., tuple[jax.Array, Any, Any]]
    update: Callable[[jax.Array, Any, Any], tuple[Any, dict[str, jax.Array]]]
