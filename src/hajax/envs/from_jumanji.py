"""jumanji's environments of several agents under hajax's contract: `jumanji/RobotWarehouse-v0` and others.

Agents observe vectors: `agents_view` where jumanji has it, and what `RULES` makes of jumanji's observation of the whole
where it has not. Actions are masked as there. An episode that reaches jumanji's `time_limit` is truncated, also where
jumanji's discount of 0 calls it an end. The randomness of an episode follows from the key of its reset alone, as there.
Numbers in jumanji's `extras`, such as `percent_eaten`, are metrics of the end of an episode.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hajax.envs.base import Counted, Environment, clip_action, concatenate_observations, timestep
from hajax.envs.lazy import import_quietly
from hajax.spaces import Box, Discrete
from hajax.spec import AgentSpec, EnvSpec
from hajax.validation import check_choice, check_of_package

LAST = 2  # the type of an episode's last step


class Rules(NamedTuple):
    """What jumanji does not tell of an environment, or tells in other forms."""

    generator: str  # the default generator of its problems, "package:class"
    views: Callable[[Any, Any], jax.Array]  # (environment, observation) -> the agents' observations [N, F]
    state: Callable[[Any, Any], jax.Array] | None = None  # likewise, the critic's [S]; None: the agents' end to end
    found: Callable[[Any], jax.Array] | None = None  # state -> whether the task is done; None: jumanji's discount tells
    later: bool = False  # whether jumanji calls the time limit an end, which then must not come before hajax's
    limit: Callable[[Any], int] = lambda env: env.time_limit


def _agents_view(env: Any, seen: Any) -> jax.Array:
    return seen.agents_view


def _kinds(seen: Any) -> tuple[jax.Array, jax.Array]:
    """Of every cell, the agent whose it is (−1: nobody's), and whether it is a path, a position or a target."""
    cells = seen.grid
    owner = jnp.where(cells > 0, (cells - 1) // 3, -1)
    return owner, jnp.stack([(cells > 0) & ((cells - 1) % 3 == kind) for kind in range(3)])


def _wires(env: Any, seen: Any) -> jax.Array:
    """Maps of the agent's own path, position and target, and of the others'."""
    owner, kinds = _kinds(seen)

    def view(agent):
        own = owner == agent
        return jnp.concatenate([kinds & own, kinds & ~own])

    return jax.vmap(view)(jnp.arange(env.num_agents))


def _board(env: Any, seen: Any) -> jax.Array:
    """Maps of all paths, positions and targets, and of the agents' numbers."""
    owner, kinds = _kinds(seen)
    return jnp.concatenate([kinds, ((owner + 1) / env.num_agents)[None]])


def _places(env: Any, seen: Any) -> jax.Array:
    """A map for each agent, 1 where it stands: `[N, rows, columns]`."""
    rows, columns = seen.agents_locations.T
    return jnp.zeros((env.num_agents, *seen.grid.shape)).at[jnp.arange(env.num_agents), rows, columns].set(1)


def _tiles(seen: Any) -> jax.Array:
    """Maps of dirty and clean tiles and of walls."""
    return seen.grid == jnp.arange(3)[:, None, None]


def _maze(env: Any, seen: Any) -> jax.Array:
    """Maps of the tiles, of the agent's place, and of the others' places."""
    places, tiles = _places(env, seen), _tiles(seen)
    others = places.sum(0) - places
    return jax.vmap(lambda own, other: jnp.concatenate([tiles, own[None], other[None]]))(places, others)


def _whole_maze(env: Any, seen: Any) -> jax.Array:
    return jnp.concatenate([_tiles(seen), _places(env, seen)])


def _searchers(env: Any, seen: Any) -> jax.Array:
    """What an agent sees, its position, and the share of the targets that remain."""
    remaining = jnp.broadcast_to(seen.targets_remaining, (env.num_agents, 1))
    return jnp.concatenate([seen.searcher_views.reshape(env.num_agents, -1), seen.positions, remaining], axis=1)


def _customers(env: Any, seen: Any) -> jax.Array:
    """The customers, their windows of time and penalties, and the vehicles, as shares of their greatest values."""

    def shares(part: str, *names: str) -> list[jax.Array]:
        values, spec = getattr(seen, part), getattr(env.observation_spec, part)
        return [getattr(values, name) / getattr(spec, name).maximum for name in names]

    problem = [*shares("nodes", "coordinates", "demands"), *shares("windows", "start", "end")]
    problem += shares("coeffs", "early", "late")
    return jnp.concatenate([jnp.ravel(x) for x in (*problem, *_vehicles(env, seen))])


def _vehicles(env: Any, seen: Any) -> list[jax.Array]:
    names = ("coordinates", "local_times", "capacities")
    return [getattr(seen.vehicles, name) / getattr(env.observation_spec.vehicles, name).maximum for name in names]


def _vehicle(env: Any, seen: Any) -> jax.Array:
    """All that `_customers` shows, and first the agent's own place, time and capacity."""
    own = jnp.concatenate([x.reshape(len(x), -1) for x in _vehicles(env, seen)], axis=1)
    whole = _customers(env, seen)
    return jnp.concatenate([own, jnp.broadcast_to(whole, (len(own), *whole.shape))], axis=1)


_ROUTING = "jumanji.environments.routing"
RULES: dict[str, Rules] = {
    "RobotWarehouse": Rules(f"{_ROUTING}.robot_warehouse.generator:RandomGenerator", _agents_view, later=True),
    "LevelBasedForaging": Rules(f"{_ROUTING}.lbf.generator:RandomGenerator", _agents_view),
    "Connector": Rules(f"{_ROUTING}.connector.generator:RandomWalkGenerator", _wires, _board),
    "Cleaner": Rules(f"{_ROUTING}.cleaner.generator:RandomGenerator", _maze, _whole_maze, later=True),
    "SearchAndRescue": Rules(
        "jumanji.environments.swarms.search_and_rescue.generator:RandomGenerator",
        _searchers,
        found=lambda state: state.targets.found.all(),
    ),
    "MultiCVRP": Rules(
        f"{_ROUTING}.multi_cvrp.generator:UniformRandomGenerator",
        _vehicle,
        _customers,
        limit=lambda env: 2 * env._num_customers + 1,  # then jumanji ends it, with a penalty
    ),
}


def named(name: str) -> Callable[..., Environment]:
    """The factory of `jumanji/ID`.

    Raises:
        ValueError: jumanji is not installed, or has no such environment of several agents.
    """
    if find_spec("jumanji") is None:
        raise ValueError(f"env={name} needs jumanji, which is not installed; pip install 'hajax[jumanji]'")
    own, registered = name.partition("/")[2], import_quietly("jumanji").registered_environments()
    check_of_package("jumanji", own, [found for found in registered if found.rpartition("-")[0] in RULES])
    factory = functools.partial(in_jumanji, own)
    factory.__doc__ = in_jumanji.__doc__
    return factory


def in_jumanji(
    name: str,
    *,
    kwargs: Mapping[str, Any] = MappingProxyType({}),
    generator: Mapping[str, Any] = MappingProxyType({}),
    reward: Literal["team", "individual"] = "team",
) -> Environment:
    """The environment of jumanji of that name, without automatic reset.

    Args:
        name: jumanji's, such as `"RobotWarehouse-v0"`.
        kwargs: jumanji's own options, such as `time_limit`.
        generator: the options of its generator of problems, such as `num_agents`, all of them if any.
        reward: `"team"` gives every agent the team's reward, which is the agents' sum if they have rewards of their
            own, `"individual"` each agent its own, or an equal share of the team's.

    Raises:
        ValueError: an option has a value that is not allowed, or jumanji refuses it.
    """
    check_choice("reward", reward, ("team", "individual"))
    rules, whole = RULES[name.rpartition("-")[0]], f"jumanji/{name}"
    env, limit = _made(whole, name, rules, kwargs, generator)
    _, first = jax.eval_shape(env.reset, jax.random.PRNGKey(0))
    views = jax.eval_shape(lambda seen: rules.views(env, seen), first.observation)
    count, shape = views.shape[0], views.shape[1:]
    masks = hasattr(first.observation, "action_mask")
    if masks:
        spaces: list[Discrete | Box] = [Discrete(first.observation.action_mask.shape[-1])] * count
    else:
        bounds = (np.broadcast_to(x, env.action_spec.shape) for x in (env.action_spec.minimum, env.action_spec.maximum))
        spaces = [Box(low, high) for low, high in zip(*bounds, strict=True)]
    agents = tuple(AgentSpec(f"agent_{i}", shape, space) for i, space in enumerate(spaces))
    own = rules.state
    width = int(np.prod(views.shape))
    if own is not None:
        width = jax.eval_shape(lambda seen: own(env, seen), first.observation).size
    spec = EnvSpec(whole, agents, width, limit, reward, masks_actions=masks, state_from_observations=own is None)

    def show(seen: Any, **fields: Any) -> Any:
        observation = rules.views(env, seen).reshape(count, -1).astype(float)
        state = concatenate_observations(spec, observation) if own is None else own(env, seen).ravel().astype(float)
        if masks:
            fields["action_mask"] = seen.action_mask[:, None]
        return timestep(spec, observation, state, **fields)

    def reset(key):
        inner, shown = env.reset(jax.random.key_data(key))
        return Counted(inner, jnp.zeros((), int)), show(shown.observation, first=True)

    def step(key, state, action):
        action = clip_action(spec, action)
        inner, shown = env.step(state.inner, action[:, 0].astype(int) if masks else action)
        inner = jax.tree.map(lambda new, old: jnp.asarray(new, jnp.result_type(old)), inner, state.inner)
        ended = (shown.step_type == LAST) & (shown.discount == 0).all() if rules.found is None else rules.found(inner)
        paid = {"reward" if shown.reward.ndim else "joint_reward": shown.reward.astype(float)}
        metrics = {name: x.astype(float) for name, x in shown.extras.items() if x.ndim == 0}
        following = Counted(inner, state.step + 1)
        over = ~ended & (following.step >= limit)
        return following, show(shown.observation, terminated=ended, truncated=over, metrics=metrics, **paid)

    return Environment(spec, reset, step)


def _made(
    whole: str, name: str, rules: Rules, kwargs: Mapping[str, Any], generator: Mapping[str, Any]
) -> tuple[Any, int]:
    """jumanji's environment with these options, and its step limit."""
    for option, value in (("kwargs", kwargs), ("generator", generator)):
        if not isinstance(value, Mapping):
            raise ValueError(f"{option}={value!r}; allowed: options by their names")
    jumanji = import_quietly("jumanji")
    module, _, kind = rules.generator.partition(":")
    given, option = dict(kwargs), "generator"
    try:
        with jax.ensure_compile_time_eval():
            if generator:
                given["generator"] = getattr(import_quietly(module), kind)(**generator)
            option = "kwargs"
            env = jumanji.make(name, **given)
            limit = rules.limit(env)
            return (jumanji.make(name, **given | {"time_limit": limit + 1}) if rules.later else env), limit
    except (TypeError, ValueError, AssertionError) as error:
        value = dict(generator if option == "generator" else kwargs)
        raise ValueError(f"{option}={value!r} of {whole}: {str(error).splitlines()[0]}") from error
