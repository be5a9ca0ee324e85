"""The off-policy part of `throughput.py`: HATD3 and HASAC on continuous simple_spread, at HARL's schedule for MPE.

hatd3, hasac    whole trainings: 20 environments, 50 steps of each and then 50 steps of the critics on minibatches of
                1,000, drawn from a full replay; two layers of 128 (HATD3) and 256 (HASAC)
hatd3_bare, …   the same `update`s on minibatches that are there already: no environment, no replay
matd3           the yardstick of matd3.py at HATD3's schedule

The replays of all seeds together hold `buffer_size` observations.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from matd3 import Config, from_hajax, make_matd3
from rows import Iteration
from timing import Timed, peak_memory, program_bytes, reset_peak, spread

import hajax
from hajax.cli import config
from hajax.training.replay import init_replay, replay_bytes, sample

PRESETS = {"hatd3": "harl/mpe_haddpg", "hasac": "harl/mpe_hasac"}
ROWS = ("hatd3", "hatd3_bare", "matd3", "hasac", "hasac_bare")
# Environment steps per second of HARL in PyTorch on a machine of two cores, at this schedule; not measured here.
REFERENCE = {"hatd3": 400, "hasac": 150}
FEW = 4  # minibatches that bare updates take in turn
TINY = {"num_envs": 2, "rollout_length": 4, "batch_size": 8, "buffer_size": 200, "hidden_sizes": (8,)}


def environment() -> Any:
    return hajax.make_env("mpe/simple_spread", actions="continuous")


def make_loop(name: str, buffer_size: int, quick: bool) -> tuple[Any, Any]:
    """The algorithm at its preset, with single steps and a warm-up that fills the replay; and its loop."""
    preset = config.compose([f"algo={name}", f"preset={PRESETS[name]}"])
    settings = {key: value for key, value in preset["algo"].items() if key not in ("name", "reward")}
    sizes = {key: preset[key] for key in ("num_envs", "rollout_length")}
    settings |= {"n_step": 1, "buffer_size": buffer_size, "warmup_steps": buffer_size}
    if quick:
        tiny = dict(TINY)
        sizes = {key: tiny.pop(key) for key in sizes}
        settings |= tiny | {"warmup_steps": tiny["buffer_size"]}
    env = environment()
    algo = hajax.make_algorithm(name, env, **settings)
    return algo, hajax.make_loop(env, algo, **sizes)


def bare(algo: Any, updates: int) -> Callable:
    """The updates of one iteration, and nothing else: `(state, minibatches, key)` to the same."""

    def iterate(carry):
        state, batches, key = carry
        key, *keys = jax.random.split(key, 1 + updates)

        def update(state, inputs):
            key, turn = inputs
            return algo.update(key, state, jax.tree.map(lambda x: x[turn % FEW], batches))[0], None

        state, _ = lax.scan(update, state, (jnp.stack(keys), jnp.arange(len(keys))))
        return state, batches, key

    return iterate


def bare_start(algo: Any, start: Any, key: jax.Array) -> Any:
    """Where `bare` begins, with minibatches of a training that is about to begin."""
    rows = (algo.settings.policy_delay, algo.settings.batch_size)

    def draw(key):
        return sample(algo.spec, start.replay, key, rows, algo.settings.n_step)

    return start.algorithm, jax.vmap(draw)(jax.random.split(key, FEW)), key


def measured_rows(keys: jax.Array, buffer_size: int, quick: bool) -> dict[str, Timed]:
    """All rows, compiled, each from its own start for every key."""
    timed = {}
    for name in PRESETS:
        algo, loop = make_loop(name, buffer_size, quick)
        init = jax.jit(loop.init)
        starts = [init(key) for key in keys]
        begin = jax.jit(functools.partial(bare_start, algo))
        updates = bare(algo, loop.updates_per_iteration)
        bare_starts = [begin(start, key) for start, key in zip(starts, keys, strict=True)]
        timed[f"{name}_bare"] = Timed(f"{name}_bare", Iteration(loop.init, updates), bare_starts)
        timed[name] = Timed(name, Iteration(loop.init, lambda state, loop=loop: loop.iterate(state)[0]), starts)
    algo, loop = make_loop("hatd3", buffer_size, quick)
    copied = ("batch_size", "buffer_size", "warmup_steps", "hidden_sizes")
    num_envs = TINY["num_envs"] if quick else Config.num_envs
    chosen = Config(
        num_envs=num_envs,
        rollout_length=loop.steps_per_iteration // num_envs,
        **{key: getattr(algo.settings, key) for key in copied},
    )
    yardstick = make_matd3(from_hajax(environment()), chosen)
    begin = jax.jit(yardstick.init)
    timed["matd3"] = Timed("matd3", Iteration(*yardstick), [begin(key) for key in keys])
    return timed


def off_policy(seeds: list[int], repeats: int, seconds: float, quick: bool = False) -> Iterator[dict[str, Any]]:
    """A cell per number of seeds: steps and critic steps per second, and ratios of the same moments."""
    for num_seeds in seeds:
        buffer_size = TINY["buffer_size"] if quick else 1_000_000 // num_seeds
        keys = jax.random.split(jax.random.key(0), num_seeds)
        timed = measured_rows(keys, buffer_size, quick)
        for row in timed.values():
            row.warm_up(seconds)
        for _ in range(repeats):
            for row in timed.values():
                row.seconds.append(row.advance())
        yield report(timed, num_seeds, buffer_size, quick)
        jax.clear_caches()


def report(timed: dict[str, Timed], num_seeds: int, buffer_size: int, quick: bool) -> dict[str, Any]:
    algo, loop = make_loop("hatd3", buffer_size, quick)
    steps = num_seeds * loop.steps_per_iteration
    critic_steps = num_seeds * loop.updates_per_iteration * algo.settings.policy_delay

    def over(name: str, other: str) -> dict[str, float]:
        pairs = zip(timed[name].seconds, timed[other].seconds, strict=True)
        return spread([b / a for a, b in pairs], 3)

    rows = {
        name: {
            "steps_per_second": spread([steps / x for x in row.seconds], 0),
            "critic_steps_per_second": spread([critic_steps / x for x in row.seconds], 1),
            "compile_seconds": round(row.compile_seconds, 1),
            "program_bytes": row.memory,
        }
        for name, row in timed.items()
    }
    ratios: dict[str, Any] = {f"{name}_over_bare": over(name, f"{name}_bare") for name in PRESETS}
    ratios["hatd3_over_matd3"] = over("hatd3", "matd3")
    ratios["over_the_pytorch_reference"] = {
        name: round(steps / statistics.median(timed[name].seconds) / rate, 1) for name, rate in REFERENCE.items()
    }
    return {"seeds": num_seeds, "buffer_size_per_seed": buffer_size, "rows": rows, "ratios": ratios}


def line(cell: dict[str, Any]) -> str:
    """One cell: medians of steps per second, and ratios with their spread."""
    rates = ", ".join(f"{name} {row['steps_per_second']['median']:,.0f}" for name, row in cell["rows"].items())
    ratios = ", ".join(
        f"{name} {x['median']:.2f} [{x['min']:.2f}, {x['max']:.2f}]" for name, x in cell["ratios"].items() if "min" in x
    )
    return f"{cell['seeds']} seeds: {rates} steps/s; {ratios}; {cell['ratios']['over_the_pytorch_reference']}"


def replay_memory(size: int = 1_000_000, num_envs: int = 20) -> dict[str, Any]:
    """A replay of continuous simple_spread: bytes as stated, as its arrays have, and by which the process grew."""
    spec = environment().spec
    rows = size // num_envs
    reset_peak()
    before = peak_memory()["resident"]
    program = jax.jit(lambda: jax.tree.map(lambda x: x + 1, init_replay(spec, num_envs, rows))).lower().compile()
    replay = jax.block_until_ready(program())
    return {
        "observations": size,
        "stated_megabytes": round(replay_bytes(spec, num_envs, rows) / 1e6, 1),
        "array_megabytes": round(sum(x.nbytes for x in jax.tree.leaves(replay)) / 1e6, 1),
        "process_growth_megabytes": round((peak_memory()["resident"] - before) / 1e6, 1),
        "program_bytes": program_bytes(program),
    }
