"""Runs of a test module share compiled programs, because most need the same few, which take seconds to compile.

A run's programs depend on the environment, the algorithm's static settings, the sizes and the number of seeds;
hyperparameters are arguments. The library traces and compiles each program once. Registered environments and algorithms
are identified by their objects, not by their names. Those by `module:function` are compiled for every run, because
another test may have another module of that name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import hajax.algorithms
import hajax.envs
from hajax.runs import programs, runner
from hajax.runs import team as teams

MADE: dict[tuple, Any] = {}  # results of `trace` and `compile_programs`
KEYS: dict[int, tuple[Any, tuple]] = {}  # by a loop's `id`: the loop, so that its id is not reused, and its key


@contextmanager
def sharing() -> Iterator[None]:
    """A context in which a run reuses the programs of an earlier run with the same settings."""
    build, trace, compile_programs = teams.build, programs.trace, programs.compile_programs

    def shared_build(settings):
        team = build(settings)
        environment, algorithm = settings.env["name"], settings.algo["name"]
        if ":" not in environment + algorithm:
            entry = hajax.algorithms._registered.get(algorithm)
            made_by = hajax.envs._registered.get(environment), entry and entry.function
            hyperparameters = vars(team.algorithm.hyperparameters)
            static = {key: value for key, value in settings.algo.items() if key not in hyperparameters}
            sizes = settings.num_envs, settings.rollout_length, settings.eval
            precision = str(jnp.result_type(float)), jax.config.jax_debug_nans  # type: ignore[attr-defined]
            shown = repr((settings.env, static, team.algorithm.settings, *sizes))
            KEYS[id(team.loop)] = team.loop, (shown, made_by, *precision)
        return team

    def shared(make):
        def made(team, trials, *rest):
            if id(team.loop) not in KEYS:
                return make(team, trials, *rest)
            population = repr(rest[-1]) if make is compile_programs else ""
            key = (make.__name__, trials.keys.shape, population, *KEYS[id(team.loop)][1])
            if key not in MADE:
                MADE[key] = make(team, trials, *rest)
            return MADE[key]

        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teams, "build", shared_build)
        patch.setattr(runner, "trace", shared(trace))
        patch.setattr(runner, "compile_programs", shared(compile_programs))
        yield
