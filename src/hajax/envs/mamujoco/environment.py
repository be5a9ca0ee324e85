"""A robot whose joints are divided among agents, as an environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hajax.envs.base import Environment, Viewer, clip_action, timestep
from hajax.envs.batching import auto_reset
from hajax.envs.mamujoco.anatomy import control_range
from hajax.envs.mamujoco.drawing import body_colors, robot_drawing, robot_scene
from hajax.envs.mamujoco.factorization import check_partition, drivers
from hajax.envs.mamujoco.simulation import Simulation
from hajax.spaces import Box
from hajax.spec import AgentSpec, EnvSpec, RewardKind

ObservationKind = Literal["full", "khop"]


class RobotState(NamedTuple):
    """The simulation's state, and the number of steps so far in the episode."""

    body: Any  # of its simulation
    step: jax.Array  # int []


def standardized(x: jax.Array) -> jax.Array:
    """Each vector minus its mean, divided by its standard deviation: `[…, O]`."""
    return (x - x.mean(-1, keepdims=True)) / jnp.maximum(x.std(-1, keepdims=True), 1e-8)


def shared_robot(
    name: str,
    simulation: Simulation,
    partition: Sequence[Sequence[str]],
    *,
    obs: ObservationKind,
    k: int,
    categories: Sequence[str],
    common_categories: str,
    reward: RewardKind,
    max_steps: int,
) -> Environment:
    """The environment in which each agent drives its joints of `partition`.

    An action holds the controls of the agent's joints, in the partition's order. With `obs="full"` an agent observes
    what Gymnasium's single agent does and its own index, one-hot, standardized as one vector, and the critic's state is
    Gymnasium's observation, standardized too. With `obs="khop"` it observes its own joints and those up to `k` edges
    away, and the critic's state is Gymnasium's observation, not standardized.
    """
    anatomy = simulation.anatomy
    check_partition(name, partition, tuple(anatomy.actuators))
    for setting, texts in (("categories", categories), ("global_categories", [common_categories])):
        for category in " ".join(texts).split():
            if category not in anatomy.categories:
                allowed = ", ".join(anatomy.categories)
                raise ValueError(f"{setting} names {category!r}; allowed: {allowed}, several separated by spaces")
    controls = [[anatomy.actuators[joint] for joint in agent] for agent in partition]
    views = [anatomy.local(agent, k, categories, common_categories) for agent in partition]
    count, whole = len(partition), anatomy.observation.astype(np.int32)
    widths = [whole.size + count] * count if obs == "full" else [view.size for view in views]
    boxes = [Box(*zip(*(control_range(anatomy.model, i) for i in agent), strict=True)) for agent in controls]
    agents = tuple(AgentSpec(f"agent_{i}", (widths[i],), boxes[i]) for i in range(count))
    spec = EnvSpec(name, agents, whole.size, max_steps, reward, masks_actions=False)
    gather = np.zeros((count, spec.observation_size), np.int32)
    for i, view in enumerate(views if obs == "khop" else []):
        gather[i, : view.size] = view
    driver, component = drivers(controls)

    def all_of(state: jax.Array) -> jax.Array:
        """The agents' observations with `obs="full"`, from Gymnasium's observation."""
        if state.shape != whole.shape:
            raise ValueError(f"state of {name} has {state.size} entries; allowed: {whole.size}")
        everything = jnp.broadcast_to(state, (count, whole.size))
        return standardized(jnp.concatenate([everything, jnp.eye(count, dtype=state.dtype)], -1))

    def observe(readings: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = readings[whole]
        if obs == "full":
            return all_of(state), standardized(state)
        return jnp.where(spec.observation_mask, readings[gather], 0), state

    def begun(body, readings):
        return RobotState(body, jnp.zeros((), int)), timestep(spec, *observe(readings), first=True)

    def reset(key):
        return begun(*simulation.reset(key))

    def step(key, state, action):
        control = clip_action(spec, action)[driver, component]
        body, readings, joint_reward, ended = simulation.step(key, state.body, control)
        # Diverged physics ends the episode: a NaN in one environment would reach the policy of all.
        finite = jnp.isfinite(readings).all() & jnp.isfinite(simulation.qpos(body)).all() & jnp.isfinite(joint_reward)
        joint_reward, ended = jnp.where(finite, joint_reward, 0), ended | ~finite
        following = RobotState(body, state.step + 1)
        return following, timestep(
            spec,
            *observe(jnp.where(finite, readings, 0)),
            joint_reward=joint_reward,
            terminated=ended,
            truncated=~ended & (following.step >= max_steps),
        )

    colors = body_colors(simulation, partition)
    env = Environment(
        spec,
        reset,
        step,
        observe=all_of if obs == "full" else None,
        viewer=Viewer(robot_drawing(simulation, colors, spec), robot_scene(simulation, colors)),
    )
    reopen = simulation.reopen
    return env if reopen is None else auto_reset(env, lambda state: begun(*reopen(state.body)))
