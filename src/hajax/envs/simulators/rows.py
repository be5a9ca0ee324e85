"""A team's timesteps as rows of numbers, which worker processes write and compiled programs read."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from hajax.envs.simulators.interface import MASK
from hajax.spec import EnvSpec


class Column(NamedTuple):
    """Where a field of a timestep is in a row, and its shape."""

    place: slice
    shape: tuple[int, ...]


class Layout(NamedTuple):
    """A team as rows `[W]`: what the next action depends on, the same of the final step, then the rest."""

    spec: EnvSpec
    metrics: tuple[str, ...]
    columns: dict[str, Column]
    shown: slice  # `observation`, `state`, `action_mask`, `active`
    final: slice
    width: int
    joint_reward: bool = False  # whether all agents get one reward, which counts once

    def fields(self, rows: Any) -> dict[str, Any]:
        """The fields of rows `[…, W]`; views of an array of NumPy."""
        return {
            name: rows[..., column.place].reshape((*rows.shape[:-1], *column.shape))
            for name, column in self.columns.items()
        }


def make_layout(spec: EnvSpec, metrics: tuple[str, ...]) -> Layout:
    """The layout of rows. A row has no state that is made from observations, and no masks that are always true."""
    shapes: dict[str, tuple[int, ...]] = {"observation": (spec.num_agents, spec.observation_size)}
    shapes |= {} if spec.state_from_observations else {"state": spec.state_shape}
    shapes |= {MASK: spec.action_layout.choices.shape} if spec.masks_actions else {}
    shapes |= {"active": (spec.num_agents,)}
    size = sum(math.prod(shape) for shape in shapes.values())
    shapes |= {f"final.{name}": shape for name, shape in shapes.items()}
    shapes |= {"reward": (spec.num_agents,), "terminated": (), "truncated": ()}
    shapes |= {f"metrics.{name}": () for name in metrics}
    columns, start = {}, 0
    for name, shape in shapes.items():
        columns[name] = Column(slice(start, start + math.prod(shape)), shape)
        start += math.prod(shape)
    return Layout(spec, metrics, columns, slice(0, size), slice(size, 2 * size), start)
