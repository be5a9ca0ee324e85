"""The parameters after each algorithm's first update, stored, so that a refactoring can be held to them.

    python tests/first_updates.py --write    stores them in tests/first_updates.npz
    python tests/first_updates.py            compares with what is stored: at most 1e-6 apart

They are float32 numbers of whatever machine stored them, from fixed keys: no property of the algorithms, and so no
test. The tests have the algorithms' equations (`test_exactness`, `test_off_policy_exactness`, `test_hasac`, …).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hajax.spaces import Box, Discrete

sys.path.append(str(Path(__file__).parent / "support"))
import off_policy_problems
import problems

STORED = Path(__file__).with_suffix(".npz")
TOLERANCE = 1e-6
PARTS = ("actors", "critics", "target_actors", "target_critics", "temperatures")  # with their optimizers

CHOICES = (Discrete(3), Discrete(2), Discrete(3))
BOXES = (Box((-1.0,), (2.0,)), Box((-1.0, 0.0), (1.0, 5.0)), Box((-1.0,), (2.0,)))
MIXED, SIZES = problems.MIXED, problems.MIXED_SIZES


def cases() -> Iterator[tuple[str, Any]]:
    """Every algorithm by name, then the options that take another path through the code."""

    def on(name, spaces=MIXED, sizes=SIZES, reward="team", **settings):
        return problems.make_algorithm(name, problems.make_spec(spaces, sizes, reward=reward), **settings)

    def off(name, spaces, reward="team", **settings):
        return off_policy_problems.make_algorithm(name, problems.make_spec(spaces, reward=reward), **settings)

    for name in ("happo", "hatrpo", "haa2c", "a2po"):
        yield name, on(name)
    for name in ("mappo", "ippo", "maa2c"):
        yield name, on(name, CHOICES, None, sharing="none")
    for name in ("haddpg", "maddpg", "hatd3", "matd3"):
        yield name, off(name, BOXES)
    for name in ("had3qn", "mad3qn", "id3qn"):
        yield name, off(name, CHOICES, head_sizes=(5,))
    for name in ("hasac", "masac"):
        yield name, off(name, MIXED)
    for name in ("maac", "mamd", "mamt"):
        yield name, off(name, CHOICES, "individual", attention_width=8, attention_heads=2)

    yield "happo, gru", on("happo", memory="gru", chunk_length=3)
    yield "hatrpo, gru", on("hatrpo", memory="gru", chunk_length=3)
    yield "happo, normalized, by type", on("happo", BOXES, None, sharing="type", normalize_observations=True)
    yield "ippo, individual, shared", on("ippo", CHOICES[:1] * 3, None, "individual", sharing="all", agent_id=True)
    yield "maddpg, per agent", off("maddpg", BOXES, "individual", per_agent_critics=True)
    yield "hatd3, delayed, policy", off("hatd3", BOXES, policy_delay=2, n_step=3, others="policy", epochs=2)
    yield "haddpg, shared, normalized", off("haddpg", BOXES[::2], sharing="all", normalize_observations=True)
    yield "had3qn, policy", off("had3qn", CHOICES, head_sizes=(5,), others="policy", policy_delay=2)
    yield "id3qn, individual", off("id3qn", CHOICES, "individual", head_sizes=())
    yield "hasac, exact", off("hasac", CHOICES, expectation="exact", sharing=[0, 1, 0])
    yield "hasac, replay", off("hasac", BOXES, others="replay", auto_temperature=False, epochs=2, policy_delay=2)


def after_first_update(algo: Any) -> dict[str, np.ndarray]:
    """The parts of the new state, their leaves flattened and joined."""
    random_batch = problems.random_batch if algo.kind == "on_policy" else off_policy_problems.random_batch
    init_key, update_key = jax.random.split(jax.random.key(0))
    state = algo.init(init_key)
    args = (state, 0) if algo.kind == "on_policy" else (0,)
    state, _ = jax.jit(algo.update, compiler_options=problems.QUICK)(
        update_key, state, random_batch(algo, *args, inactive=0.2)
    )
    parts = {name: getattr(state, name, None) for name in PARTS}
    return {
        name: np.concatenate([np.ravel(np.asarray(x, np.float32)) for x in jax.tree.leaves(part)])
        for name, part in parts.items()
        if jax.tree.leaves(part)
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"store them in {STORED.name}")
    write = parser.parse_args().write
    found = {f"{name} / {part}": x for name, algo in cases() for part, x in after_first_update(algo).items()}
    if write:
        np.savez_compressed(STORED, **found)
        return 0
    with np.load(STORED) as stored:
        wanted = dict(stored)
    assert found.keys() == wanted.keys(), sorted(found.keys() ^ wanted.keys())
    apart = {name: float(np.abs(x - wanted[name]).max()) for name, x in found.items()}
    for name, difference in apart.items():
        print(f"{difference:8.1e}  {name}")
    return int(not all(difference <= TOLERANCE for difference in apart.values()))


if __name__ == "__main__":
    sys.exit(main())
