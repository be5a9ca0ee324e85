"""Compares the replay with flashbax's buffers: memory, and seconds of storing and sampling, in one process.

    python benchmarks/replay.py [--size 1000000] [--envs 20] [--batch 1000] [--steps 1 20] [--output FILE]

Both hold the transitions of mpe/simple_spread with continuous actions, and both can bootstrap a truncated episode from
its final observation: hajax by an extra row, flashbax by a second observation in every row. Neither stores what can be
computed from observations. hajax sums rewards and finds the end of a transition; flashbax leaves this to its user. A
round stores 50 steps of all environments and samples 50 minibatches, in compiled programs, of which the first donates
the buffer; rounds of both are timed alternately. Needs flashbax (`pip install flashbax`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from timing import spread

import hajax
from hajax.envs.batching import auto_reset
from hajax.training import replay

ROUND = 50


def stream(env: Any, num_envs: int, length: int) -> tuple[Any, jax.Array, Any]:
    """Timesteps before and after, and actions, `[T, E, …]`, of a rollout with random actions."""
    env = auto_reset(env)
    state, seen = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), num_envs))

    def step(carry, key):
        state, seen = carry
        action = jax.random.uniform(key, (num_envs, env.spec.num_agents, env.spec.num_components))
        state, after = jax.vmap(env.step)(jax.random.split(key, num_envs), state, action)
        return (state, after), (seen, action, after)

    return lax.scan(step, (state, seen), jax.random.split(jax.random.key(1), length))[1]


def ours(spec: Any, data: Any, num_envs: int, size: int, batch: int, num_steps: int) -> tuple[Any, Callable, Callable]:
    """The empty replay, and functions that store step t of the data and sample."""
    seen, actions, after = data

    def store(buffer, t):
        row = jax.tree.map(lambda x: x[t], (seen, actions, after))
        return replay.add(buffer, *row)

    def draw(buffer, key):
        return replay.sample(spec, buffer, key, (1, batch), num_steps)

    return replay.init_replay(spec, num_envs, size // num_envs), store, draw


def theirs(
    spec: Any, data: Any, num_envs: int, size: int, batch: int, num_steps: int
) -> tuple[Any, Callable, Callable]:
    """The same with flashbax: its item buffer for single steps, its trajectory buffer for more.

    A sample is a set of rows, or of sequences of rows, from which states (concatenated observations) and targets would
    be computed.
    """
    import flashbax

    seen, actions, after = data
    kept = {
        "observation": seen.observation,
        "active": seen.active,
        "action": actions,
        "reward": after.reward[..., :1],
        "terminated": after.terminated,
        "final_observation": after.final.observation,
        "final_active": after.final.active,
    }
    if num_steps == 1:
        buffer = flashbax.make_item_buffer(max_length=size, min_length=batch, sample_batch_size=batch, add_batches=True)
        empty = buffer.init(jax.tree.map(lambda x: x[0, 0], kept))
    else:
        kept["truncated"] = after.truncated
        buffer = flashbax.make_trajectory_buffer(
            add_batch_size=num_envs,
            sample_batch_size=batch,
            sample_sequence_length=num_steps,
            period=1,
            min_length_time_axis=num_steps,
            max_length_time_axis=size // num_envs,
        )
        empty = buffer.init(jax.tree.map(lambda x: x[0, 0], kept))

    def store(state, t):
        return buffer.add(state, jax.tree.map(lambda x: x[t] if num_steps == 1 else x[t][:, None], kept))

    return empty, store, lambda state, key: buffer.sample(state, key).experience


def rounds(empty: Any, store: Callable, draw: Callable, length: int) -> tuple[Any, Callable, Callable]:
    """Compiled programs that fill the buffer once, and that store or sample for a round."""

    def everything(x):
        return sum(jnp.sum(leaf, dtype=float) for leaf in jax.tree.leaves(x))

    def storing(buffer, start):
        return lax.fori_loop(0, ROUND, lambda i, b: store(b, (start + i) % length), buffer)

    storing = jax.jit(storing, donate_argnums=0)
    sampling = jax.jit(lambda b, key: sum_over(lambda k: everything(draw(b, k)), jax.random.split(key, ROUND)))
    return empty, storing, sampling


def sum_over(function: Callable, keys: jax.Array) -> jax.Array:
    """The sum of `function` over the keys, one after another."""
    return lax.scan(lambda total, key: (total + function(key), None), jnp.zeros(()), keys)[0]


def measure(candidates: dict[str, Any], length: int, repeats: int) -> dict[str, Any]:
    """Seconds per stored step of all environments and per sampled minibatch, and the bytes of the buffer."""
    found: dict[str, Any] = {}
    running = {name: list(rounds(*made, length)) for name, made in candidates.items()}
    for name, (buffer, storing, sampling) in running.items():
        found[name] = {"bytes": sum(x.nbytes for x in jax.tree.leaves(buffer)), "store": [], "sample": []}
        for i in range(3):
            buffer = jax.block_until_ready(storing(buffer, jnp.asarray(i * ROUND)))
        jax.block_until_ready(sampling(buffer, jax.random.key(0)))
        running[name][0] = buffer
    for i in range(repeats):
        for name, (buffer, storing, sampling) in running.items():
            began = time.perf_counter()
            buffer = jax.block_until_ready(storing(buffer, jnp.asarray(i * ROUND)))
            stored = time.perf_counter()
            jax.block_until_ready(sampling(buffer, jax.random.key(i)))
            found[name]["store"].append((stored - began) / ROUND)
            found[name]["sample"].append((time.perf_counter() - stored) / ROUND)
            running[name][0] = buffer
    for what in ("store", "sample"):
        ratios = [a / b for a, b in zip(found["flashbax"][what], found["hajax"][what], strict=True)]
        found[f"flashbax / hajax, {what}"] = spread(ratios, 2)
        for name in candidates:
            found[name][f"{what}_seconds"] = statistics.median(found[name].pop(what))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1_000_000, help="observations (flashbax: transitions)")
    parser.add_argument("--envs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 20], help="of a transition")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    env = hajax.make_env("mpe/simple_spread", actions="continuous")
    length = 4 * ROUND
    data = jax.jit(stream, static_argnums=(0, 1, 2))(env, given.envs, length)
    report: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "settings": {"size": given.size, "envs": given.envs, "batch": given.batch, "repeats": given.repeats},
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flashbax")},
        "steps": {},
    }
    for num_steps in given.steps:
        sizes = (env.spec, data, given.envs, given.size, given.batch, num_steps)
        found = measure({"hajax": ours(*sizes), "flashbax": theirs(*sizes)}, length, given.repeats)
        # An episode of T steps takes T + 1 rows in hajax, and T in flashbax.
        held = {"hajax": given.size * env.spec.max_steps / (env.spec.max_steps + 1), "flashbax": given.size}
        for name, transitions in held.items():
            found[name]["bytes_per_transition"] = round(found[name]["bytes"] / transitions, 1)
        ratio = found["flashbax"]["bytes_per_transition"] / found["hajax"]["bytes_per_transition"]
        found["flashbax / hajax, bytes per transition"] = round(ratio, 2)
        report["steps"][num_steps] = found
        print(json.dumps({num_steps: found}, indent=1), file=sys.stderr)
    text = json.dumps(report, indent=1)
    print(text)
    if given.output:
        given.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
