"""The tables of a robot: readings, joints, neighbors, and the observation of Gymnasium's single agent."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hajax.envs.mamujoco.factorization import Joint, Layout, by_distance, entries
from hajax.envs.mamujoco.robots import Robot

SECTIONS = ("qpos", "qvel", "qfrc_actuator", "cinert", "cvel", "cfrc_ext")  # of joints and bodies
OF_ALL = ("act", "sensordata")


class Anatomy:
    """The tables of one robot, computed from its model."""

    def __init__(self, robot: Robot, model: Any, sizes: Mapping[str, int], observation: str):
        """Of `robot` with a mujoco.MjModel, section sizes of the readings, and the sections of the observation."""
        self.robot, self.model = robot, model
        self.layout = Layout(sizes)
        self.observation = self._parse(observation)

    @property
    def categories(self) -> tuple[str, ...]:
        """The quantities of joints that agents can observe."""
        own = dict.fromkeys(category for _, category in self.robot.shows)
        return tuple(dict.fromkeys((*(name for name in SECTIONS if name in self.layout.sizes), *own)))

    @functools.cached_property
    def actuators(self) -> dict[str, int]:
        """The driven joints and their actuators, in the order of the actuators."""
        return {self.model.joint(self.model.actuator(i).trnid[0]).name: i for i in range(self.model.nu)}

    @functools.cached_property
    def joints(self) -> dict[str, Joint]:
        return {name: self._joint(name) for name in (self.model.joint(i).name for i in range(self.model.njnt))}

    @functools.cached_property
    def edges(self) -> list[set[str]]:
        """Neighboring joints: the robot's, or the driven ones of a body, its nearest jointed ancestor, or siblings."""
        if self.robot.edges is not None:
            return [set(edge.split()) for edge in self.robot.edges]
        on_body: dict[int, list[str]] = {}
        for name in self.actuators:
            on_body.setdefault(int(self.model.joint(name).bodyid[0]), []).append(name)
        edges = [set(names) for names in on_body.values()]
        beside: dict[int, set[str]] = {}  # driven joints of bodies below the same body, with no driven joint above
        for body, names in on_body.items():
            parent = int(self.model.body_parentid[body])
            while parent and parent not in on_body and not self.model.body_jntnum[parent]:
                parent = int(self.model.body_parentid[parent])
            if parent in on_body:
                edges.append({*names, *on_body[parent]})
            else:
                beside.setdefault(parent, set()).update(names)
        return [edge for edge in [*edges, *beside.values()] if len(edge) > 1]

    def local(self, own: Sequence[str], k: int, categories: Sequence[str], common_categories: str) -> np.ndarray:
        """The entries that the agent with these joints observes, of joints up to k edges away."""
        levels = [[self.joints[name] for name in level] for level in by_distance(own, self.edges, k)]
        common = [self.joints[name] for name in self.robot.common.split()]
        return entries(self.layout, levels, [c.split() for c in categories], common, common_categories.split())

    def _parse(self, text: str) -> np.ndarray:
        """The entries of `section`, `section:start` and `section:start:stop`, without hidden ones.

        Raises ValueError for an unknown section.
        """
        found = [np.zeros(0, int)]
        for part in text.split():
            name, *bounds = part.split(":")
            if name not in self.layout.sizes or len(bounds) > 2 or not all(bound.isdecimal() for bound in bounds):
                sections = ", ".join(self.layout.sizes)
                raise ValueError(f"observation names {part!r}; allowed: {sections}, each also as name:start:stop")
            start, stop = (*map(int, bounds), None, None)[:2]
            found.append(self.layout[name][start:stop])
        return self._seen(np.concatenate(found))

    def _seen(self, entries: np.ndarray) -> np.ndarray:
        return entries[~np.isin(entries, self.layout["qpos"][: self.robot.hidden])]

    def _joint(self, name: str) -> Joint:
        joint, shows = self.model.joint(name), self.robot.shows
        qpos = slice(joint.qposadr[0], joint.qposadr[0] + joint.qpos0.size)
        dof = slice(joint.dofadr[0], joint.dofadr[0] + joint.damping.size)
        spans = {"qpos": qpos, "qvel": dof, "qfrc_actuator": dof}
        shown = {c: self._seen(self.layout[c][span]) for c, span in spans.items() if c in self.layout.sizes}
        shown |= {category: self._parse(text) for (of, category), text in shows.items() if of == name}
        entries = {category: tuple(x.tolist()) for category, x in shown.items()}
        return Joint(name, self.actuators.get(name), entries, self._bodies(name, int(joint.bodyid[0])))

    def _bodies(self, name: str, own: int) -> tuple[int, ...]:
        """The bodies of a joint from the robot's list; a number n is the n-th ancestor of the joint's body."""

        def find(body: str | int) -> int:
            if isinstance(body, str):
                return int(self.model.body(body).id)
            found = own
            for _ in range(body):
                found = int(self.model.body_parentid[found])
            return found

        return tuple(find(body) for body in self.robot.bodies.get(name, (1, 0)))


def control_range(model: Any, actuator: int) -> tuple[float, float]:
    """The range of the control, which bounds Gymnasium's actions."""
    low, high = model.actuator_ctrlrange[actuator]
    return (float(low), float(high)) if model.actuator_ctrllimited[actuator] else (-np.inf, np.inf)
