"""SMAX: StarCraft-like micromanagement, a team of units against a scripted one, with partial observability.

The rules, units and scenarios are jaxmarl's (see `hajax.envs.smax_world`). The timesteps follow hajax's contract:

- an episode lasts at most `max_steps` = 100 steps, and its end by that limit is a truncation; jaxmarl tests its counter
  before it increments it, which gives 101, and calls every end `done`;
- a dead agent is not `active` and can only stop;
- the critic's state is scaled; jaxmarl's has positions of 0 to 32 and cooldowns that decrease without bound.

An action is 0 north, 1 east, 2 south, 3 west, 4 stop, 5 + k attack opponent k. The edge of the map kills. (With
`mirrored=True`, an option of hajax, all of this is upside down for agents in the upper half of the map.)

An observation has 13 (U − 1) + 10 entries for U units: for every other living unit in sight (the agents before it,
those after it, the opponents) the health, the relative position in units of the sight range, the last direction of
movement, the index of the last attack as a share of the largest, the remaining cooldown of the weapon and the kind,
one-hot; then the agent's own health, position, cooldown and kind. Kinds differ in speed, damage, range and health but
not in their spaces, so `sharing="type"` shares among all; to share by kind give the groups, `sharing=[0,0,1,1,1]` in
2s3z.

The team reward is the share of the opponents' health that was removed in this step (1 for all of it), and 1 for a win.
The largest return is 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from hajax.envs.base import Environment, Viewer, state_from_observations, timestep
from hajax.envs.lazy import import_quietly
from hajax.envs.smax_drawing import units_drawing
from hajax.envs.smax_scenarios import SCENARIOS
from hajax.envs.smax_world import OpponentKind, Units, World, WorldState
from hajax.spaces import Discrete
from hajax.spec import AgentSpec, EnvSpec, RewardKind
from hajax.validation import check_choice, check_flag, check_number

StateKind = Literal["ep", "fp", "observations", "environment"]

MARINE, MARAUDER, ZEALOT, ZERGLING = 0, 1, 3, 4
# Scenarios that are not in jaxmarl: the kinds of the agents and of the opponents.
OWN_LINE_UPS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "8m_vs_9m": ((MARINE,) * 8, (MARINE,) * 9),
    "6z_vs_24zg": ((ZEALOT,) * 6, (ZERGLING,) * 24),
    "2M7m_vs_3M8m": ((MARAUDER,) * 2 + (MARINE,) * 7, (MARAUDER,) * 3 + (MARINE,) * 8),
}


def __getattr__(name: str) -> Callable[..., Environment]:
    """The factory of a scenario by its name; `3m` is not an identifier, so it cannot be a function's name."""
    if name in SCENARIOS:
        return _factory(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _factory(scenario: str) -> Callable[..., Environment]:
    def factory(
        *,
        reward: RewardKind = "team",
        state: StateKind = "ep",
        opponent: OpponentKind = "closest",
        mirrored: bool = False,
        max_steps: int = 100,
    ) -> Environment:
        return _environment(scenario, reward, state, opponent, mirrored, max_steps)

    factory.__doc__ = f"""StarCraft-like: {SCENARIOS[scenario]}.

    Args:
        reward: `"team"` gives every agent the team's reward (not N times that), `"individual"` an equal share of it;
            SMAX has no individual rewards.
        state: the critic's state. `"ep"` is one state of the environment, `[10 U]`: health, position, cooldown and kind
            of every living unit (`"environment"` is another name for it). `"fp"` is one state per agent,
            `[N, 14 (U − 1) + 10]`: its observation as if it saw the whole map, and which units it does see.
            `"observations"` is the concatenation of all agents' observations.
        opponent: which unit in its range an opponent attacks, `"closest"` or `"random"`.
        mirrored: whether agents in the upper half of the map see it upside down, with north and south exchanged in
            their actions. The rules are symmetric, so a policy that learns one half has learned both; but agents no
            longer see in which half they are. The critic's `"fp"` and `"observations"` are mirrored as agents' views
            are, `"ep"` is not.
        max_steps: steps after which an episode is truncated.

    Raises:
        ValueError: an option has a value that is not allowed.
    """
    return factory


def make_world(scenario: str, opponent: OpponentKind = "closest") -> World:
    """The dynamics of a scenario, with jaxmarl's numbers."""
    smax = import_quietly("jaxmarl.environments.smax")
    with jax.ensure_compile_time_eval():  # concrete arrays even if the caller is being traced
        if scenario in OWN_LINE_UPS:
            agents, opponents = OWN_LINE_UPS[scenario]
            kinds = jnp.array([*agents, *opponents], jnp.uint8)
            line_up = smax.Scenario(kinds, len(agents), len(opponents), False, False)
        else:
            line_up = smax.map_name_to_scenario(scenario)
        theirs = smax.SMAX(scenario=line_up)
        drawn = bool(line_up.smacv2_unit_type_generation)
        numbers = {
            "velocity": theirs.unit_type_velocities,
            "attack": theirs.unit_type_attacks,
            "attack_range": theirs.unit_type_attack_ranges,
            "sight_range": theirs.unit_type_sight_ranges,
            "radius": theirs.unit_type_radiuses,
            "health": theirs.unit_type_health,
            "weapon_cooldown": theirs.unit_type_weapon_cooldowns,
            "bits": np.eye(theirs.unit_type_bits),
        }
        return World(
            num_agents=theirs.num_allies,
            num_opponents=theirs.num_enemies,
            kinds=Units(**{name: np.asarray(table, float) for name, table in numbers.items()}),
            line_up=None if drawn else np.asarray(line_up.unit_types, int),
            size=float(theirs.map_width),
            time_step=theirs.time_per_step,
            physical_steps=theirs.world_steps_per_env_step,
            opponent=opponent,
            place=theirs.position_generator.generate,
            muster=theirs.unit_type_generator.generate,
        )


def _upside_down(world: World, state: WorldState) -> WorldState:
    """The state reflected about the line between the map's upper and lower half."""
    flipped = jnp.array([1, -1], state.position.dtype)
    origin = jnp.array([0, world.size], state.position.dtype)
    return state._replace(
        position=origin + flipped * state.position,
        movement=flipped * state.movement,
        goal=origin + flipped * state.goal,
    )


def _environment(
    scenario: str, reward: RewardKind, state: StateKind, opponent: OpponentKind, mirrored: bool, max_steps: int
) -> Environment:
    """The contract's `reset` and `step` around the world, without automatic reset."""
    check_choice("reward", reward, ("team", "individual"))
    check_choice("state", state, ("ep", "fp", "observations", "environment"))
    check_choice("opponent", opponent, ("closest", "random"))
    check_flag("mirrored", mirrored)
    check_number("max_steps", max_steps, 1, whole=True)
    world = make_world(scenario, opponent)

    def in_upper_half(inner: WorldState) -> jax.Array:
        return inner.position[: world.num_agents, 1] > world.size / 2

    def own_view(look: Callable[[WorldState], jax.Array]) -> Callable[[WorldState], jax.Array]:
        def view(inner):
            return jnp.where(in_upper_half(inner)[:, None], look(_upside_down(world, inner)), look(inner))

        return view if mirrored else look

    def on_the_map(inner: WorldState, action: jax.Array) -> jax.Array:
        turned = in_upper_half(inner)[:, None] & (action <= 2)  # 0 is north and 2 south
        return jnp.where(turned, 2 - action, action) if mirrored else action

    observe = own_view(world.observe)
    critic_state = own_view(world.perspective) if state == "fp" else world.survey
    first = jax.eval_shape(world.reset, jax.random.key(0))
    observed, shown_state = jax.eval_shape(lambda inner: (observe(inner), critic_state(inner)), first)
    agents = tuple(
        AgentSpec(f"ally_{i}", observed.shape[1:], Discrete(world.num_actions)) for i in range(world.num_agents)
    )
    size, per_agent = shown_state.shape[-1], state == "fp"
    spec = EnvSpec(f"smax/{scenario}", agents, size, max_steps, reward, state_per_agent=per_agent)

    def show(inner, **fields):
        shown: dict[str, Any] = {
            "action_mask": world.available(inner)[:, None],
            "active": inner.alive[: world.num_agents],
        }
        return inner, timestep(spec, observe(inner), critic_state(inner), **shown, **fields)

    def reset(key):
        return show(world.reset(key), first=True)

    def step(key, inner, action):
        after = world.step(inner, on_the_map(inner, action)[:, 0].astype(int), world.draw(key))
        decided = world.decided(after)
        return show(
            after,
            joint_reward=world.reward(inner, after),
            terminated=decided,
            truncated=~decided & (after.step >= max_steps),
            metrics={"win": world.won(after).astype(after.health.dtype)},
        )

    drawing = units_drawing(world, spec)

    def draw(axes, inner, action, timestep):
        drawing(axes, inner, on_the_map(inner, action), timestep)

    env = Environment(spec, reset, step, viewer=Viewer(draw))
    return state_from_observations(env) if state == "observations" else env
