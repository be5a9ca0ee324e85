"""Checks of a user's torso, critic and memory, before an algorithm is built from them."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.nn.memory import BaseMemory
from hajax.nn.networks import TeamCritic, apply_torso
from hajax.spec import EnvSpec

BATCH = (2, 3)  # batch axes of the trials, of which the first 0, 1 or 2 are used


def check_torso(role: str, torso: Any, width: int, masked: bool = False) -> None:
    """Raises ValueError unless a user's torso can be trained. It is evaluated on inputs `[…, O]`.

    Args:
      role: the name of the argument, `actor` or `critic`.
      torso: its value.
      width: O, the number of input entries.
      masked: whether the torso receives a mask of the entries that exist.

    Raises:
      ValueError: the torso is not an instance of a `flax.linen` module, it fails, it has variables beside its
        parameters or needs random numbers, it does not map `[…, O]` to real features `[…, H]` for any batch axes, or
        the features of one entry of a batch depend on another entry.
    """
    name = torso.__name__ if isinstance(torso, type) else type(torso).__name__
    if isinstance(torso, type):
        raise ValueError(f"{role}={name}, a class; allowed: an instance of a flax.linen module, such as {name}()")
    known = isinstance(torso, nn.Module)
    if not known and any(kind.__module__.startswith("flax.nnx") for kind in type(torso).__mro__):
        raise ValueError(
            f"{role}={name}(...), a flax.nnx module, whose parameters hajax cannot stack; allowed: an instance of a "
            f"flax.linen module, such as flax.nnx.bridge.ToLinen({name}, args=(...))"
        )
    if not known:
        raise ValueError(f"{role}={torso!r}; allowed: an instance of a flax.linen module")
    mask = jnp.ones(width, bool) if masked else None
    wrapped = _Wrapped(torso)
    what = f"{role}={name}(...)"
    try:
        variables = jax.eval_shape(wrapped.init, jax.random.key(0), jnp.zeros(width), mask)
    except Exception as error:
        raise ValueError(f"{what} fails on an input of shape ({width},): {_first_line(error)}; {_ALLOWED}") from error
    if others := sorted(set(variables) - {"params", "nnx"}):
        raise ValueError(f"{what} has variables {', '.join(others)} beside its parameters; allowed: parameters only")
    for batch in ((), BATCH[:1], BATCH):
        _check_features(what, wrapped, variables, (*batch, width), mask)
    if width and not _rows_are_independent(wrapped, width, mask):
        raise ValueError(f"{what} mixes the entries of a batch: features of one input change with another; {_ALLOWED}")


def check_memory(memory: BaseMemory, torso: nn.Module, width: int, masked: bool = False) -> None:
    """Raises ValueError unless a user's memory works after `torso`, whose inputs are `[…, width]`.

    Raises:
      ValueError: the initial memory lacks the batch axes, the memory fails, it has variables beside its parameters, it
        does not return features `[…, H]`, or a step changes the memory's structure, shapes or dtypes.
    """
    what = f"memory={type(memory).__name__}(...)"
    before = jax.eval_shape(lambda: memory.initial_memory(BATCH))
    for leaf in jax.tree.leaves(before):
        if leaf.shape[: len(BATCH)] != BATCH:
            raise ValueError(f"{what}.initial_memory({BATCH}) has shape {leaf.shape}; allowed: {BATCH}, then its own")
    mask = jnp.ones(width, bool) if masked else None

    def first_step(key):
        x = _Wrapped(torso).init_with_output(key, jnp.zeros((*BATCH, width)), mask)[0]
        given = memory.select(memory.initial_memory(BATCH), jnp.zeros(BATCH, bool), jnp.ones(BATCH, bool))
        return memory.init_with_output(key, x, given)

    try:
        (features, after), variables = jax.eval_shape(first_step, jax.random.key(0))
    except Exception as error:
        raise ValueError(
            f"{what} fails on a step with batch axes {BATCH}: {_first_line(error)}; allowed: a map of features "
            "[..., F] and the memory to features [..., H] and the new memory, whatever the batch axes"
        ) from error
    if others := sorted(set(variables) - {"params"}):
        raise ValueError(f"{what} has variables {', '.join(others)} beside its parameters; allowed: parameters only")
    if features.shape[:-1] != BATCH:
        raise ValueError(f"{what} returns features of shape {features.shape}; allowed: {BATCH} and one axis more")
    shapes = [jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", tree) for tree in (before, after)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{what} makes {shapes[1]} of {shapes[0]}; allowed: a memory of the same structure and shape")


def check_team_critic(critic: TeamCritic, spec: EnvSpec, action_size: int | None = None) -> None:
    """Raises ValueError unless a user's `TeamCritic` can be trained.

    Args:
      critic: the critic.
      spec: the environment's specification.
      action_size: F, the number of features per agent's action; `None` for a critic of state values.

    Raises:
      ValueError: it reads an unknown input (or `action`, if `action_size` is `None`), it fails, it has variables beside
        its parameters, or it does not return values `[…]` for any batch axes.
    """
    what, team = f"critic={type(critic).__name__}(...)", spec.num_agents
    shapes: dict[str, tuple[int, ...]] = {
        "state": spec.state_shape,
        "observation": (team, spec.observation_size),
        "active": (team,),
    }
    if action_size is not None:
        shapes["action"] = (team, action_size)
    if unknown := [name for name in critic.reads if name not in shapes]:
        raise ValueError(f"{what} reads {', '.join(unknown)}; allowed: {', '.join(shapes)}")
    for batch in ((), BATCH[:1], BATCH):
        given = {name: jnp.zeros((*batch, *shapes[name]), bool if name == "active" else float) for name in critic.reads}
        told = f"inputs of shapes {', '.join(f'{name} {x.shape}' for name, x in given.items())}"
        try:
            value, variables = jax.eval_shape(partial(critic.init_with_output, jax.random.key(0)), *given.values())
        except Exception as error:
            raise ValueError(f"{what} fails on {told}: {_first_line(error)}; allowed: values {batch}") from error
        if others := sorted(set(variables) - {"params"}):
            raise ValueError(
                f"{what} has variables {', '.join(others)} beside its parameters; allowed: parameters only"
            )
        if getattr(value, "shape", None) != batch or not jnp.issubdtype(value.dtype, jnp.floating):
            made = f"{value.dtype}{list(value.shape)}" if hasattr(value, "shape") else type(value).__name__
            raise ValueError(f"{what} makes {made} of {told}; allowed: real values of shape {batch}")


_ALLOWED = "allowed: a map of inputs [..., O] to features [..., H], whatever the batch axes"


class _Wrapped(nn.Module):
    """The torso as a submodule, called as hajax's networks call it."""

    torso: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        return apply_torso(self.torso, x, mask)


def _check_features(what: str, wrapped: _Wrapped, variables: Any, shape: tuple[int, ...], mask: Any) -> None:
    params = {"params": variables.get("params", {})}
    try:
        features = jax.eval_shape(wrapped.apply, params, jnp.zeros(shape), mask)
    except Exception as error:
        raise ValueError(f"{what} fails on an input of shape {shape}: {_first_line(error)}; {_ALLOWED}") from error
    if not hasattr(features, "shape"):
        raise ValueError(f"{what} returns {type(features).__name__}; {_ALLOWED}")
    if features.shape[:-1] != shape[:-1] or len(features.shape) != len(shape) or not features.shape[-1]:
        raise ValueError(f"{what} maps an input of shape {shape} to {features.shape}; {_ALLOWED}")
    if not jnp.issubdtype(features.dtype, jnp.floating):
        raise ValueError(f"{what} returns {features.dtype}; allowed: real features")


def _rows_are_independent(wrapped: _Wrapped, width: int, mask: Any) -> bool:
    """Whether the features of a batch equal those of its entries one by one, for random parameters and inputs."""

    def compare(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = jax.random.normal(key, (*BATCH, width))
        params = {"params": wrapped.init(key, x[0, 0], mask).get("params", {})}
        together = cast(jax.Array, wrapped.apply(params, x, mask))
        alone = jax.lax.map(lambda row: wrapped.apply(params, row, mask), x.reshape(math.prod(BATCH), width))
        difference = jnp.abs(together - alone.reshape(together.shape))
        return difference.max(), jnp.abs(together).max()

    with jax.ensure_compile_time_eval():  # the caller may be traced
        difference, size = jax.jit(compare)(jax.random.key(0))
        return not float(difference) > 0.01 * float(size)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
