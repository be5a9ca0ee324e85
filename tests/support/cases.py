"""The learning problems on which updates are compared with the reference. Each is compiled once for all tests."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import expected
import jax
import numpy as np
import problems

from hajax.spaces import Box, Discrete, MultiDiscrete

BOX = Box((-1.0, 0.0), (1.0, 5.0))
LINE = Box((-np.inf,), (np.inf,))
TRIO = (Discrete(3),) * 3


@dataclasses.dataclass(frozen=True)
class Case:
    algorithm: str
    spaces: tuple
    settings: tuple = ()  # (name, value) pairs
    sizes: tuple | None = None
    reward: str = "team"
    inactive: float = 0.0  # the share of inactive agents


def case(algorithm, spaces, *, sizes=None, reward="team", inactive=0.0, **settings):
    return Case(algorithm, tuple(spaces), tuple(settings.items()), sizes, reward, inactive)


CASES = {
    "happo, one discrete agent": case("happo", [Discrete(3)]),
    "happo, one box agent": case("happo", [BOX], max_grad_norm=10.0),
    "happo, random order": case("happo", TRIO, epochs=2),
    "happo, minibatches": case("happo", [Discrete(2), BOX], order="fixed", minibatches=3),
    "happo, mixed team, some dead": case(
        "happo", [Discrete(3), BOX, MultiDiscrete((2, 3))], sizes=(2, 4, 3), order="fixed", inactive=0.3
    ),
    "happo, groups of two and one": case("happo", TRIO, order="fixed", sharing=(0, 0, 1), inactive=0.3),
    "happo, by type, agent id": case(
        "happo", [Discrete(3), LINE, Discrete(3)], sizes=(3, 2, 3), order="fixed", sharing="type", agent_id=True
    ),
    "happo, all shared, agent id": case("happo", TRIO, sharing="all", agent_id=True, inactive=0.3),
    "happo, other losses": case(
        "happo",
        [BOX, Discrete(3)],
        order="fixed",
        value_loss="squared",
        clip_value=False,
        normalize_values=False,
        layer_norm=False,
        action_scaling=False,
        hidden_sizes=(5, 4),
        decay_updates=4,
    ),
    "happo, gru, groups of two and one": case(
        "happo", TRIO, order="fixed", sharing=(0, 0, 1), inactive=0.3, hidden_sizes=(4,), memory="gru", chunk_length=6
    ),
    "happo, gru, minibatches of chunks": case(
        "happo",
        TRIO,
        order="fixed",
        sharing=(0, 0, 1),
        inactive=0.2,
        minibatches=3,
        memory="gru",
        chunk_length=3,
    ),
    "hatrpo, gru": case(
        "hatrpo",
        [Discrete(3), BOX],
        sizes=(2, 3),
        order="fixed",
        inactive=0.2,
        hidden_sizes=(4,),
        memory="gru",
        chunk_length=2,
        kl_radius=0.2,
    ),
    "ippo, gru": case(
        "ippo",
        [BOX, Discrete(3), BOX],
        reward="individual",
        sharing=(0, 1, 0),
        normalize_observations=True,
        inactive=0.3,
        memory="gru",
        chunk_length=2,
        layer_norm=False,
    ),
    "haa2c, minibatches": case("haa2c", [Discrete(2), BOX], minibatches=3),
    "haa2c, groups of two and one": case("haa2c", TRIO, order="fixed", sharing=(0, 0, 1), inactive=0.3),
    "haa2c, gru": case(
        "haa2c", [Discrete(2), BOX], sizes=(2, 3), inactive=0.2, hidden_sizes=(4,), memory="gru", chunk_length=2
    ),
    "maa2c, unshared": case("maa2c", TRIO, sharing="none"),
    "maa2c, shared": case("maa2c", TRIO, inactive=0.3),
    "hatrpo, one discrete agent": case("hatrpo", [Discrete(3)], accept_ratio=0.5),
    "hatrpo, one box agent": case("hatrpo", [BOX]),
    "hatrpo, random order": case("hatrpo", TRIO, kl_radius=0.5),
    "hatrpo, mixed team, some dead": case(
        "hatrpo", [Discrete(3), BOX, MultiDiscrete((2, 3))], sizes=(2, 4, 3), order="fixed", inactive=0.3
    ),
    "hatrpo, groups of two and one": case("hatrpo", TRIO, order="fixed", sharing=(0, 0, 1), inactive=0.3),
    "hatrpo, rejected": case("hatrpo", TRIO, accept_ratio=1.0, kl_radius=2.0, line_search_steps=2),
    "happo, HARL's critic": case(
        "happo",
        [Discrete(2), BOX],
        order="fixed",
        minibatches=3,
        critic_epochs=2,
        inactive=0.2,
        clip_value=True,
        value_statistics_per="minibatch",
    ),
    "ippo, HARL's critic, gru": case(
        "ippo", TRIO, sharing=(0, 0, 1), inactive=0.2, memory="gru", chunk_length=2, value_statistics_per="minibatch"
    ),
    "happo, truncated": case("happo", TRIO, epochs=2, guard="truncate", truncation=1.1, inactive=0.2),
    "happo, clipped": case("happo", TRIO, inactive=0.2, guard="clip", clip=0.1),
    "happo, gru, truncated, greedy": case(
        "happo",
        TRIO,
        order="greedy",
        inactive=0.3,
        hidden_sizes=(4,),
        memory="gru",
        chunk_length=2,
        guard="truncate",
        truncation=1.1,
    ),
    "hatrpo, normalized": case("hatrpo", TRIO, kl_radius=0.5, inactive=0.2, guard="normalize"),
    "hatrpo, clipped, joint budget": case(
        "hatrpo", TRIO, order="fixed", guard="clip", clip=0.1, kl_radius=0.5, kl_budget="joint"
    ),
    "hatrpo, unspent budget": case(
        "hatrpo", TRIO, sharing=(0, 0, 1), kl_radius=0.5, kl_budget="unspent", accept_ratio=0.9
    ),
    "happo, centered": case("happo", TRIO, epochs=2, inactive=0.2, guard="none", center_advantage=True),
    "hatrpo, truncated, centered, groups of two and one": case(
        "hatrpo",
        TRIO,
        sharing=(0, 0, 1),
        kl_radius=0.5,
        inactive=0.2,
        guard="truncate",
        truncation=1.1,
        center_advantage=True,
    ),
    "haa2c, centered, gru": case(
        "haa2c",
        [Discrete(2), BOX],
        sizes=(2, 3),
        inactive=0.2,
        hidden_sizes=(4,),
        memory="gru",
        chunk_length=2,
        guard="none",
        center_advantage=True,
    ),
    "happo, interval": case("happo", TRIO, epochs=2, inactive=0.2, guard="interval", clip=0.1),
    "a2po, one agent": case("a2po", [Discrete(3)], epochs=2),
    "a2po, mixed team, some inactive": case(
        "a2po", [Discrete(3), BOX, MultiDiscrete((2, 3))], sizes=(2, 4, 3), epochs=2, inactive=0.3, clip=0.1
    ),
    "a2po, groups of two and one, minibatches": case(
        "a2po", TRIO, order="fixed", sharing=(0, 0, 1), inactive=0.2, minibatches=3, clip_floor=0.25
    ),
    "a2po, gru": case("a2po", TRIO, inactive=0.3, hidden_sizes=(4,), memory="gru", chunk_length=2, sharing=(1, 0, 1)),
    "a2po, own critics, normalized observations": case(
        "a2po", TRIO, inactive=0.3, centralized=False, order="random", normalize_observations=True
    ),
    "happo, semi-greedy": case("happo", [Discrete(3), LINE, Discrete(2), BOX, Discrete(4)], order="semi_greedy"),
    "hatrpo, greedy": case("hatrpo", TRIO, sharing=(0, 1, 0), kl_radius=0.5, order="greedy", inactive=0.3),
    "mappo, unshared": case("mappo", TRIO, sharing="none"),
    "mappo, shared": case("mappo", TRIO, inactive=0.3),
    "ippo, unshared": case("ippo", [Discrete(3), BOX], sizes=(2, 4), reward="individual", sharing="none"),
    "ippo, groups, normalized observations": case(
        "ippo",
        [BOX, Discrete(3), BOX],
        reward="individual",
        sharing=(0, 1, 0),
        normalize_observations=True,
        inactive=0.3,
    ),
    "ippo, a team's reward, some dead": case("ippo", TRIO, sharing=(0, 0, 1), inactive=0.4),
}


@functools.cache
def learning(name: str) -> tuple[Any, problems.Recorder]:
    """The algorithm of a case and its update, compiled once for all tests."""
    chosen = CASES[name]
    spec = problems.make_spec(chosen.spaces, chosen.sizes, reward=chosen.reward)
    algo = problems.make_algorithm(chosen.algorithm, spec, **dict(chosen.settings))
    return algo, problems.Recorder(algo)


def problem(name: str, seed: int = 0) -> tuple[Any, Any, Any]:
    """The algorithm of a case, a random state and a random rollout."""
    algo, _ = learning(name)
    state = problems.random_state(algo, seed)
    return algo, state, problems.random_batch(algo, state, seed, inactive=CASES[name].inactive)


def update(name: str, state: Any, batch: Any, key: int = 0) -> tuple[Any, Any, list]:
    return learning(name)[1](jax.random.key(key), state, batch)


def expectation(algo: Any, state: Any, batch: Any, drawn: list) -> expected.Expected:
    """The reference's update, in the order of the settings or in the order that the algorithm has drawn."""
    num_groups = len(problems.groups_of(algo.spec, algo.settings.sharing))
    kind = algo.settings.order
    if kind == "simultaneous":
        order = None
    elif kind != "fixed" and num_groups > 1:
        order, *drawn = drawn
        assert sorted(order) == list(range(num_groups))
    else:
        order = range(num_groups)
    by_score = kind if kind in ("greedy", "semi_greedy") and num_groups > 1 else ""
    return expected.update(algo, state, batch, order, drawn, by_score)
