"""The joints that an agent drives and observes: a robot's joints, the graph between them, and index maps.

Everything that can be observed is an entry of one vector, the *readings*: the concatenation of named sections (`qpos`,
`qvel`, `cinert`, …). An agent's observation is a list of entries, and so is that of Gymnasium's single agent. The maps
are NumPy constants, made once, before anything is compiled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

BODY_SECTIONS = {"cinert": 10, "cvel": 6, "cfrc_ext": 6}  # entries per body


@dataclasses.dataclass(frozen=True)
class Layout:
    """The positions of the sections in the readings, from their `sizes` in order."""

    sizes: Mapping[str, int]

    def __getitem__(self, section: str) -> np.ndarray:
        """The entries of one section, int `[size]`."""
        start = 0
        for name, size in self.sizes.items():
            if name == section:
                return np.arange(start, start + size)
            start += size
        raise KeyError(section)

    def body(self, section: str, body: int) -> np.ndarray:
        """The entries of one body in a section with entries for every body."""
        width = BODY_SECTIONS[section]
        return self[section][body * width : (body + 1) * width]


@dataclasses.dataclass(frozen=True)
class Joint:
    """A joint: its entries in each category, and its bodies for the body categories.

    `actuator` is the index of the actuator that drives it, `None` without one.
    """

    name: str
    actuator: int | None
    entries: Mapping[str, tuple[int, ...]]
    bodies: tuple[int, ...] = ()


def by_distance(own: Sequence[str], edges: Iterable[Iterable[str]], k: int) -> list[list[str]]:
    """The joints at distance 0, …, k from the agent's joints in the graph, sorted by name within a distance.

    The joints of one edge, which may be more than two, are all neighbors of each other.
    """
    groups = [set(edge) for edge in edges]
    seen = newest = set(own)
    levels = [sorted(newest)]
    for _ in range(k):
        newest = {joint for group in groups if group & newest for joint in group} - seen
        seen = seen | newest
        levels.append(sorted(newest))
    return levels


def entries(
    layout: Layout,
    levels: Sequence[Sequence[Joint]],
    categories: Sequence[Sequence[str]],
    common: Sequence[Joint],
    common_categories: Sequence[str],
) -> np.ndarray:
    """The entries of the readings that an agent observes, in order, int `[O]`.

    First the joints, by distance, each with the categories of its distance (the last ones are for all further joints);
    then, category by category, the `common` joints, which have no actuator. A body that belongs to several joints is
    observed with the first of them only.
    """
    found: list[int] = []
    shown: set[tuple[str, int]] = set()

    def show(joint: Joint, category: str) -> None:
        if category in joint.entries:
            found.extend(joint.entries[category])
        elif category in BODY_SECTIONS:
            for body in joint.bodies:
                if (category, body) not in shown:
                    shown.add((category, body))
                    found.extend(layout.body(category, body))

    for distance, joints in enumerate(levels):
        for joint in joints:
            for category in categories[min(distance, len(categories) - 1)]:
                show(joint, category)
    shown.clear()
    for category in common_categories:
        for joint in common:
            show(joint, category)
    return np.array(found, int)


def check_partition(what: str, partition: Sequence[Sequence[str]], driven: Sequence[str]) -> None:
    """Raises ValueError unless every joint with an actuator belongs to exactly one agent."""
    owned = [joint for agent in partition for joint in agent]
    allowed = f"each of {', '.join(driven)} exactly once, and no agent without one"
    for joint in owned:
        if joint not in driven:
            raise ValueError(f"partition of {what} names {joint!r}, which no actuator drives; allowed: {allowed}")
        if owned.count(joint) > 1:
            raise ValueError(f"partition of {what} names {joint!r} {owned.count(joint)} times; allowed: {allowed}")
    if left := [joint for joint in driven if joint not in owned]:
        raise ValueError(f"partition of {what} leaves out {', '.join(left)}; allowed: {allowed}")
    if not all(partition):
        raise ValueError(f"partition of {what} has an agent without joints; allowed: {allowed}")


def drivers(controls: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """For every actuator the agent that drives it and the component of its action, int `[nu]` each.

    `controls` has the actuators of each agent, in the order of its action.
    """
    owners = {actuator: (i, j) for i, agent in enumerate(controls) for j, actuator in enumerate(agent)}
    agent, component = np.array([owners[actuator] for actuator in range(len(owners))], np.int32).T
    return agent, component
