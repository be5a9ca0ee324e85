"""Which joints an agent drives and what it sees: a robot's joints, the graph between them, and index maps.

Everything that an agent can see is an entry of one vector, the *readings*: named sections (`qpos`, `qvel`, `cinert`, …)
end to end. What an agent observes is then a list of entries, and so is the observation of Gymnasium's single agent.
The maps are NumPy constants, made once, before anything is compiled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

BODY_SECTIONS = {"cinert": 10, "cvel": 6, "cfrc_ext": 6}  # entries per body


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where each section of the readings lies: `sizes` in order."""

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
        """The entries of one body in a section that has some for each."""
        width = BODY_SECTIONS[section]
        return self[section][body * width : (body + 1) * width]


@dataclasses.dataclass(frozen=True)
class Joint:
    """What belongs to a joint: the entries that each category shows of it, and the bodies that body categories show.

    `actuator` is the number of the actuator that drives it, `None` if nothing does.
    """

    name: str
    actuator: int | None
    entries: Mapping[str, tuple[int, ...]]
    bodies: tuple[int, ...] = ()


def by_distance(own: Sequence[str], edges: Iterable[Iterable[str]], k: int) -> list[list[str]]:
    """The joints at distance 0, …, k of the agent's own ones over the graph, those of one distance in order of name.

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

    First its joints, by distance, each with the categories of its distance (the last ones hold for all beyond); then
    category by category what all agents see of the `common` joints, which nobody drives. A body that belongs to several
    joints is shown with the first of them only.
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
    """Raises ValueError unless every one of the joints that have an actuator has exactly one owner."""
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
