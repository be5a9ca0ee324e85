"""MAMuJoCo: MuJoCo's robots, with their joints divided among agents, in JAX.

The robots, rewards, terminations, initial states and observations are Gymnasium's, from its XML files; physics is MJX.
A name consists of the robot and the partition, `mamujoco/ant_4x2`. All agents receive the robot's reward.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, get_args

from hajax.envs.mamujoco.partitions import NOTES, PARTITIONS, agents
from hajax.spec import RewardKind
from hajax.validation import check_choice, check_known, check_number

if TYPE_CHECKING:
    from hajax.envs.base import Environment
    from hajax.envs.mamujoco.robots import Robot
    from hajax.envs.mamujoco.simulation import Simulation
    from hajax.envs.mamujoco.tasks import Version

# The robot and the partition of every name; 9|8 is written 9_8, for shells and files.
NAMES = {
    f"{robot}_{partition}".replace("|", "_"): (robot, partition)
    for robot, partitions in PARTITIONS.items()
    for partition in partitions
}
# Robots of any number of segments: the numbers of agents and of segments per agent.
SEGMENTED = re.compile(r"(many_agent_swimmer|many_agent_ant)_(\d+x\d+)")
NEEDED = ("mujoco", "mujoco.mjx", "gymnasium")
PhysicsName = Literal[
    "auto", "mujoco", "faithful", "fast", "brax-spring", "brax-positional", "brax-generalized", "brax-mjx"
]
PHYSICS: tuple[PhysicsName, ...] = get_args(PhysicsName)
# Brax's physics for each of its robots; its swimmer supports only one.
BACKENDS = {
    "half_cheetah": ("spring", "positional", "generalized", "mjx"),
    "ant": ("spring", "positional", "generalized", "mjx"),
    "hopper": ("spring", "positional", "generalized", "mjx"),
    "walker2d": ("spring", "positional", "generalized", "mjx"),
    "humanoid": ("spring", "positional", "generalized", "mjx"),
    "humanoid_standup": ("spring", "positional", "generalized", "mjx"),
    "swimmer": ("generalized",),
    "reacher": ("spring", "positional", "generalized", "mjx"),
}


def __getattr__(name: str) -> Callable[..., Any]:
    """The factory of a robot by its name, such as `ant_4x2`, or `many_agent_swimmer_5x3` with any numbers.

    Also `from_file`, which makes a robot of any MJCF file; see `hajax.envs.mamujoco.robots`.
    """
    if name in NAMES:
        return _factory(name, *NAMES[name])
    if many := SEGMENTED.fullmatch(name):
        return _factory(name, *many.groups())
    if name == "from_file":
        check_installed("hajax.envs.mamujoco.from_file")
        from hajax.envs.mamujoco.robots import from_file

        return from_file
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def share(
    robot: str | Robot,
    partition: Sequence[Sequence[str]],
    *,
    name: str | None = None,
    version: Literal["v4", "v5"] = "v5",
    physics: PhysicsName = "auto",
    obs: Literal["full", "khop"] = "full",
    k: int = 1,
    categories: Sequence[str] | None = None,
    global_categories: str = "qpos qvel",
    reward: RewardKind = "team",
    max_steps: int | None = None,
) -> Environment:
    """A robot with any partition: a factory for `hajax.register_env` returns it.

        def three_legs_and_one():
            legs = [[f"hip_{leg}", f"ankle_{leg}"] for leg in (1, 2, 3, 4)]
            return share("ant", [legs[0] + legs[1] + legs[2], legs[3]])

    Args:
        robot: a name, such as `"ant"`, or a `hajax.envs.mamujoco.robots.Robot`; `from_file` makes one from any MJCF
            file.
        partition: for every agent the joints that it drives, named as in the file, in the order of its action. Every
            joint with an actuator belongs to exactly one agent.
        name: of the environment; by default the robot's.
        version: of Gymnasium's environment.
        physics: `"mujoco"`, MuJoCo in C, stepped by threads; `"faithful"`, the same in JAX (MJX); `"auto"`, `"mujoco"`
            on a CPU and `"faithful"` on an accelerator; `"fast"`, `"faithful"` with a cheaper integrator and solver and
            without collisions of the robot with itself (see `hajax.envs.mamujoco.physics.fast`); or brax's, where brax
            has the robot, with brax's models, rewards, terminations and observations.
        obs: `"full"`: every agent observes what Gymnasium's single agent does and its own index, one-hot, standardized
            as one vector, (x - mean) / standard deviation, as in the papers' code. `"khop"`: it observes its own
            joints, their neighbors, and what is common to all.
        k: with `obs="khop"`, the largest distance of a neighbor in the graph of joints.
        categories: the quantities observed of the agent's own joints, of those one edge away, …, the last for all
            further ones; each a text such as `"qpos qvel"`. `None`: as in gymnasium-robotics.
        global_categories: the quantities observed of the joints without actuators.
        reward: `"team"` gives every agent the robot's reward, `"individual"` an equal share of it.
        max_steps: steps after which an episode is truncated; `None`: as in Gymnasium.

    Raises:
        ValueError: an option has a value that is not allowed, the partition omits or repeats a joint, or MuJoCo is not
            installed.
    """
    check_choice("version", version, ("v4", "v5"))
    check_choice("physics", physics, PHYSICS)
    check_choice("obs", obs, ("full", "khop"))
    check_choice("reward", reward, get_args(RewardKind))
    check_number("k", k, 0, whole=True)
    check_number("max_steps", 1 if max_steps is None else max_steps, 1, whole=True)
    check_texts(categories, global_categories)
    name = name or (f"mamujoco/{robot}" if isinstance(robot, str) else "mamujoco/own")
    check_installed(name)
    from hajax.envs.mamujoco.environment import shared_robot
    from hajax.envs.mamujoco.robots import ROBOTS

    if isinstance(robot, str):
        check_known("robot", robot, ROBOTS)
    body = ROBOTS[robot] if isinstance(robot, str) else robot
    if physics.startswith("brax-"):
        simulation = _in_brax(name, body, version, physics)
    else:
        local = [*(body.categories if categories is None else categories), global_categories] if obs == "khop" else []
        simulation = in_physics(body, version, physics, [body.observation[version], *local])
    return shared_robot(
        name,
        simulation,
        partition,
        obs=obs,
        k=k,
        categories=simulation.anatomy.robot.categories if categories is None else categories,
        common_categories=global_categories,
        reward=reward,
        max_steps=body.max_steps if max_steps is None else max_steps,
    )


def in_physics(robot: Robot, version: Version, physics: str, observed: Sequence[str]) -> Simulation:
    """The robot in MuJoCo, in C or in JAX; `observed` names the quantities that are observed."""
    from hajax.envs.mamujoco.in_c import Engine
    from hajax.envs.mamujoco.simulation import in_mujoco

    if physics == "auto":
        physics = chosen_physics()
    model = robot.model(version)
    if physics == "mujoco":
        texts = " ".join([*observed, *robot.shows.values()]).split()
        reads = {*robot.uses, *(text.partition(":")[0] for text in texts)}
        return in_mujoco(robot, Engine(model, robot.frame_skip, reads), version)
    from hajax.envs.mamujoco.physics import faithful, fast  # MJX takes a second to import

    return in_mujoco(robot, (fast if physics == "fast" else faithful)(model, robot.frame_skip), version)


def chosen_physics() -> PhysicsName:
    """What `physics="auto"` means on JAX's default device: MuJoCo in C on a CPU, in JAX on an accelerator."""
    import jax

    return "mujoco" if jax.default_backend() == "cpu" else "faithful"


def _in_brax(name: str, robot: Robot, version: str, physics: str) -> Simulation:
    """The robot in brax's physics.

    Raises ValueError if brax lacks the robot or the version, or is not installed.
    """
    from hajax.envs.mamujoco.robots import ROBOTS

    backend = physics.removeprefix("brax-")
    known = next((each for each, other in ROBOTS.items() if other is robot), "")
    if backend not in BACKENDS.get(known, ()):
        backends = [f"brax-{each}" for each in BACKENDS.get(known, ())]
        others = [p for p in PHYSICS if not p.startswith("brax-") or p in backends]
        raise ValueError(
            f"physics={physics!r} of {name}, which brax does not have with this robot; allowed: {', '.join(others)}"
        )
    if version != "v5":
        raise ValueError(f"version={version!r} of {name} with physics={physics!r}, which has only one; allowed: v5")
    check_installed(f"physics={physics!r}", ("brax",), "brax")
    from hajax.envs.mamujoco.in_brax import in_brax

    return in_brax(known, backend)


def _factory(name: str, robot: str, partition: str) -> Callable[..., Environment]:
    def factory(**options: Any) -> Environment:
        check_installed(f"mamujoco/{name}")
        from hajax.envs.mamujoco.robots import find_robot

        return share(find_robot(robot, partition), agents(robot, partition), name=f"mamujoco/{name}", **options)

    signature = inspect.signature(share)
    options = [p for p in signature.parameters.values() if p.name not in ("robot", "partition", "name")]
    factory.__dict__["__signature__"] = signature.replace(parameters=options)
    own = inspect.cleandoc(share.__doc__ or "")
    factory.__doc__ = f"{_describe(robot, partition)}.\n\n{own[own.index('Args:') :]}"
    return factory


def describe(name: str) -> str:
    """One line about the shared robot of that name, such as `ant_4x2`."""
    return _describe(*NAMES[name])


def _describe(robot: str, partition: str) -> str:
    shares = agents(robot, partition)
    sizes = sorted({len(joints) for joints in shares})
    each = NOTES.get((robot, partition)) or f"{' or '.join(map(str, sizes))} joint{'s' * (sizes != [1])} each"
    body = "".join(word.capitalize() for word in robot.split("_"))
    return f"MuJoCo's {body}: {len(shares)} agents, {each} (needs hajax[mamujoco])"


def check_texts(categories: Any, global_categories: Any) -> None:
    """Raises ValueError unless `categories` is a list of at least one text or `None`, and the other a text."""
    if categories is not None:
        listed = isinstance(categories, Sequence) and not isinstance(categories, str)
        if not listed or not categories or not all(isinstance(text, str) for text in categories):
            raise ValueError(
                f"categories={categories!r}; allowed: a list of texts, of own joints, of neighbors, …, "
                "each such as 'qpos qvel'"
            )
    if not isinstance(global_categories, str):
        raise ValueError(f"global_categories={global_categories!r}; allowed: a text, such as 'qpos qvel'")


def check_installed(what: str, packages: Sequence[str] = NEEDED, extra: str = "mamujoco") -> None:
    """Raises ValueError unless the packages of the extra are installed, and MuJoCo starts."""
    try:
        missing = [package for package in packages if not _found(package)]
    except Exception as error:  # finding its parts imports MuJoCo, which starts the OpenGL of MUJOCO_GL
        given = os.environ.get("MUJOCO_GL")
        raise ValueError(
            f"{what} needs mujoco, which does not start here with MUJOCO_GL={given!r} ({str(error).splitlines()[0]}); "
            "allowed: egl, glfw or osmesa where the machine has that library, disabled, or unset"
        ) from error
    if missing:
        raise ValueError(
            f"{what} needs {', '.join(missing)}, not installed; pip install 'hajax[{extra}]' installs what it needs"
        )


def _found(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False
