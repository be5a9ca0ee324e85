"""The cooperative particle tasks (MPE): jaxmarl's physics with the semantics of mpe2, the maintained MPE.

mpe2 (formerly in PettingZoo) is the environment of published curves. jaxmarl's tasks differ from it in ways that matter
for learning, which this adapter corrects:

- an episode lasts `max_steps` = 25 steps; jaxmarl tests its counter before it increments it, which gives 26;
- the end of an episode is a truncation, never a termination, and its last observation is in `final`; jaxmarl calls it
  `done`, and its `step` resets immediately;
- continuous actions are clipped to the Box [0, 1]; jaxmarl does not clip them.

A discrete movement is 0 stay, 1 left, 2 right, 3 down, 4 up. Continuous movement `a` has five components and the
force (a₂ − a₁, a₄ − a₃)·5. A message is an index (discrete) or a vector in [0, 1] (continuous), and is part of the next
observation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from hajax.envs.base import Environment, Viewer, clip_action, pad_observations, state_from_observations, timestep
from hajax.envs.drawing import particle_drawing
from hajax.envs.lazy import import_quietly
from hajax.spaces import Box, Discrete
from hajax.spec import AgentSpec, EnvSpec, RewardKind
from hajax.validation import check_choice, check_number

# The unit force of each movement: stay, left, right, down, up.
DIRECTIONS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))

ActionKind = Literal["discrete", "continuous"]
StateKind = Literal["observations", "environment"]


def simple_spread(
    *,
    num_agents: int = 3,
    actions: ActionKind = "discrete",
    reward: RewardKind = "team",
    state: StateKind = "observations",
    max_steps: int = 25,
    local_ratio: float = 0.5,
) -> Environment:
    """N agents cover N landmarks and avoid each other.

    An agent observes its velocity, its position, the relative positions of the landmarks and of the other agents, and
    the others' messages, which are always zero here: 6N entries. Its action is a movement, Discrete(5) or Box(5).

    The individual reward is `(1 − local_ratio) · G + local_ratio · L`: G is minus the sum over landmarks of the
    distance to the nearest agent, L minus the number of agents that the agent touches.

    Args:
        num_agents: N, at least 1.
        actions: `"discrete"` or `"continuous"`.
        reward: `"team"` gives every agent the sum over agents, `"individual"` its own.
        state: the critic's state. `"observations"` is the concatenation of all agents' observations, `"environment"`
            the positions of agents and landmarks and the velocities of agents.
        max_steps: steps after which an episode is truncated.
        local_ratio: the weight of an agent's own part of its reward, between 0 and 1.

    Raises:
        ValueError: an option has a value that is not allowed.
    """
    check_number("num_agents", num_agents, 1, whole=True)
    check_number("local_ratio", local_ratio, 0, 1)
    options = {"num_agents": num_agents, "num_landmarks": num_agents, "local_ratio": local_ratio}
    return particle_environment("mpe/simple_spread", "SimpleSpreadMPE", options, actions, reward, state, max_steps)


def simple_reference(
    *,
    actions: ActionKind = "discrete",
    reward: RewardKind = "team",
    state: StateKind = "observations",
    max_steps: int = 25,
    local_ratio: float = 0.5,
) -> Environment:
    """Two agents: each knows the goal landmark of the other, sends a message, and moves.

    An agent observes its velocity, the relative positions of the 3 landmarks, the color of the *other* agent's goal and
    the other's last message: 21 entries. Its action is a movement and a message: Discrete(50), movement + 5 · message,
    or Box(15), 5 components of the movement and 10 of the message.

    With Dᵢ the distance of agent i to its goal, the agent that knows this goal is rewarded for it: the individual
    reward of agent i is `−(1 − local_ratio) · (D₀ + D₁)/2 − local_ratio · Dⱼ`, j the other agent.

    Args:
        actions: `"discrete"` or `"continuous"`.
        reward: `"team"` gives every agent the sum over agents, `"individual"` its own.
        max_steps: steps after which an episode is truncated.
        local_ratio: the weight of an agent's own part of its reward, between 0 and 1.
        state: `"environment"` is positions of agents and landmarks, velocities and messages of agents, and each
            agent's goal, one-hot.

    Raises:
        ValueError: an option has a value that is not allowed.
    """
    check_number("local_ratio", local_ratio, 0, 1)
    options = {"local_ratio": local_ratio}
    return particle_environment(
        "mpe/simple_reference", "SimpleReferenceMPE", options, actions, reward, state, max_steps
    )


def simple_speaker_listener(
    *,
    actions: ActionKind = "discrete",
    reward: RewardKind = "team",
    state: StateKind = "observations",
    max_steps: int = 25,
) -> Environment:
    """A speaker that cannot move sends a message about a landmark to a listener that cannot speak.

    The speaker observes the goal's color (3 entries); its message is Discrete(3) or Box(3). The listener observes its
    velocity, the relative positions of the 3 landmarks and the last message (11 entries); its movement is Discrete(5)
    or Box(5). The reward of both is minus the squared distance of the listener to the goal.

    Args:
        actions: `"discrete"` or `"continuous"`.
        reward: `"team"` gives every agent the sum over agents, `"individual"` its own.
        max_steps: steps after which an episode is truncated.
        state: `"environment"` is positions of agents and landmarks, the listener's velocity, the speaker's message
            and the goal, one-hot.

    Raises:
        ValueError: an option has a value that is not allowed.
    """
    name, task = "mpe/simple_speaker_listener", "SimpleSpeakerListenerMPE"
    return particle_environment(name, task, {}, actions, reward, state, max_steps)


@functools.cache
def _lean(task: Any) -> Any:
    """The task in fewer operations: one random draw per reset, no noise, contact forces in one array expression.

    jaxmarl splits keys and draws for every kind of entity, draws Gaussian noise to multiply it by zero (no task has
    noise), and decodes actions and gathers forces one by one through scatters.
    """

    class LeanTask(task):
        def __init__(self, action_type, **options):
            super().__init__(action_type=action_type, **options)
            self.discrete = action_type == "Discrete"
            self.moves = np.asarray(self.moveable)[: self.num_agents]
            self.speaks = np.asarray(self.silent) == 0
            self.agents_collide = np.asarray(self.collide).any()  # landmarks never collide
            self.touching: np.ndarray | None = None  # bool [N, N], the pairs that collide; `None` for all

        def set_actions(self, actions):
            actions = actions.astype(jnp.result_type(float))
            moves, speaks = self.moves[:, None], self.speaks[:, None]
            if self.discrete:
                index = actions[:, 0].astype(int)
                direction = jnp.array(DIRECTIONS, actions.dtype)[index % len(DIRECTIONS)]
                word = jnp.where(self.moves, index // len(DIRECTIONS), index)
                message = jax.nn.one_hot(word, self.dim_c, dtype=actions.dtype)
            else:
                padded = jnp.pad(actions, ((0, 0), (0, len(DIRECTIONS) + self.dim_c)))
                movement, after_it = padded[:, : len(DIRECTIONS)], padded[:, len(DIRECTIONS) :]
                # Differences instead of a matrix product, which accelerators compute at low precision.
                direction = jnp.stack([movement[:, 2] - movement[:, 1], movement[:, 4] - movement[:, 3]], axis=-1)
                message = jnp.where(moves, after_it[:, : self.dim_c], padded[:, : self.dim_c])
            force = direction * self.accel[:, None]
            return jnp.where(moves, force, 0), jnp.where(speaks, message, 0)

        def reset(self, key):
            _, state = super().reset(key)  # the draws of `super()` are replaced, and so compiled out
            num_positions, num_goals = 2 * self.num_entities, 0 if state.goal is None else state.goal.size
            positions, goals = jnp.split(jax.random.uniform(key, (num_positions + num_goals,)), [num_positions])
            state = state.replace(p_pos=2 * positions.reshape(-1, 2) - 1)
            if state.goal is not None:
                goal = jnp.floor(goals * self.num_landmarks).astype(state.goal.dtype)
                state = state.replace(goal=goal.reshape(state.goal.shape))
            return self.get_obs(state), state

        def _apply_action_force(self, key, p_force, u, u_noise, moveable):
            return jnp.where(moveable[:, None], u, p_force)

        def _apply_comm_action(self, key, c, c_noise, silent):
            return c

        def _apply_environment_force(self, p_force_all, state):
            if not self.agents_collide:
                return p_force_all
            agents = slice(self.num_agents)
            position, radius = state.p_pos[agents], self.rad[agents]
            offset = position[:, None] - position[None]
            # The diagonal is moved away from zero; its force is zero because the offset is zero.
            distance = jnp.sqrt(jnp.sum(offset**2, axis=-1) + np.eye(self.num_agents))
            overlap = (radius[:, None] + radius[None] - distance) / self.contact_margin
            penetration = jnp.logaddexp(0.0, overlap) * self.contact_margin
            pressure = self.contact_force * penetration / distance
            if self.touching is not None:
                pressure = jnp.where(self.touching, pressure, 0)
            force = jnp.sum(pressure[..., None] * offset, axis=1)
            return p_force_all + jnp.pad(force, ((0, self.num_landmarks), (0, 0)))

    return LeanTask


def particle_environment(
    name: str,
    task: str,
    options: dict,
    actions: ActionKind,
    reward: RewardKind,
    state: StateKind,
    max_steps: int,
    *,
    touching: np.ndarray | None = None,
    own_reward: Callable[[Any], jax.Array] | None = None,
) -> Environment:
    """The contract's `reset` and `step` around jaxmarl's task of that class name, without automatic reset.

    Instead of the task's, collisions may be those of the pairs `touching`, bool `[N, N]`, and individual rewards
    `own_reward(state)`, `[N]`.
    """
    check_choice("actions", actions, ("discrete", "continuous"))
    check_choice("reward", reward, ("team", "individual"))
    check_choice("state", state, ("observations", "environment"))
    check_number("max_steps", max_steps, 1, whole=True)
    task_class = _lean(getattr(import_quietly("jaxmarl.environments.mpe"), task))
    with jax.ensure_compile_time_eval():  # constants are concrete arrays even if the caller is being traced
        world = task_class(action_type=actions.capitalize(), **options)
    world.touching = touching
    agents = tuple(
        AgentSpec(agent, world.observation_spaces[agent].shape, _action_space(world.action_spaces[agent]))
        for agent in world.agents
    )

    def world_state(inner) -> jax.Array:
        parts = [inner.p_pos, inner.p_vel[: world.num_agents][world.moves], inner.c[world.speaks]]
        if inner.goal is not None:
            parts.append(jax.nn.one_hot(inner.goal, world.num_landmarks, dtype=inner.p_pos.dtype))
        return jnp.concatenate([part.ravel() for part in parts])

    state_size = jax.eval_shape(lambda key: world_state(world.reset(key)[1]), jax.random.key(0)).size
    spec = EnvSpec(name, agents, state_size, max_steps, reward, masks_actions=False)

    def show(inner, observations, **fields):
        observation = pad_observations(spec, [observations[agent] for agent in world.agents])
        return inner, timestep(spec, observation, world_state(inner), **fields)

    def reset(key):
        observations, inner = world.reset(key)
        return show(inner, observations, first=True)

    def step(key, inner, action):
        observations, inner, rewards, _, _ = world.step_env(key, inner, clip_action(spec, action))
        own_rewards = jnp.stack([rewards[agent] for agent in world.agents])
        if own_reward is not None:
            own_rewards = own_reward(inner)
        return show(inner, observations, reward=own_rewards, truncated=inner.step >= max_steps)

    env = Environment(spec, reset, step, viewer=Viewer(particle_drawing(world, spec)))
    return state_from_observations(env) if state == "observations" else env


def _action_space(space: Any) -> Discrete | Box:
    if hasattr(space, "n"):
        return Discrete(space.n)
    (size,) = space.shape
    return Box((space.low,) * size, (space.high,) * size)
