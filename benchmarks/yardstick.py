"""Compares the yardstick of ippo.py with JaxMARL's `ippo_ff_mpe`: same environment, networks, schedule and process.

    python benchmarks/yardstick.py PATH/TO/baselines/IPPO/ippo_ff_mpe.py [--commit ITS_COMMIT] [--output FILE.json]

The file is JaxMARL's, from a checkout of its repository, with `config/ippo_ff_mpe.yaml` next to it. It runs unchanged
except for its logging: `wandb` is a stand-in, and the host callback in every update does nothing, which can only make
    it
faster. Both train on jaxmarl's MPE_simple_spread_v3 with learning rates that fall to 0. A program is a whole training
with its initialization; compile time is not included, and the repeats alternate.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
import types
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jaxmarl
import yaml
from ippo import Config, from_jaxmarl, make_train
from timing import spread


def public_train(path: Path, updates: int) -> Callable[[jax.Array], Any]:
    """JaxMARL's `train(key)` with its configuration, for that many updates."""
    sys.modules["wandb"] = types.ModuleType("wandb")
    found = importlib.util.spec_from_file_location("ippo_ff_mpe", path)
    if found is None or found.loader is None:
        raise SystemExit(f"{path} is not a Python file; allowed: JaxMARL's baselines/IPPO/ippo_ff_mpe.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    text = (path.parent / "config" / "ippo_ff_mpe.yaml").read_text(encoding="utf-8")
    config = {name: float(x) if name in ("LR", "TOTAL_TIMESTEPS") else x for name, x in yaml.safe_load(text).items()}
    config["TOTAL_TIMESTEPS"] = updates * config["NUM_ENVS"] * config["NUM_STEPS"]
    jax.experimental.io_callback = lambda *_, **__: None
    return module.make_train(config)


def compare(path: Path, updates: int, repeats: int) -> dict[str, Any]:
    """Seconds per update of both, compile seconds, and the yardstick's speed over the public one's, per round."""
    env = from_jaxmarl(jaxmarl.make("MPE_simple_spread_v3"))
    trains = {
        "ippo_ff_mpe": public_train(path, updates),
        "yardstick": make_train(env, Config(anneal_updates=updates), updates),
    }
    programs, compile_seconds = {}, {}
    for name, train in trains.items():
        began = time.perf_counter()
        programs[name] = jax.jit(train).lower(jax.random.PRNGKey(0)).compile()
        compile_seconds[name] = round(time.perf_counter() - began, 1)
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for repeat in range(repeats + 1):
        for name, program in programs.items():
            key = jax.random.PRNGKey(repeat)
            began = time.perf_counter()
            jax.block_until_ready(program(key))
            seconds[name].append(time.perf_counter() - began)
    measured = {name: values[1:] for name, values in seconds.items()}  # the first round warms up
    ratios = [b / a for a, b in zip(measured["yardstick"], measured["ippo_ff_mpe"], strict=True)]
    return {
        "yardstick_over_ippo_ff_mpe": spread(ratios, 3),
        "milliseconds_per_update": {
            name: spread([1e3 * x / updates for x in values], 2) for name, values in measured.items()
        },
        "compile_seconds": compile_seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="JaxMARL's baselines/IPPO/ippo_ff_mpe.py")
    parser.add_argument("--commit", default="unknown", help="of JaxMARL, to be recorded")
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    device = jax.devices()[0]
    result = {
        "what": "benchmarks/ippo.py beside JaxMARL's baselines/IPPO/ippo_ff_mpe.py, MPE_simple_spread_v3, 1 seed",
        "jaxmarl_commit": options.commit,
        "changes_to_it": "wandb replaced by a stand-in, io_callback by nothing, TOTAL_TIMESTEPS by `updates`",
        "device": {"platform": device.platform, "kind": device.device_kind, "cpus": os.cpu_count()},
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "distrax", "jaxmarl")},
        "updates": options.updates,
        "repeats": options.repeats,
        **compare(options.path, options.updates, options.repeats),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
