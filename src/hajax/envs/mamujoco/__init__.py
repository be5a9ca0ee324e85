"""MAMuJoCo: MuJoCo's robots, their joints shared among agents, in JAX.

The robots, rewards, terminations, first states and observations are Gymnasium's, from its own XML files; physics is
MJX. Names are those of the robot and of how it is shared, `mamujoco/ant_4x2`. All agents are paid the robot's reward.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Literal

from hajax.envs.base import Environment
from hajax.envs.mamujoco.partitions import PARTITIONS, agents
from hajax.spec import RewardKind
from hajax.validation import check_choice

# The robot and the partition of every name; 9|8 is 9_8 there, for shells and files.
NAMES = {
    f"{robot}_{partition}".replace("|", "_"): (robot, partition)
    for robot, partitions in PARTITIONS.items()
    for partition in partitions
}
NEEDED = ("mujoco", "mujoco.mjx", "gymnasium")


def __getattr__(name: str) -> Callable[..., Environment]:
    """The factory of a shared robot by its name, such as `ant_4x2`, or `many_agent_swimmer_5x3` with any numbers."""
    if name in NAMES:
        return _factory(name, *NAMES[name])
    if many := re.fullmatch(r"(many_agent_swimmer|many_agent_ant)_(\d+x\d+)", name):
        return _factory(name, *many.groups())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _factory(name: str, robot: str, partition: str) -> Callable[..., Environment]:
    def factory(
        *,
        version: Literal["v4", "v5"] = "v5",
        obs: Literal["full", "khop"] = "full",
        k: int = 1,
        categories: Sequence[str] | None = None,
        global_categories: str = "qpos qvel",
        reward: RewardKind = "team",
        max_steps: int | None = None,
    ) -> Environment:
        check_choice("version", version, ("v4", "v5"))
        check_choice("obs", obs, ("full", "khop"))
        check_installed(f"mamujoco/{name}")
        from hajax.envs.mamujoco.environment import shared_robot
        from hajax.envs.mamujoco.physics import faithful
        from hajax.envs.mamujoco.robots import find_robot

        body = find_robot(robot, partition)
        return shared_robot(
            f"mamujoco/{name}",
            body,
            faithful(body.model(version), body.frame_skip),
            agents(robot, partition),
            version=version,
            obs=obs,
            k=k,
            categories=body.categories if categories is None else tuple(categories),
            common_categories=global_categories,
            reward=reward,
            max_steps=body.max_steps if max_steps is None else max_steps,
        )

    factory.__doc__ = f"""{robot}, shared as {partition}.

    Args:
        version: of Gymnasium's environment.
        obs: `"full"`: every agent observes all that Gymnasium's single agent does and its own number, one-hot,
            standardised as one vector, (x - mean) / standard deviation; this is what the papers' code feeds. `"khop"`:
            what its own joints and their neighbours show, and what is common to all.
        k: with `obs="khop"`, how many edges of the graph of joints away a neighbour may be.
        categories: what is shown of the agent's own joints, of those one edge away, …, the last for all beyond; each a
            text such as `"qpos qvel"`. `null`: as in gymnasium-robotics.
        global_categories: what is shown of the joints that nobody drives.
        reward: `"team"` gives every agent the robot's reward, `"individual"` an equal share of it.
        max_steps: steps after which an episode is truncated; `null`: as in Gymnasium.

    Raises:
        ValueError: an option has a value that is not allowed, or MuJoCo is not installed.
    """
    return factory


def check_installed(name: str) -> None:
    """Raises ValueError unless what the extra `mamujoco` brings is there."""
    missing = [package for package in NEEDED if not _found(package)]
    if missing:
        raise ValueError(
            f"{name} needs {', '.join(missing)}, not installed; pip install 'hajax[mamujoco]' brings what it needs"
        )


def _found(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # its parent is missing
        return False
