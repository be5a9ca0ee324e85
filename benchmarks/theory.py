"""The theorems of the papers on random games, for every variant of exact mirror learning.

    python benchmarks/theory.py [--games 10000] [--others 500] [--only NAME ...] [--chunk 125] [--output FILE.json]

Random games of 2–4 agents, 2–4 actions each and 1–6 states, γ in [0.5, 0.95], rewards in [−1, 1], padded to one shape;
game k is drawn from key k for all variants. Updates are exact, in float64. A *fall* is a decrease of J, or of V in some
state, by more than 1e-9 in one iteration. Gaps are max_i [max J(πⁱ, π^{−i}) − J(π)] over the game's reward range. If a
few games of a variant that a theorem covers end beyond 1e-3, they are continued for longer, to see whether they
converge.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hajax import tabular
from hajax.envs.games import hasac_payoff

CHUNK = 125  # games in one call; a chunk's transitions fit the cache
FALL = 1e-9
FAR = 1e-3
LONGER = 3000  # iterations
GUARDED = "guard="  # the beginning of the names of variants with a guard


class Variant(NamedTuple):
    """An exact algorithm, and its number of iterations."""

    update: tabular.Update
    iterations: int
    covered: bool = True  # by a theorem


def variants() -> dict[str, Variant]:
    """The variants by name. The first runs on many games, the others on fewer."""
    drifts = {
        "none": tabular.no_drift(),
        "clip": tabular.clip_drift(0.2),
        "kl": tabular.kl_drift(0.002),
        "reverse_kl": tabular.reverse_kl_drift(0.05),
        "tsallis": tabular.tsallis_drift(0.05),
        "squared_log_ratio": tabular.squared_log_ratio_drift(0.05),
    }
    neighborhoods = {"kl_ball": tabular.kl_ball(0.05), "gradient_step": tabular.gradient_step(4.0)}
    table = {"clip": Variant(tabular.haml(drifts["clip"]), 250)}
    table |= {
        name: Variant(tabular.haml(drift), 300 if name == "kl" else 200)
        for name, drift in drifts.items()
        if name != "clip"
    }
    for place, neighborhood in neighborhoods.items():
        for name in ("none", "clip", "kl"):
            iterations = 250 if name == "clip" else 100
            table[f"{name}, {place}"] = Variant(tabular.haml(drifts[name], neighborhood), iterations)
    table["clip, no softness"] = Variant(tabular.haml(tabular.clip_drift(0.2, softness=0.0)), 250)
    table["none, trust_region"] = Variant(tabular.haml(drifts["none"], tabular.trust_region(0.05)), 40)
    table["algorithm_1"] = Variant(tabular.multi_agent_policy_iteration(), 20)
    table |= {f"haspi, {alpha}": Variant(tabular.haspi(alpha), 300) for alpha in (0.1, 0.5)}
    for name in ("clip", "kl", "reverse_kl", "tsallis", "squared_log_ratio"):
        table[f"mehaml, {name}"] = Variant(tabular.mehaml(drifts[name], temperature=0.5), 60)
    for place, neighborhood in neighborhoods.items():
        table[f"mehaml, none, {place}"] = Variant(tabular.mehaml(None, neighborhood, temperature=0.5), 100)
    for name in ("none", "clip", "kl"):
        table[f"simultaneous, {name}"] = Variant(tabular.haml(drifts[name], order="simultaneous"), 200, covered=False)
    table["simultaneous, none, gradient_step"] = Variant(
        tabular.haml(None, neighborhoods["gradient_step"], order="simultaneous"), 200, covered=False
    )
    table |= guarded(drifts, neighborhoods)
    table["wrong, negative"] = Variant(tabular.haml(tabular.negative_drift(0.05)), 200, covered=False)
    table["wrong, offset"] = Variant(tabular.haml(tabular.offset_drift(0.5)), 200, covered=False)
    table["wrong, kinked"] = Variant(tabular.haml(tabular.kinked_drift(0.05)), 200, covered=False)
    return table


def guarded(drifts: dict[str, tabular.Drift], neighborhoods: dict[str, Any]) -> dict[str, Variant]:
    """HAPPO's objective, greedy updates and a KL ball, with every guard of the compound ratio."""
    guards = {"truncate": tabular.guards.truncate(2.0), "clip": tabular.guards.clip(0.2)}
    guards["interval"] = tabular.guards.interval(0.2)
    parts = {"clip": ((drifts["clip"],), 250), "none": ((drifts["none"],), 200)}
    parts["none, kl_ball"] = ((drifts["none"], neighborhoods["kl_ball"]), 100)
    return {
        f"{GUARDED}{called}: {name}": Variant(tabular.haml(*made, guard=guard), iterations, covered=False)
        for called, guard in guards.items()
        for name, (made, iterations) in parts.items()
    }


def draw(number: jax.Array) -> tuple[tabular.Game, jax.Array, jax.Array]:
    """The game, the initial joint policy and the key of an index."""
    game_key, policy_key, key = jax.random.split(jax.random.key(number), 3)
    game = tabular.random_game(game_key)
    return game, tabular.random_policy(policy_key, game), key


# Compiled once for all variants.
draw_all = jax.jit(jax.vmap(draw))
nash_gaps = jax.jit(jax.vmap(tabular.nash_gap))
response_gaps = jax.jit(jax.vmap(tabular.quantal_response_gap, in_axes=(0, 0, None)))


def play(
    variant: Variant, compiler_options: dict[str, Any] | None = None
) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]]:
    """Runs a variant on games with initial policies and keys; returns the last policies and diagnostics per game.

    Args:
      variant: the algorithm.
      compiler_options: XLA's, for callers that compile more than they compute.
    """

    def measure(game, policy, key):
        history = tabular.iterate(variant.update, game, policy, key, variant.iterations)
        falls = -jnp.diff(history.expected_return)
        return history.policy, {
            "largest_fall": jnp.maximum(falls.max(), 0) / game.reward_range,
            "falls": (falls > FALL).sum(),
            "largest_fall_of_value": jnp.maximum(
                jnp.where(game.state_mask, -jnp.diff(history.value, axis=0), 0).max(), 0
            ),
            "least_gain": jnp.where(game.state_mask, history.gain, jnp.inf).min(),
            "gain_of_return": (history.expected_return[-1] - history.expected_return[0]) / game.reward_range,
        }

    return jax.jit(jax.vmap(measure), compiler_options=compiler_options)


def gaps_of(variant: Variant, game: tabular.Game, policy: jax.Array) -> jax.Array:
    """The distance of joint policies from the equilibria that the variant converges to, one number per game."""
    if variant.update.temperature:
        return response_gaps(game, policy, variant.update.temperature)
    return nash_gaps(game, policy) / jax.vmap(lambda game: game.reward_range)(game)


def run(
    name: str,
    variant: Variant,
    games: int,
    progress: Callable[[str], Any] = lambda _: None,
    chunk: int = CHUNK,
    compiler_options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The measurements of one variant on the first `games` games."""
    measure, start, parts = play(variant, compiler_options), time.perf_counter(), []
    for first in range(0, games, chunk):
        # The last chunk may exceed the requested games, so that one program is used for all; the surplus is cut off.
        game, policy, key = draw_all(jnp.arange(first, first + min(chunk, games)))
        last, measured = measure(game, policy, key)
        measured |= {"first_gap": gaps_of(variant, game, policy), "gap": gaps_of(variant, game, last)}
        parts.append(jax.tree.map(np.asarray, measured))
        progress(f"{name}: {min(first + chunk, games):,} of {games:,} games, {time.perf_counter() - start:.0f} s")
    measured = {key: np.concatenate([part[key] for part in parts])[:games] for key in parts[0]}
    return summary(variant, measured) | {"seconds": round(time.perf_counter() - start, 1)}


def played_longer(variant: Variant, row: dict[str, Any], most: int = 16) -> dict[str, Any]:
    """The largest remaining gap of the games beyond 1e-3 in `row`, if few, after 3,000 iterations in total."""
    beyond = list(row["gaps_beyond_1e-3"])
    if not variant.covered or not 0 < len(beyond) <= most:
        return {}
    game, policy, key = draw_all(jnp.asarray(np.resize(beyond, most)))  # one shape for all variants
    last, _ = play(variant._replace(iterations=LONGER))(game, policy, key)
    return {f"largest_of_these_gaps_after_{LONGER}": float(gaps_of(variant, game, last).max())}


def summary(variant: Variant, measured: dict[str, np.ndarray]) -> dict[str, Any]:
    """The summary of measurements per game `[games]`, for the table and the file."""
    gap = measured["gap"]
    beyond = np.flatnonzero(gap > FAR)
    updates = gap.size * variant.iterations
    return {
        "games": gap.size,
        "iterations": variant.iterations,
        "temperature": variant.update.temperature,
        "games_with_a_fall_of_return": int((measured["falls"] > 0).sum()),
        "share_of_iterations_with_a_fall": float(measured["falls"].sum() / updates),
        "largest_fall_of_return": float(measured["largest_fall"].max()),
        "games_with_a_fall_of_value": int((measured["largest_fall_of_value"] > FALL).sum()),
        "largest_fall_of_value": float(measured["largest_fall_of_value"].max()),
        "least_gain_of_the_mirror_operator": float(measured["least_gain"].min()),
        "median_gain_of_return": float(np.median(measured["gain_of_return"])),
        "median_gap_at_first": float(np.median(measured["first_gap"])),
        "gap": {"median": float(np.median(gap)), "99%": float(np.quantile(gap, 0.99)), "largest": float(gap.max())},
        "share_of_gaps_within_1e-3": float((gap <= FAR).mean()),
        "gaps_beyond_1e-3": {int(k): round(float(gap[k]), 6) for k in beyond[:100]},
        "number_of_gaps_beyond_1e-3": int(beyond.size),
    }


TEMPERATURES = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0)  # of the HASAC paper's Table 3


def matrix_game(compiler_options: dict[str, Any] | None = None) -> dict[str, Any]:
    """HASPI on the matrix game of the HASAC paper, agent 0 first: the table of its Appendix B, and its Eq. 9."""
    game = tabular.matrix_game(hasac_payoff())
    start = tabular.log_policy(jnp.tile(jnp.array([0.6, 0.2, 0.2]), (2, 1, 1)), game.action_mask[:, None])

    def solve(alpha):
        update, key = tabular.haspi(alpha, order="fixed"), jax.random.key(0)
        first, last = (tabular.iterate(update, game, start, key, iterations) for iterations in (1, 3000))
        return {
            "agent_1_after_the_first_update": jnp.exp(first.policy[0, 0]),
            "at_convergence": jnp.exp(last.policy[:, 0]),
            "expected_reward": tabular.evaluate(game, last.policy).expected_return,
            "soft_objective": last.expected_return[-1],
            "soft_objective_after_one_update": first.expected_return[-1],
            "best_soft_objective": best_soft_objective(game, alpha),
        }

    columns = jax.jit(jax.vmap(solve), compiler_options=compiler_options)(jnp.asarray(TEMPERATURES))
    rounded = {name: np.asarray(column).round(4).tolist() for name, column in columns.items()}
    return {f"{alpha:g}": {name: rounded[name][k] for name in rounded} for k, alpha in enumerate(TEMPERATURES)}


def best_soft_objective(game: tabular.Game, alpha: jax.Array, starts: int = 200) -> jax.Array:
    """The best soft objective, by HASPI from many initial policies (Liu et al., 2024, Eq. 9, at γ = 0)."""

    def climb(key):
        policy = tabular.random_policy(key, game)
        update = tabular.haspi(alpha)
        return tabular.iterate(update, game, policy, key, 500).expected_return[-1]

    return jax.vmap(climb)(jax.random.split(jax.random.key(1), starts)).max()


def line(name: str, row: dict[str, Any]) -> str:
    """A row of the table."""
    gap = row["gap"]
    return (
        f"{name:32} {row['games']:6,} {row['iterations']:5} {row['games_with_a_fall_of_return']:6,} "
        f"{row['largest_fall_of_return']:9.1e} {row['games_with_a_fall_of_value']:6,} "
        f"{row['largest_fall_of_value']:9.1e} {row['least_gain_of_the_mirror_operator']:9.1e} "
        f"{gap['median']:8.1e} {gap['99%']:8.1e} {gap['largest']:8.1e} {row['share_of_gaps_within_1e-3']:7.2%} "
        f"{row['seconds']:6.1f}"
    )


HEADER = (
    f"{'variant':32} {'games':>6} {'iter.':>5} {'J falls':>6} {'by most':>8} {'V falls':>6} {'by most':>8} "
    f"{'min gain':>9} {'gap 50%':>8} {'99%':>8} {'largest':>8} {'≤ 1e-3':>7} {'s':>6}"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--games", type=int, default=10_000, help="for the first variant and those with guards")
    parser.add_argument("--others", type=int, default=500, help="for every other variant")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[*variants()], help="these variants alone")
    parser.add_argument("--chunk", type=int, default=CHUNK, help="games in one call")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    start = time.perf_counter()
    table = variants()
    names = arguments.only or list(table)
    matrix = matrix_game()
    for alpha, row in matrix.items():
        print(f"matrix game, α = {alpha}: {json.dumps(row)}")
    print(HEADER)
    versions = {name: version(name) for name in ("jax", "jaxlib")}
    results: dict[str, Any] = {}
    for name in names:
        many = name == next(iter(table)) or name.startswith(GUARDED)
        games = arguments.games if many else arguments.others
        progress = functools.partial(print, file=sys.stderr, flush=True)
        results[name] = run(name, table[name], games, progress, arguments.chunk)
        results[name] |= played_longer(table[name], results[name])
        print(line(name, results[name]), flush=True)
        seconds = round(time.perf_counter() - start, 1)
        report = {"versions": versions, "seconds": seconds, "hasac_matrix_game": matrix, "variants": results}
        if arguments.output:  # after every variant, so that an interrupted run keeps its results
            arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{seconds} s in all")


if __name__ == "__main__":
    main()
