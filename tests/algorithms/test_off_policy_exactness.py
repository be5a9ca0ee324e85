"""The updates of HADDPG, MADDPG, HATD3 and MATD3 equal those of `reference_off_policy.py`, in float64.

Every comparison covers all parameters, both Adam moments of each, and all targets, after each of several updates. With
one agent they are DDPG and TD3.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import off_policy_problems
import problems
import pytest

from hajax.spaces import Box

LINE, PAIR, FREE = Box((-1.0,), (4.0,)), Box((-1.0, 0.0), (2.0, 0.5)), Box((-np.inf,), (np.inf,))
TRIO = (PAIR, FREE, PAIR)
SIZES = (3, 2, 3)

CASES: dict[str, dict[str, Any]] = {
    "haddpg, one agent": {"spaces": [PAIR]},
    "haddpg, random order": {"spaces": TRIO, "sizes": SIZES},
    "haddpg, epochs, n steps, some dead": {"spaces": TRIO, "sizes": SIZES, "epochs": 3, "n_step": 4, "inactive": 0.3},
    "haddpg, current policies": {"spaces": TRIO, "sizes": SIZES, "others": "policy", "epochs": 2},
    "haddpg, groups": {"spaces": TRIO, "sizes": SIZES, "sharing": (0, 1, 0), "inactive": 0.3, "order": "fixed"},
    "haddpg, layer norm": {"spaces": (LINE, FREE), "layer_norm": True, "agent_id": True, "sharing": "none"},
    "maddpg, one critic": {"spaces": TRIO, "sizes": SIZES},
    "maddpg, replayed": {"spaces": TRIO, "sizes": SIZES, "others": "replay"},
    "maddpg, a critic each": {"spaces": TRIO, "sizes": SIZES, "per_agent_critics": True, "reward": "individual"},
    "maddpg, a critic each, groups": {
        "spaces": TRIO,
        "sizes": SIZES,
        "per_agent_critics": True,
        "reward": "individual",
        "sharing": "type",
        "inactive": 0.3,
        "others": "replay",
    },
    "hatd3, one agent": {"spaces": [PAIR]},
    "hatd3, random order": {"spaces": TRIO, "sizes": SIZES, "n_step": 2, "policy_delay": 3, "inactive": 0.3},
    "matd3, shared": {"spaces": (LINE, LINE, LINE), "sharing": "all", "agent_id": True},
    "matd3, critics each": {"spaces": TRIO, "sizes": SIZES, "per_agent_critics": True, "reward": "individual"},
}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@functools.cache
def problem(name: str):
    """The algorithm, a random state, and the compiled `update`, which also returns the random draws."""
    options = {k: v for k, v in CASES[name].items() if k not in ("spaces", "sizes", "reward", "inactive")}
    case = CASES[name]
    spec = problems.make_spec(case["spaces"], case.get("sizes"), reward=case.get("reward", "team"))
    algorithm = name.split(",")[0]
    algo = off_policy_problems.make_algorithm(algorithm, spec, **options)
    return algo, off_policy_problems.random_state(algo, 3), off_policy_problems.Recorder(algo)


@pytest.mark.parametrize("name", CASES)
def test_update_equals_the_reference(name):
    algo, state, update = problem(name)
    for i in range(3):
        batch = off_policy_problems.random_batch(algo, 10 + i, CASES[name].get("inactive", 0.0))
        (new, _), noise, orders = update(jax.random.key(i), state, batch)
        assert bool(noise) == algo.name.endswith("td3")
        expected = off_policy_problems.expectation(algo, state, batch, noise, orders)
        off_policy_problems.assert_team_equals(algo, state, new, expected)
        state = new
