"""Pursuit: agents on a grid surround evaders that move randomly (Gupta et al., 2017), by PettingZoo's rules (SISL).

A step is that of `pettingzoo.sisl.pursuit_v5`. Pursuers move one after another. After each move every pursuer is
rewarded for the evaders next to it, so that pursuer k is rewarded k times at its old cell and N − k times at its new
one. Then evaders that are caught disappear, and the others move. Unlike there, an episode whose last evaders are caught
in the last step terminates, and is not truncated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hajax.colors import BLUE, VERMILION
from hajax.envs.base import Environment, Viewer, timestep
from hajax.spaces import Discrete
from hajax.spec import AgentSpec, EnvSpec, RewardKind, Timestep
from hajax.validation import check_flag, check_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Left, right, up, down, stay. The first four are also the cells around an agent.
MOVES = np.array([(-1, 0), (1, 0), (0, 1), (0, -1), (0, 0)])
STAY = 4


class PursuitState(NamedTuple):
    """Cells `(x, y)`, and the number of steps so far in the episode."""

    pursuers: jax.Array  # int [N, 2]
    evaders: jax.Array  # int [M, 2]
    free: jax.Array  # bool [M]: the evader has not been caught
    step: jax.Array  # int []


def pursuit(
    *,
    num_agents: int = 8,
    num_evaders: int = 30,
    x_size: int = 16,
    y_size: int = 16,
    obs_range: int = 7,
    surround: bool = True,
    n_catch: int = 2,
    freeze_evaders: bool = False,
    shared_reward: bool = True,
    tag_reward: float = 0.01,
    catch_reward: float = 5.0,
    urgency_reward: float = -0.1,
    constraint_window: float = 1.0,
    reward: RewardKind = "team",
    max_steps: int = 500,
) -> Environment:
    """N pursuers surround randomly moving evaders on a grid with a building, as in PettingZoo.

    An agent moves left, right, up, down, or stays. It observes the cells around it, `[obs_range, obs_range, 3]`: the
    building and the outside of the grid, the number of pursuers, and the number of evaders. The critic's state is the
    same for the whole grid, `[y_size, x_size, 3]`. The episode terminates when all evaders are caught.

    Pursuer k's own reward in a step is `urgency_reward`, plus `tag_reward` / N for each evader next to it, once after
    every pursuer's move, plus `catch_reward` if it takes part in catching an evader.

    Args:
        num_agents: the number of pursuers, N.
        num_evaders: the number of evaders.
        x_size: the width of the grid, in cells.
        y_size: the height of the grid, in cells.
        obs_range: the width of the observed square, in cells; odd.
        surround: an evader is caught when pursuers are in all cells next to it, the building and the outside aside;
            otherwise when `n_catch` pursuers are in its cell.
        n_catch: the pursuers that catch an evader in their cell, without `surround`.
        freeze_evaders: evaders do not move.
        shared_reward: the individual reward is the mean of the pursuers' own rewards, and otherwise the own one.
        tag_reward: N times what a pursuer gets for each evader next to it, after each pursuer's move.
        catch_reward: what every pursuer that takes part in catching evaders gets in that step.
        urgency_reward: what every pursuer gets in every step.
        constraint_window: the side of the randomly placed window in which all begin, as a share of the grid.
        reward: `"team"` gives every agent the sum of the individual rewards, `"individual"` its own.
        max_steps: steps after which an episode is truncated.

    Raises:
        ValueError: an option has a value that is not allowed.
    """
    numbers = {"num_agents": num_agents, "num_evaders": num_evaders, "n_catch": n_catch, "max_steps": max_steps}
    for name, value in numbers.items():
        check_number(name, value, 1, whole=True)
    for name, value in {"x_size": x_size, "y_size": y_size}.items():
        check_number(name, value, 3, whole=True)
    check_number("obs_range", obs_range, 1, whole=True)
    if obs_range % 2 == 0:
        raise ValueError(f"obs_range={obs_range}; allowed: an odd number")
    check_number("constraint_window", constraint_window, 0, 1)
    flags = {"surround": surround, "freeze_evaders": freeze_evaders, "shared_reward": shared_reward}
    for name, flag in flags.items():
        check_flag(name, flag)
    rewards = {"tag_reward": tag_reward, "catch_reward": catch_reward, "urgency_reward": urgency_reward}
    for name, amount in rewards.items():
        check_number(name, amount, -np.inf)
    size, reach = np.array([x_size, y_size]), obs_range // 2
    building = building_of(x_size, y_size)
    if constraint_window * size.min() < 1:
        raise ValueError(f"constraint_window={constraint_window}; allowed: at least one cell, 1 / {size.min()}")
    agents = tuple(AgentSpec(f"pursuer_{i}", (obs_range, obs_range, 3), Discrete(5)) for i in range(num_agents))
    spec = EnvSpec("sisl/pursuit", agents, x_size * y_size * 3, max_steps, reward, masks_actions=False)
    # For each evader's cell: how many cells next to it pursuers can take.
    padded = np.pad(building, 1, constant_values=True)
    open_cells = sum(~np.roll(padded, tuple(-move), (0, 1))[1:-1, 1:-1] for move in MOVES[:STAY])

    def counts(cells: jax.Array, present: jax.Array) -> jax.Array:
        """The number of agents in each cell, `[x_size, y_size]`."""
        x, y = (jax.nn.one_hot(cells[:, i], n, dtype=float) for i, n in enumerate((x_size, y_size)))
        return jnp.einsum("kx,ky,k->xy", x, y, present.astype(float))

    def layers(state: PursuitState) -> jax.Array:
        everyone = jnp.ones(num_agents, bool)
        present = counts(state.pursuers, everyone), counts(state.evaders, state.free)
        return jnp.stack([jnp.asarray(building, float), *present])

    def show(state: PursuitState, **fields: Any) -> tuple[PursuitState, Timestep]:
        whole = layers(state)
        padded = [jnp.pad(x, reach, constant_values=wall) for x, wall in zip(whole, (1, 0, 0), strict=True)]
        with_outside = jnp.stack(padded)

        def seen(cell):
            return lax.dynamic_slice(with_outside, (0, *cell), (3, obs_range, obs_range)).swapaxes(0, 2)

        observation = jax.vmap(seen)(state.pursuers).reshape(num_agents, -1)
        return state, timestep(spec, observation, whole.swapaxes(0, 2).ravel(), **fields)

    def placed(key: jax.Array, number: int, within: jax.Array) -> jax.Array:
        """Random cells of the window, one after another, not next to each other as long as there are such.

        Each is the first in one random order of the cells, in which those next to earlier ones come later, and those
        that are taken last.
        """
        order = jax.random.uniform(key, (x_size * y_size,))
        x, y = (axis.ravel() for axis in np.indices((x_size, y_size)))

        def place(later, _):
            cell = jnp.argmin(jnp.where(within.ravel(), order + later, jnp.inf))
            distance = abs(x - cell // y_size) + abs(y - cell % y_size)
            return jnp.maximum(later, jnp.where(distance == 0, 2.0, distance == 1)), cell

        cells = lax.scan(place, jnp.zeros(x_size * y_size), length=number)[1]
        return jnp.stack([cells // y_size, cells % y_size], -1)

    def reset(key):
        window_key, pursuer_key, evader_key = jax.random.split(key, 3)
        start = jax.random.uniform(window_key, (2,), maxval=1 - constraint_window) if constraint_window < 1 else 0.0
        low = (size * start * jnp.ones(2)).astype(int)
        high = (size * (start + constraint_window) * jnp.ones(2)).astype(int)
        x, y = np.indices((x_size, y_size))
        within = (x >= low[0]) & (x < high[0]) & (y >= low[1]) & (y < high[1])
        within = jnp.where((within & ~building).any(), within, True) & ~building  # the window may be in the building
        pursuers, evaders = placed(pursuer_key, num_agents, within), placed(evader_key, num_evaders, within)
        return show(PursuitState(pursuers, evaders, jnp.ones(num_evaders, bool), jnp.zeros((), int)), first=True)

    def moved(cells: jax.Array, moves: jax.Array) -> jax.Array:
        """The cells after moves, which end at the building and at the edge of the grid."""
        target = cells + jnp.asarray(MOVES, int)[moves]
        inside = ((target >= 0) & (target < size)).all(-1)
        x, y = jnp.clip(target, 0, size - 1).T
        return jnp.where((inside & ~jnp.asarray(building)[x, y])[:, None], target, cells)

    def tagged(pursuers: jax.Array, evaders: jax.Array) -> jax.Array:
        """The number of evaders next to each pursuer. At an edge its own cell takes the place of the one outside."""
        x, y = jnp.moveaxis(jnp.clip(pursuers[:, None] + MOVES[:STAY], 0, size - 1), -1, 0)
        return evaders[x, y].sum(-1)

    def caught(state: PursuitState) -> tuple[jax.Array, jax.Array]:
        """Which evaders are caught, bool `[M]`, and which pursuers take part in it, bool `[N]`."""
        apart = state.pursuers[:, None] - state.evaders  # [N, M, 2]
        if surround:
            around = (apart[:, :, None] == MOVES[:STAY]).all(-1)  # [N, M, 4]
            x, y = state.evaders.T
            gone = state.free & (around.any(0).sum(-1) == jnp.asarray(open_cells, int)[x, y])
            return gone, (around.any(-1) & gone).any(-1)
        here = (apart == 0).all(-1)
        gone = state.free & (here.sum(0) >= n_catch)
        return gone, (here & gone).any(-1)

    def step(key, state, action):
        before = state
        state = state._replace(pursuers=moved(state.pursuers, action[:, 0].astype(int)), step=state.step + 1)
        evaders, order = counts(state.evaders, state.free), jnp.arange(num_agents)
        tags = order * tagged(before.pursuers, evaders) + (num_agents - order) * tagged(state.pursuers, evaders)
        gone, catching = caught(state)
        own = tag_reward * tags / num_agents + catch_reward * catching + urgency_reward
        individual = jnp.full(num_agents, own.mean()) if shared_reward else own
        moves = jnp.full(num_evaders, STAY) if freeze_evaders else jax.random.randint(key, (num_evaders,), 0, 5)
        state = state._replace(evaders=moved(state.evaders, moves), free=state.free & ~gone)
        done, late = ~state.free.any(), state.step >= max_steps
        ends = {"terminated": done, "truncated": late & ~done, "metrics": {"caught": gone.sum().astype(float)}}
        return show(state, reward=individual, **ends)

    return Environment(spec, reset, step, viewer=Viewer(_drawing(building)))


def building_of(x_size: int, y_size: int) -> np.ndarray:
    """The cells of the building in the middle of the grid, bool `[x_size, y_size]`."""
    x, y = (np.arange(n) / n for n in (x_size, y_size))
    return ((x > 0.3) & (x < 1 - 0.3))[:, None] & ((y > 0.2) & (y < 1 - 0.2))


def _drawing(building: np.ndarray) -> Any:
    """The grid from above: the building in gray, free evaders as rings, pursuers as numbered discs."""

    def draw(axes: Axes, state: Any, action: Any, timestep: Timestep) -> None:
        axes.imshow(building.T, cmap="Greys", vmin=0, vmax=2, origin="lower")
        evaders = np.asarray(state.evaders)[np.asarray(state.free)]
        label = f"{len(evaders)} evaders"
        axes.scatter(evaders[:, 0], evaders[:, 1], s=110, facecolor="none", edgecolor=VERMILION, label=label, zorder=2)
        pursuers = np.asarray(state.pursuers)
        axes.scatter(pursuers[:, 0], pursuers[:, 1], s=90, color=BLUE, label="pursuers", zorder=3)
        for i, (x, y) in enumerate(pursuers):
            axes.text(x, y, str(i), color="white", size=7, weight="bold", ha="center", va="center", zorder=4)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color("0.6")

    return draw
