"""Trains four algorithms on some virtual devices of the CPU, in a process of its own, because JAX counts them once.

    python trained_on_devices.py COUNT FILE.npz

writes the parameters after three iterations, and the names of the collective operations in every compiled program.
"""

import re
import sys
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType

COLLECTIVE = re.compile(
    r"\s(all-reduce|all-gather|all-to-all|collective-permute|collective-broadcast|reduce-scatter|send|recv)(?:-start)?\("
)
SEEDS, ENVS, LENGTH = 8, 4, 8
ON_POLICY = {"hidden_sizes": (8,), "critic_epochs": 2}
OFF_POLICY = {"hidden_sizes": (8,), "batch_size": 16, "warmup_steps": 40, "buffer_size": 400}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "happo": ("games/memory", ON_POLICY | {"epochs": 2, "minibatches": 2}),
    "hatrpo": ("games/memory", ON_POLICY),
    "hatd3": ("games/linear_quadratic", OFF_POLICY | {"n_step": 3}),
    "hasac": ("games/memory", OFF_POLICY | {"n_step": 1}),
}
# By the number of devices: the shape of the mesh over (seeds, envs), its kind of axes, and the algorithms.
MESHES: dict[int, dict[str, tuple[tuple[int, ...], AxisType, tuple[str, ...]]]] = {
    2: {"seeds": ((2,), AxisType.Auto, tuple(CASES)), "envs": ((2,), AxisType.Explicit, ("happo", "hasac"))},
    4: {"seeds": ((4,), AxisType.Explicit, tuple(CASES)), "both": ((2, 2), AxisType.Auto, tuple(CASES))},
}


def trained(name: str, how: str, mesh: Any) -> dict[str, Any]:
    """The learner states after three iterations, by `NAME/HOW/PATH`, and the program's collectives."""
    import hajax

    env_name, settings = CASES[name]
    env = hajax.make_env(env_name)
    algo = hajax.make_algorithm(name, env, **settings)
    steps = 3 * ENVS * LENGTH + settings.get("warmup_steps", 0)
    train = jax.vmap(hajax.make_train(env, algo, total_steps=steps, num_envs=ENVS, rollout_length=LENGTH))
    program = jax.jit(train if mesh is None else hajax.shard(train, mesh))
    keys = jax.random.split(jax.random.key(3), SEEDS)
    compiled = program.lower(keys).compile()
    state, _ = program(keys)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    found = {f"{name}/{how}{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in leaves}
    return found | {f"collectives/{name}/{how}": np.array(sorted(set(COLLECTIVE.findall(compiled.as_text()))))}


def main(count: int, file: str) -> None:
    """Trains on `count` devices and writes the results."""
    jax.config.update("jax_num_cpu_devices", count)
    jax.config.update("jax_enable_x64", True)
    results: dict[str, Any] = {}
    for name in CASES:
        if count == 1:
            results |= trained(name, "one", None)
        for how, (shape, kind, names) in MESHES.get(count, {}).items():
            if name not in names:
                continue
            axes = ("seeds", "envs") if how == "both" else (how,)
            mesh = jax.make_mesh(shape, axes, axis_types=(kind,) * len(shape))
            results |= trained(name, how, mesh)
    np.savez(file, **results)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
