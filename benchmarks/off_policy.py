"""The off-policy part of `throughput.py`: HATD3 and HASAC on continuous simple_spread, at HARL's schedule for MPE.

hatd3, hasac    whole trainings: 20 environments, 50 steps of each and then 50 critic steps on minibatches of 1,000
                single steps from a full replay; two layers of 128 (HATD3) and 256 (HASAC)
matd3           MATD3 with HATD3's settings
hatd3_bare, …   the same updates on given minibatches, without environment and replay. Their steps per second are
                those that this number of updates would allow
yardstick       the MATD3 in one file of matd3.py, at HATD3's schedule; on a CPU the updates of its seeds run one
                after another, as hajax's do, which suits the cache better than vmapped ones
yardstick_256   the same at HASAC's schedule: two layers of 256, actors updated as often as critics

The replays of all seeds together hold `buffer_size` observations.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from arithmetic import matmul_flops
from jax import lax
from matd3 import Config, from_hajax, make_matd3
from rows import Iteration
from timing import Timed, peak_memory, program_bytes, reset_peak, spread

import hajax
from hajax.runs import config
from hajax.training.iteration import sequential_on_cpu
from hajax.training.replay import init_replay, replay_bytes, sample

PRESETS = {"hatd3": "harl/mpe_haddpg", "matd3": "harl/mpe_haddpg", "hasac": "harl/mpe_hasac"}
BARE = ("hatd3", "hasac")
YARDSTICKS = {"yardstick": "matd3", "yardstick_256": "hasac"}  # the algorithm whose schedule they have
OVER = {"hatd3": "yardstick", "matd3": "yardstick", "hasac": "yardstick_256"}
ROWS = ("hatd3", "hatd3_bare", "matd3", "hasac", "hasac_bare", *YARDSTICKS)
# Environment steps per second of one seed of HARL in PyTorch, with the same ratio of updates, batches and layers, on a
# machine of two cores: a reference, not measured here.
REFERENCE = {"hatd3": 400, "hasac": 150}
FEW = 4  # minibatches between which bare updates alternate
TINY = {"num_envs": 2, "rollout_length": 4, "batch_size": 8, "buffer_size": 200, "hidden_sizes": (8,)}


def environment() -> Any:
    return hajax.make_env("mpe/simple_spread", actions="continuous")


def make_loop(name: str, buffer_size: int, quick: bool) -> tuple[Any, Any, int]:
    """The algorithm at its preset, with single steps and a warm-up that fills the replay; its loop; E."""
    preset = config.compose([f"algo={name}", f"preset={PRESETS[name]}"])
    settings = {key: value for key, value in preset["algo"].items() if key not in ("name", "reward")}
    sizes = {key: preset[key] for key in ("num_envs", "rollout_length")}
    settings |= {"n_step": 1, "buffer_size": buffer_size, "warmup_steps": buffer_size}
    if name == "matd3":  # as in the yardstick, and the published algorithm
        settings["others"] = "replay"
    if quick:
        tiny = dict(TINY)
        sizes = {key: tiny.pop(key) for key in sizes}
        settings |= tiny | {"warmup_steps": tiny["buffer_size"]}
    env = environment()
    algo = hajax.make_algorithm(name, env, **settings)
    return algo, hajax.make_loop(env, algo, **sizes), sizes["num_envs"]


def bare(algo: Any, updates: int) -> Callable:
    """The updates of one iteration alone, on a carry `(state, minibatches, key)`."""
    learn = sequential_on_cpu(algo.update)  # as in the whole training

    def iterate(carry):
        state, batches, key = carry
        key, *keys = jax.random.split(key, 1 + updates)

        def update(state, inputs):
            key, turn = inputs
            return learn(key, state, jax.tree.map(lambda x: x[turn % FEW], batches))[0], None

        state, _ = lax.scan(update, state, (jnp.stack(keys), jnp.arange(len(keys))))
        return state, batches, key

    return iterate


def bare_start(algo: Any, start: Any, key: jax.Array) -> Any:
    """The initial carry of `bare`, with minibatches from the start of a training."""
    rows = (algo.settings.policy_delay, algo.settings.batch_size)

    def draw(key):
        return sample(algo.spec, start.replay, key, rows, algo.settings.n_step)

    return start.algorithm, jax.vmap(draw)(jax.random.split(key, FEW)), key


class Measured(NamedTuple):
    """A row's program, and per iteration of one seed its environment steps, critic steps and matrix products."""

    timed: Timed
    steps: int
    critic_steps: int
    flops: int


def compiled_rows(keys: jax.Array, buffer_size: int, quick: bool) -> dict[str, Measured]:
    """All rows compiled, with an initial state for every key."""
    rows = {}

    def add(name: str, algo: Any, loop: Any, iterate: Callable, starts: list[Any]) -> None:
        critic_steps = loop.updates_per_iteration * algo.settings.policy_delay
        timed = Timed(name, Iteration(lambda key: None, iterate), starts)
        rows[name] = Measured(timed, loop.steps_per_iteration, critic_steps, matmul_flops(iterate, starts[0]))

    for name in PRESETS:
        algo, loop, _ = make_loop(name, buffer_size, quick)
        init = jax.jit(loop.init)
        starts = [init(key) for key in keys]
        if name in BARE:
            begin = jax.jit(functools.partial(bare_start, algo))
            bare_starts = [begin(start, key) for start, key in zip(starts, keys, strict=True)]
            add(f"{name}_bare", algo, loop, bare(algo, loop.updates_per_iteration), bare_starts)
        add(name, algo, loop, lambda state, loop=loop: loop.iterate(state)[0], starts)
    for name, like in YARDSTICKS.items():
        algo, loop, num_envs = make_loop(like, buffer_size, quick)
        copied = ("batch_size", "buffer_size", "warmup_steps", "hidden_sizes", "policy_delay")
        chosen = Config(
            num_envs=num_envs,
            rollout_length=loop.steps_per_iteration // num_envs,
            **{key: getattr(algo.settings, key) for key in copied},
        )
        yardstick = make_matd3(from_hajax(environment()), chosen, sequential_on_cpu)
        begin = jax.jit(yardstick.init)
        add(name, algo, loop, yardstick.iterate, [begin(key) for key in keys])
    return rows


def off_policy(seeds: list[int], repeats: int, seconds: float, quick: bool = False) -> Iterator[dict[str, Any]]:
    """A cell per number of seeds: steps and critic steps per second, and ratios of the same moments."""
    for num_seeds in seeds:
        buffer_size = TINY["buffer_size"] if quick else 1_000_000 // num_seeds
        rows = compiled_rows(jax.random.split(jax.random.key(0), num_seeds), buffer_size, quick)
        for row in rows.values():
            row.timed.warm_up(seconds)
        for _ in range(repeats):
            for row in rows.values():
                row.timed.seconds.append(row.timed.advance())
        yield {"seeds": num_seeds, "buffer_size_per_seed": buffer_size} | report(rows, num_seeds)
        jax.clear_caches()


def report(rows: dict[str, Measured], num_seeds: int) -> dict[str, Any]:
    """The report of timed rows; rates are of all seeds together."""

    def per_second(row: Measured, count: float, digits: int) -> dict[str, float]:
        return spread([num_seeds * count / x for x in row.timed.seconds], digits)

    def over(name: str, other: str) -> dict[str, float]:
        """The speed relative to another row."""
        pairs = zip(rows[name].timed.seconds, rows[other].timed.seconds, strict=True)
        return spread([b / a for a, b in pairs], 3)

    shown = {
        name: {
            "steps_per_second": per_second(row, row.steps, 0),
            "critic_steps_per_second": per_second(row, row.critic_steps, 1),
            "gflop_per_iteration": num_seeds * row.flops / 1e9,
            "gflop_per_second": per_second(row, row.flops / 1e9, 2)["median"],
            "compile_seconds": round(row.timed.compile_seconds, 1),
            "program_bytes": row.timed.memory,
        }
        for name, row in rows.items()
    }
    ratios: dict[str, Any] = {f"{name}_over_bare": over(name, f"{name}_bare") for name in BARE}
    ratios |= {f"{name}_over_yardstick": over(name, other) for name, other in OVER.items()}
    if num_seeds == 1:
        medians = {name: shown[name]["steps_per_second"]["median"] for name in REFERENCE}
        ratios["over_pytorch"] = {name: round(medians[name] / rate, 1) for name, rate in REFERENCE.items()}
    return {"rows": shown, "ratios": ratios}


def line(cell: dict[str, Any]) -> str:
    """One cell: medians of steps per second, ratios with their spread, and seconds to compile."""
    rates = ", ".join(f"{name} {row['steps_per_second']['median']:,.0f}" for name, row in cell["rows"].items())
    ratios = ", ".join(
        f"{name} {x['median']:.2f} [{x['min']:.2f}, {x['max']:.2f}]" for name, x in cell["ratios"].items() if "min" in x
    )
    compiled = ", ".join(f"{name} {row['compile_seconds']}" for name, row in cell["rows"].items())
    return f"{cell['seeds']} seeds: {rates} steps/s; {ratios}; {compiled} s to compile"


def replay_memory(transitions: int = 1_000_000, num_envs: int = 20) -> dict[str, Any]:
    """The memory of a replay of continuous simple_spread: stated, of its arrays, and by which the process grew.

    An episode of T transitions takes T + 1 rows.
    """
    spec = environment().spec
    rows = math.ceil(transitions / num_envs * (spec.max_steps + 1) / spec.max_steps)
    program = jax.jit(lambda: jax.tree.map(jnp.ones_like, init_replay(spec, num_envs, rows))).lower().compile()
    reset_peak()
    before = peak_memory()["resident"]
    replay = jax.block_until_ready(program())
    return {
        "transitions": transitions,
        "rows": num_envs * rows,
        "stated_bytes": replay_bytes(spec, num_envs, rows),
        "array_bytes": sum(x.nbytes for x in jax.tree.leaves(replay)),
        "process_growth_bytes": peak_memory()["resident"] - before,
        "program_bytes": program_bytes(program),
    }
