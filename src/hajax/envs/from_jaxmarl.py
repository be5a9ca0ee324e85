"""jaxmarl's environments under hajax's contract: `jaxmarl/overcooked`, `jaxmarl/hanabi`, `jaxmarl/MPE_simple_tag_v3`.

Observations are flattened. What jaxmarl does not tell is in `RULES`: its `done` mixes ends and time limits, a reward
may be the team's or an agent's, and agents may be opponents.

- An episode that reaches the step limit is truncated, else it is terminated. jaxmarl's MPE and SMAX count a step more.
- The critic's state is jaxmarl's `world_state` or `get_world_state`, if there is one, else all observations end to end.
- Action masks are jaxmarl's available or legal actions.
- Actions in a Box are clipped to it.

The robots are in brax. Their agents observe other joints than they drive; `mamujoco/*` has robots without this fault.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hajax.envs.base import Counted, Environment, clip_action, concatenate_observations, pad_observations, timestep
from hajax.envs.lazy import import_quietly
from hajax.spaces import Box, Discrete
from hajax.spec import AgentSpec, EnvSpec
from hajax.validation import check_choice, check_flag, check_known, check_of_package


class Moment(NamedTuple):
    """What a rule is told of a step: jaxmarl's states before and after it, and what it returned."""

    before: Any
    after: Any
    actions: Mapping[Any, jax.Array]
    dones: Mapping[Any, jax.Array]  # jaxmarl's, also of "__all__"


class Rules(NamedTuple):
    """What jaxmarl does not tell of an environment."""

    max_steps: Callable[[Any], int] = lambda env: env.max_steps
    ends: Callable[[Moment], jax.Array] = lambda moment: jnp.zeros((), bool)  # besides the step limit
    left: Callable[[Any, Moment], Any] | None = None  # (environment, moment) -> which agents have left, bool [N]
    shared: bool = False  # the reward is the team's, and every agent has it
    opposed: bool = False  # some agents gain what others lose


def _told(moment: Moment) -> jax.Array:
    """The switch riddle ends when the agent in the room speaks."""
    actions = jnp.stack([*moment.actions.values()])
    return actions[moment.before.agent_in_room] == 2


def _stopped(moment: Moment) -> jax.Array:
    """The agents of JaxNav that have reached their goals, have collided, or did so before."""
    return moment.after.goal_reached | moment.after.move_term | moment.before.done


def _all_done(moment: Moment) -> jax.Array:
    return moment.dones["__all__"]


def _dead(env: Any, moment: Moment) -> jax.Array:
    return jnp.stack([moment.dones[agent] for agent in env.agents])


def _fallen(moment: Moment) -> jax.Array:
    """A robot's episode ends, unless brax truncates it."""
    return moment.dones["__all__"] & (moment.after.info["truncation"] == 0)


def _longest_game(env: Any) -> int:
    """Every move of Hanabi takes a card of the deck, or a token, of which every card that is discarded returns one."""
    return 2 * int(np.sum(env.num_cards_of_rank)) * env.num_colors + env.max_info_tokens + env.num_agents


def _inner_times_outer(env: Any) -> int:
    return env.num_inner_steps * env.num_outer_steps


_MPE = Rules()
_OPPONENTS = Rules(opposed=True)
_BATTLE = Rules(ends=_all_done, left=_dead, shared=True)
_ROBOT = Rules(lambda env: env.episode_length, ends=_fallen, shared=True)
_GAMES = Rules(_inner_times_outer, ends=_all_done)  # the state after the last step is that of a new game
RULES: dict[str, Rules] = {
    "MPE_simple_v3": _MPE,
    "MPE_simple_spread_v3": _MPE,
    "MPE_simple_reference_v3": _MPE,
    "MPE_simple_speaker_listener_v4": _MPE,
    "MPE_simple_adversary_v3": _OPPONENTS,
    "MPE_simple_crypto_v3": _OPPONENTS,
    "MPE_simple_push_v3": _OPPONENTS,
    "MPE_simple_tag_v3": _OPPONENTS,
    "MPE_simple_world_comm_v3": _OPPONENTS,
    "MPE_simple_facmac_v1": _OPPONENTS,
    "MPE_simple_facmac_3a_v1": _OPPONENTS,
    "MPE_simple_facmac_6a_v1": _OPPONENTS,
    "MPE_simple_facmac_9a_v1": _OPPONENTS,
    "switch_riddle": Rules(ends=_told, shared=True),
    "SMAX": Rules(ends=_all_done, left=_dead, opposed=True),
    "HeuristicEnemySMAX": _BATTLE,
    "LearnedPolicyEnemySMAX": _BATTLE,
    "ant_4x2": _ROBOT,
    "halfcheetah_6x1": _ROBOT,
    "hopper_3x1": _ROBOT,
    "humanoid_9|8": _ROBOT,
    "walker2d_2x3": _ROBOT,
    "storm": _GAMES,
    "storm_2p": _GAMES,
    "storm_np": _GAMES,
    "hanabi": Rules(_longest_game, ends=_all_done, shared=True),
    "overcooked": Rules(shared=True),
    "overcooked_v2": Rules(shared=True),
    "coin_game": _GAMES,
    "jaxnav": Rules(
        ends=lambda moment: _stopped(moment).all(),
        left=lambda env, moment: _stopped(moment) if env.evaporating else jnp.zeros(env.num_agents, bool),
    ),
}


def named(name: str) -> Callable[..., Environment]:
    """The factory of `jaxmarl/NAME`.

    Raises:
        ValueError: there is none.
    """
    own = name.partition("/")[2]
    check_of_package("jaxmarl", own, RULES)
    factory = functools.partial(in_jaxmarl, own)
    factory.__doc__ = in_jaxmarl.__doc__
    return factory


def in_jaxmarl(
    name: str,
    *,
    kwargs: Mapping[str, Any] = MappingProxyType({}),
    reward: Literal["team", "individual"] = "team",
    shaped: bool = False,
) -> Environment:
    """The environment of jaxmarl of that name, without automatic reset.

    Args:
        name: jaxmarl's, such as `"overcooked"`.
        kwargs: jaxmarl's own options, such as `max_steps`. A `layout` of Overcooked and a `scenario` of SMAX may be
            names.
        reward: `"team"` gives every agent the team's reward, which is the agents' sum if they have rewards of their
            own, `"individual"` each agent its own, or an equal share of the team's. Opponents have no team's reward.
        shaped: whether Overcooked also pays each agent for its parts of the work, such as an onion in a pot.

    Raises:
        ValueError: an option has a value that is not allowed, or jaxmarl refuses it.
    """
    check_choice("reward", reward, ("team", "individual"))
    check_flag("shaped", shaped)
    rules, whole = RULES[name], f"jaxmarl/{name}"
    if rules.opposed and reward == "team":
        raise ValueError(f"reward='team' of {whole}, in which some agents gain what others lose; allowed: individual")
    if shaped and not name.startswith("overcooked"):
        raise ValueError(f"shaped=true of {whole}; allowed: false")
    env = _made(whole, name, kwargs)
    theirs = [*env.agents]
    limit = rules.max_steps(env)
    shown, inner = jax.eval_shape(env.reset, jax.random.key(0))
    seen = jax.eval_shape(lambda shown: _observations(theirs, shown), shown)
    spaces = [_space(env.action_space(agent)) for agent in theirs]
    agents = tuple(
        AgentSpec(str(agent) if isinstance(agent, str) and not agent.isdecimal() else f"agent_{agent}", x.shape, space)
        for agent, x, space in zip(theirs, seen, spaces, strict=True)
    )
    legal = _legal(env)
    survey = _survey(env)
    world = None if survey is None else jax.eval_shape(survey, inner)
    width = sum(agent.observation_size for agent in agents) if world is None else world.shape[-1]
    spec = EnvSpec(
        whole,
        agents,
        width,
        limit,
        reward,
        state_per_agent=world is not None and world.ndim == 2,
        masks_actions=legal is not None,
        state_from_observations=world is None,
    )
    choices = spec.action_layout.choices

    def show(inner: Any, shown: Any, **fields: Any) -> Any:
        observation = pad_observations(spec, _observations(theirs, shown))
        state = concatenate_observations(spec, observation) if survey is None else survey(inner)
        if legal is not None:
            masks = [jnp.asarray(legal(inner)[agent]) > 0 for agent in theirs]
            padded = [jnp.pad(mask, (0, choices.shape[-1] - mask.size)) for mask in masks]
            fields["action_mask"] = jnp.stack(padded)[:, None]
        return timestep(spec, observation, state.astype(float), **fields)

    def reset(key):
        shown, inner = env.reset(key)
        return Counted(inner, jnp.zeros((), int)), show(inner, shown, first=True)

    def step(key, state, action):
        action = clip_action(spec, action)
        actions = {
            agent: action[i, 0].astype(int) if isinstance(space, Discrete) else action[i, : len(space.low)]
            for i, (agent, space) in enumerate(zip(theirs, spaces, strict=True))
        }
        shown, inner, rewards, dones, infos = env.step_env(key, state.inner, actions)
        inner = jax.tree.map(lambda new, old: jnp.asarray(new, jnp.result_type(old)), inner, state.inner)
        own = jnp.stack([jnp.asarray(x, float) for x in _by_agent(theirs, rewards)])
        parts = jnp.stack([*infos["shaped_reward"].values()]) if shaped else jnp.zeros_like(own)
        own = own / len(theirs) if rules.shared else own
        moment, count = Moment(state.inner, inner, actions, dones), state.step + 1
        ended = rules.ends(moment)
        left = jnp.zeros(len(theirs), bool) if rules.left is None else rules.left(env, moment)
        return Counted(inner, count), show(
            inner,
            shown,
            reward=own + parts,
            terminated=ended,
            truncated=~ended & (count >= limit),
            active=~left,
        )

    return Environment(spec, reset, step)


def _made(whole: str, name: str, kwargs: Mapping[str, Any]) -> Any:
    """jaxmarl's environment with these options."""
    if not isinstance(kwargs, Mapping):
        raise ValueError(f"kwargs={kwargs!r}; allowed: options by their names")
    jaxmarl, given = import_quietly("jaxmarl"), dict(kwargs)
    option = {"overcooked": "layout"}.get(name, "scenario" if name.endswith("SMAX") else "")
    if isinstance(given.get(option), str):  # jaxmarl takes the object of that name
        if option == "layout":
            known = import_quietly("jaxmarl.environments.overcooked").overcooked_layouts
        else:
            known = import_quietly("jaxmarl.environments.smax.smax_env").MAP_NAME_TO_SCENARIO
        check_known(f"kwargs.{option}", given[option], known)
        given[option] = known[given[option]]
    fixed = {"auto_reset": False} if RULES[name] is _ROBOT else {}  # it would replace the final observations
    try:
        with jax.ensure_compile_time_eval():
            return jaxmarl.make(name, **fixed, **given)
    except (TypeError, ValueError, KeyError, AssertionError) as error:
        raise ValueError(f"kwargs={dict(kwargs)!r} of {whole}: {str(error).splitlines()[0]}") from error


def _space(space: Any) -> Discrete | Box:
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    low, high = (np.broadcast_to(np.asarray(x, float), space.shape).ravel() for x in (space.low, space.high))
    return Box(low, high)


def _by_agent(agents: Sequence[Any], values: Any) -> list[Any]:
    """The agents' values: from a dictionary by agent, or one after another."""
    if isinstance(values, Mapping) and all(agent in values for agent in agents):
        return [values[agent] for agent in agents]
    if isinstance(values, tuple | list):
        return [*values]
    return [jax.tree.map(lambda x, i=i: x[i], values) for i in range(len(agents))]


def _observations(agents: Sequence[Any], shown: Any) -> list[jax.Array]:
    """The agents' observations, flat, their parts in the order of their names."""
    parts = (jax.tree.leaves(own) for own in _by_agent(agents, shown))
    return [jnp.concatenate([jnp.ravel(x).astype(float) for x in own]) for own in parts]


def _survey(env: Any) -> Callable[[Any], jax.Array] | None:
    """The function of the critic's state, one for all or one for each agent; `None` if there is none."""
    if not hasattr(env, "get_world_state"):
        return None

    def survey(inner: Any) -> jax.Array:
        state = env.get_world_state(inner)
        if isinstance(state, Mapping):  # of FACMAC's agents, with what each would observe if it saw everything
            return jnp.concatenate([jnp.ravel(x) for x in _by_agent(env.agents, state)])
        return state

    return survey


def _legal(env: Any) -> Callable[[Any], Mapping[Any, jax.Array]] | None:
    """The function of the available actions, `None` if all always are."""
    for function in ("get_legal_moves", "get_avail_actions"):
        look = getattr(env, function, None)
        if look is None or not all(hasattr(env.action_space(agent), "n") for agent in env.agents):
            continue
        try:
            _, inner = jax.eval_shape(env.reset, jax.random.key(0))
            jax.eval_shape(look, inner)
        except NotImplementedError:
            continue
        return look
    return None
