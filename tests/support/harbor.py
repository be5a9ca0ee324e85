"""A small simulator of different agents, of which one leaves and comes back, with faults on request."""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

LENGTH = 9


class Harbor(ParallelEnv):
    """Observations tell the last action and a random number, so that nothing is confused unnoticed.

    `fault` happens in the step `at` of an episode; those that stop a process in one after the first `after`.
    """

    metadata: ClassVar[dict] = {"name": "harbor", "render_modes": ["rgb_array"]}

    def __init__(self, fault="", at=3, after=1, marker="", length=LENGTH, render_mode=None):
        self.fault, self.at, self.after, self.marker, self.max_cycles = fault, at, after, marker, length
        self.render_mode = render_mode
        self.possible_agents = ["tug", "crane", "pilot"]
        self.agents: list[str] = []
        self.episodes = 0
        if fault == "no agents":
            self.possible_agents = []

    def observation_space(self, agent: str) -> spaces.Space:
        own = spaces.Box(-9, 9, (2,), np.float64)
        return {
            "tug": spaces.Dict({"observation": own, "action_mask": spaces.MultiBinary(3)}),
            "crane": spaces.Discrete(4, start=2),
            "pilot": spaces.Box(-9, 9, (2, 2), np.float32),
        }[agent]

    def action_space(self, agent: str) -> spaces.Space:
        if self.fault == "spaces change" and self.episodes > 1 and agent == "crane":
            return spaces.MultiDiscrete([2, 4])
        return {
            "tug": spaces.Discrete(3, start=1),
            "crane": spaces.MultiDiscrete([2, 3]),
            "pilot": spaces.Box(np.array([-1, 0]), np.array([1, 2]), dtype=np.float64),
        }[agent]

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        self.seed, self.generator = seed or 0, np.random.default_rng(seed)
        self.steps, self.last = 0, dict.fromkeys(self.possible_agents, 0.0)
        self.episodes += 1
        self.agents = list(self.possible_agents)
        if self.fault == "nobody":
            self.agents = []
        return self.seen(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> Any:
        assert set(actions) == set(self.agents), (actions, self.agents)
        for agent, action in actions.items():
            assert self.action_space(agent).contains(action), (agent, action)
        self.steps += 1
        acted = list(self.agents)
        self.last |= {agent: float(np.sum(action)) for agent, action in actions.items()}
        if self.fault and self.steps == self.at and self.episodes > self.after:
            if self.fault == "raises" or (self.fault == "raises once" and self.mark()):
                raise RuntimeError("the crane is stuck")
            if self.fault == "always dies" or (self.fault == "dies" and self.mark()):
                os.kill(os.getpid(), 9)
            if self.fault == "hangs" and self.mark():
                time.sleep(100)
        ended = self.generator.random() < 0.1
        cut = not ended and self.steps >= self.max_cycles
        present = ["tug", "pilot"] if 3 <= self.steps < 5 else list(self.possible_agents)  # the crane is away
        self.agents = [] if ended or cut else present
        rewards = {agent: self.last[agent] + 0.1 * self.steps for agent in acted}
        everyone = sorted({*acted, *present})
        observations = self.seen(everyone)
        infos = {agent: {"cranes_idle": self.steps} for agent in everyone}
        here = self.fault and self.steps == self.at
        if here and self.fault == "nan":
            observations["pilot"][1, 0] = np.nan
        if here and self.fault == "infinite reward":
            rewards["pilot"] = np.inf
        if here and self.fault == "missing reward":
            del rewards["tug"]
        if here and self.fault == "missing observation":
            del observations["tug"]
        if here and self.fault == "shape":
            observations["pilot"] = np.zeros(3)
        if here and self.fault == "outside":
            observations["pilot"][0, 1] = 11 + self.seed % 100  # each copy another number
        if here and self.fault == "no choice":
            observations["tug"]["action_mask"][:] = 0
        gone = {agent: ended or agent not in present for agent in acted}
        result = observations, rewards, gone, dict.fromkeys(acted, cut), infos
        return result[:4] if here and self.fault == "four values" else result

    def seen(self, agents: list[str] | None = None) -> dict[str, Any]:
        noise = self.generator.random()
        mask = np.array([1, self.steps % 2, 1], np.int8)
        every = {
            "tug": {"observation": np.array([self.last["tug"], noise]), "action_mask": mask},
            "crane": 2 + self.steps % 4,
            "pilot": np.array([[self.last["pilot"], noise], [self.steps, self.last["crane"]]], np.float32),
        }
        return {agent: every[agent] for agent in (self.agents if agents is None else agents)}

    def state(self) -> np.ndarray:
        return np.array([self.steps, *self.last.values()])

    def render(self) -> np.ndarray:
        picture = np.zeros((40, 60, 3), np.uint8)
        picture[:, : 6 * self.steps] = 255
        return picture

    def mark(self) -> bool:
        """Whether this is the first time, over all processes, that the fault happens."""
        try:
            os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


def harbor(fault: str = "", at: int = 3, after: int = 1, marker: str = "", render_mode: str | None = None) -> Harbor:
    """A harbor with three different agents."""
    return Harbor(fault, at, after, marker, render_mode=render_mode)


class UnseededHarbor(Harbor):
    """Every episode is another one."""

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict, dict]:
        return super().reset(None)


class OldHarbor:
    """Gym's interface before version 0.26."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self) -> np.ndarray:
        return np.zeros(2, np.float32)

    def step(self, action: int) -> tuple:
        return np.zeros(2, np.float32), 0.0, False, {}

    def close(self) -> None:
        pass


def old_harbor() -> OldHarbor:
    """A simulator with an interface of another time."""
    return OldHarbor()


def any_harbor(**kwargs: Any) -> Harbor:
    """Takes its options as PettingZoo's functions do."""
    return Harbor(**kwargs)
