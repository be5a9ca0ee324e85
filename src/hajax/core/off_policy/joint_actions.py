"""The features of joint actions, as critics read them: one row per agent, with masks of padding.

A discrete component is one-hot over its choices. A Box component is in units in which its bounds are ±1, or in native
units if it is unbounded. Policy gradients flow through the features: instead of a one-hot vector they may contain
relaxed samples.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from hajax.spec import ActionLayout, EnvSpec


@dataclasses.dataclass(frozen=True)
class JointActions:
    """The features of a team's actions, `[…, N, F]`: D · C for choices, then D for reals, if any agent has such."""

    spec: EnvSpec

    @functools.cached_property
    def own(self) -> np.ndarray:
        """The features that each agent has, bool `[N, F]`."""
        layout = self.spec.action_layout
        choices = layout.choices & layout.discrete[..., None]
        parts = [choices.reshape(len(choices), -1)] if self.spec.has_discrete else []
        parts += [layout.continuous] if self.spec.has_continuous else []
        return np.concatenate(parts, -1)

    @property
    def size(self) -> int:
        """A, the number of features of all agents without padding."""
        return int(self.own.sum())

    @property
    def columns(self) -> tuple[int, ...] | None:
        """The indices of existing features in the flattened `[N · F]` array; `None` if nothing is padded."""
        return None if self.own.all() else tuple(np.flatnonzero(self.own).tolist())

    def features(self, layout: ActionLayout, action: jax.Array) -> jax.Array:
        """The features of actions, `[…, D] -> […, F]`, with the layout of all agents, a group or one agent."""
        choice = real = None
        if self.spec.has_discrete:
            index = jnp.where(layout.discrete, action, 0).astype(int)
            choice = jax.nn.one_hot(index, self.spec.num_choices, dtype=action.dtype)
        if self.spec.has_continuous:
            center, scale = (jnp.asarray(table, action.dtype) for table in (layout.center, layout.scale))
            real = (action - center) / scale
        return self.join(layout, choice, real)

    def join(self, layout: ActionLayout, choice: jax.Array | None, real: jax.Array | None) -> jax.Array:
        """Features from choices `[…, D, C]` (one-hot, or a relaxation of it) and reals `[…, D]` in units of ±1."""
        parts = []
        if self.spec.has_discrete:
            assert choice is not None
            chosen = jnp.where(layout.discrete[..., None] & layout.choices, choice, 0)
            parts.append(chosen.reshape(*chosen.shape[:-2], -1))
        if self.spec.has_continuous:
            assert real is not None
            parts.append(jnp.where(layout.continuous, real, 0))
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, -1)
