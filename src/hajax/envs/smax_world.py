"""The dynamics of SMAX: two teams of units on a square map, agents and scripted opponents, as array expressions.

The rules and constants are those of jaxmarl's SMAX with its heuristic opponent (Rutherford et al., *JaxMARL*, 2024,
https://arxiv.org/abs/2311.10090); given the same random draws every step is equal. jaxmarl computes unit by unit,
through scatters, conditionals and a random key per unit and physical step. Here a step draws once, all pairs of units
are one array, and the view of a team is computed only where it is needed.

Shapes: `U` units, the N agents first and then the M opponents; `P` physical steps in one step of the environment.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

OpponentKind = Literal["closest", "random"]

# North, east, south, west, stop; then attacks on the units of the other team.
DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0), (0, 0))
MOVES = len(DIRECTIONS)


class Units(NamedTuple):
    """The properties of units, `[U]` each (in `World.kinds`, of every kind of unit)."""

    velocity: Any
    attack: Any  # damage
    attack_range: Any
    sight_range: Any
    radius: Any
    health: Any  # at the start
    weapon_cooldown: Any  # seconds between two attacks
    bits: Any  # [U, kinds], one-hot


class WorldState(NamedTuple):
    """The state on which the next step depends. A unit without health is dead."""

    position: jax.Array  # [U, 2], between 0 and the map's size
    health: jax.Array  # [U]
    cooldown: jax.Array  # [U], seconds until the weapon is ready; negative if it already is
    kind: jax.Array  # int [U]
    movement: jax.Array  # [U, 2], the last direction of movement
    attack: jax.Array  # [U], the index of the last attack, as the unit's own team counts; 0 for none
    goal: jax.Array  # [M, 2], the destination of an opponent that sees no agent: its start, rotated about the center
    prey: jax.Array  # int [M], the agent that an opponent attacked last, from the last agent backwards; −1 for none
    step: jax.Array  # int []

    @property
    def alive(self) -> jax.Array:
        """bool `[U]`."""
        return self.health > 0


class Draws(NamedTuple):
    """The random numbers of one step, uniform in [0, 1)."""

    cooldown: jax.Array  # [P, U], the cooldown of a weapon that is fired in that physical step
    pursuit: jax.Array  # [M], selects the agent in sight that an opponent follows
    target: jax.Array | None  # [M], selects the agent in range that it attacks; None for the closest


@dataclasses.dataclass(frozen=True, eq=False)
class World:
    """A scenario's static description and its dynamics.

    Args:
        num_agents, num_opponents: N and M.
        kinds: the properties of every kind of unit.
        line_up: int `[U]`, the kinds of all units; `None` if they are drawn for every episode.
        size: width and height of the map.
        time_step, physical_steps: seconds of a physical step, and P.
        opponent: which unit in its range an opponent attacks.
        place, muster: functions of a key, for positions `[U, 2]` and kinds `[U]` that are drawn for every episode.
    """

    num_agents: int
    num_opponents: int
    kinds: Units
    line_up: np.ndarray | None
    size: float
    time_step: float
    physical_steps: int
    opponent: OpponentKind
    place: Any
    muster: Any

    @property
    def num_units(self) -> int:
        return self.num_agents + self.num_opponents

    @property
    def num_actions(self) -> int:
        return MOVES + self.num_opponents

    @functools.cached_property
    def others(self) -> np.ndarray:
        """bool `[N, U − 1, 1]`: in the list of units without agent i, those before it."""
        return (np.arange(self.num_units - 1) < np.arange(self.num_agents)[:, None])[..., None]

    def units(self, state: WorldState) -> Units:
        """The properties of every unit; constants unless kinds are drawn."""
        if self.line_up is not None:
            return Units(*(table[self.line_up] for table in self.kinds))
        return Units(*(jnp.asarray(table, state.health.dtype)[state.kind] for table in self.kinds))

    def reset(self, key: jax.Array) -> WorldState:
        """Two groups that face each other, or drawn positions and kinds."""
        zeros = jnp.zeros(self.num_units)
        if self.line_up is None:
            place_key, muster_key = jax.random.split(key)
            position, kind = self.place(place_key).astype(zeros.dtype), self.muster(muster_key).astype(int)
        else:
            column = np.where(np.arange(self.num_units) < self.num_agents, self.size / 4, self.size * 3 / 4)
            center = np.stack([column, np.full(self.num_units, self.size / 2)], -1)
            position = center + jax.random.uniform(key, center.shape, minval=-2, maxval=2)
            kind = jnp.asarray(self.line_up, int)
        state = WorldState(
            position=position,
            health=zeros,
            cooldown=zeros,
            kind=kind,
            movement=jnp.zeros((self.num_units, 2)),
            attack=zeros,
            goal=position[self.num_agents :],
            prey=jnp.full(self.num_opponents, -1),
            step=jnp.zeros((), int),
        )
        units = self.units(state)
        state = state._replace(health=jnp.asarray(units.health, zeros.dtype))
        position = pushed_apart(state.position, state.alive, units.radius)
        return state._replace(position=position, goal=self.size - position[self.num_agents :])

    def draw(self, key: jax.Array) -> Draws:
        """All random numbers of a step. No weapon fires twice within it, so one number per weapon is enough."""
        lengths = [self.num_units, self.num_opponents]
        lengths += [self.num_opponents] if self.opponent == "random" else []
        cooldown, *choices = jnp.split(jax.random.uniform(key, (sum(lengths),)), np.cumsum(lengths)[:-1])
        target = choices[1] if self.opponent == "random" else None
        return Draws(jnp.broadcast_to(cooldown, (self.physical_steps, self.num_units)), choices[0], target)

    def step(self, state: WorldState, action: jax.Array, draws: Draws) -> WorldState:
        """One step: the agents' actions int `[N]`, the opponents' actions, and P physical steps."""
        n, units = self.num_agents, self.units(state)
        reply, prey = self.reply(state, units, draws)
        chosen = jnp.concatenate([action, reply])
        attacking = chosen >= MOVES
        # The agents count opponents forwards, the opponents count agents backwards.
        target = jnp.concatenate([n + action - MOVES, n - 1 - (reply - MOVES)])
        target = jnp.where(attacking, target, 0)
        movement = jnp.asarray(DIRECTIONS, state.position.dtype)[jnp.where(attacking, MOVES - 1, chosen)]
        aimed = (target == np.arange(self.num_units)[:, None]) & attacking  # [U, U]: j attacks i

        def physical_step(carry, deviation):
            position, health, cooldown = carry
            alive = health > 0
            reach = distance(position[target] - position) < units.attack_range
            fires = attacking & reach & alive & alive[target] & (cooldown <= 0)
            health = jnp.maximum(health - jnp.sum(jnp.where(aimed & fires, units.attack, 0), -1), 0)
            pause = units.weapon_cooldown + self.time_step * (3 * deviation - 1)
            cooldown = jnp.where(fires, pause, cooldown - self.time_step)
            moved = position + movement * (units.velocity * self.time_step)[:, None]
            position = jnp.where(alive[:, None], jnp.clip(moved, 0, self.size), position)
            at_wall = ((position <= 0) | (position >= self.size)).any(-1)
            health = jnp.where(at_wall, 0, health)  # the edge of the map kills
            return (pushed_apart(position, health > 0, units.radius), health, cooldown), None

        carry = (state.position, state.health, state.cooldown)
        (position, health, cooldown), _ = jax.lax.scan(physical_step, carry, draws.cooldown)
        attack = jnp.where(attacking, chosen, 0).astype(state.attack.dtype)
        return WorldState(position, health, cooldown, state.kind, movement, attack, state.goal, prey, state.step + 1)

    def reply(self, state: WorldState, units: Units, draws: Draws) -> tuple[jax.Array, jax.Array]:
        """The opponents' actions int `[M]`, and the agents that they attacked last.

        Each keeps attacking the same agent while that is in range, else the closest or a random one in range. With none
        in range it follows an agent in sight, else it moves to its goal.
        """
        n = self.num_agents
        own, agents = state.position[n:], state.position[:n][::-1]
        offset = agents - own[:, None]  # [M, N, 2]
        away = distance(offset)
        in_sight = (away < units.sight_range[n:, None]) & state.alive[n:, None] & state.alive[:n][::-1]
        in_range = in_sight & (away < units.attack_range[n:, None])
        if draws.target is None:
            choice = jnp.argmin(jnp.where(in_range, away, jnp.inf), axis=-1)
        else:
            choice = choose(in_range, draws.target)
        still = jnp.take_along_axis(in_range, jnp.maximum(state.prey, 0)[:, None], axis=-1)[:, 0]
        prey = jnp.where((state.prey >= 0) & still, state.prey, choice)
        pursued = jnp.take_along_axis(offset, choose(in_sight, draws.pursuit)[:, None, None], axis=1)[:, 0]
        way = jnp.where(in_sight.any(-1)[:, None], pursued, state.goal - own)
        x, y = way[:, 0], way[:, 1]
        direction = jnp.argmax(jnp.stack([y, x, -y, -x], -1), axis=-1)
        can_attack = in_range.any(-1)
        return jnp.where(can_attack, MOVES + prey, direction), jnp.where(can_attack, prey, -1)

    def reward(self, before: WorldState, after: WorldState) -> jax.Array:
        """The health that the opponents have lost, as a share of the initial health per unit, and 1 for a win."""
        health = self.units(after).health[self.num_agents :]
        lost = (before.health - after.health)[self.num_agents :]
        return jnp.sum(lost / health) / self.num_opponents + self.won(after)

    def won(self, state: WorldState) -> jax.Array:
        """Whether every opponent is dead and some agent is alive."""
        return ~state.alive[self.num_agents :].any() & state.alive[: self.num_agents].any()

    def decided(self, state: WorldState) -> jax.Array:
        """Whether one of the teams, or both, is dead."""
        return ~state.alive[self.num_agents :].any() | ~state.alive[: self.num_agents].any()

    def available(self, state: WorldState) -> jax.Array:
        """bool `[N, 5 + M]`: living agents can move and attack opponents in range; dead ones can only stop."""
        n, units = self.num_agents, self.units(state)
        alive = state.alive
        away = distance(state.position[n:] - state.position[:n, None])
        reached = (away < units.attack_range[:n, None]) & alive[:n, None] & alive[n:]
        moves = alive[:n, None] | (np.arange(MOVES) == MOVES - 1)
        return jnp.concatenate([moves, reached], -1)

    def observe(self, state: WorldState) -> jax.Array:
        """The agents' observations `[N, 13 (U − 1) + 10]`: other units in sight, then itself; zeros if dead."""
        n, units = self.num_agents, self.units(state)
        offset = state.position - state.position[:n, None]
        seen = self.seen(state, units, offset)
        place = offset / jnp.asarray(units.sight_range, offset.dtype)[:n, None, None]
        return self._arrange(state, units, place, seen)

    def perspective(self, state: WorldState) -> jax.Array:
        """The whole world as each agent would observe it, `[N, 14 (U − 1) + 10]`.

        All living units with their relative positions in units of the map, and whether the agent sees them; then the
        agent itself.
        """
        n, units = self.num_agents, self.units(state)
        offset = state.position - state.position[:n, None]
        seen = self.seen(state, units, offset)
        place = jnp.concatenate([seen[..., None].astype(offset.dtype), offset / self.size], -1)
        return self._arrange(state, units, place, jnp.broadcast_to(state.alive, seen.shape))

    def survey(self, state: WorldState) -> jax.Array:
        """The state `[10 U]`: the own features of every living unit, in the units of observations."""
        return self.own_features(state, self.units(state)).ravel()

    def seen(self, state: WorldState, units: Units, offset: jax.Array) -> jax.Array:
        """bool `[N, U]`: the living units that each living agent has in sight, from offsets `[N, U, 2]`."""
        n, alive = self.num_agents, state.alive
        return (distance(offset) < units.sight_range[:n, None]) & alive[:n, None] & alive

    def own_features(self, state: WorldState, units: Units) -> jax.Array:
        """`[U, 10]`: health and position, as shares of their largest values, cooldown, kind; zeros for dead units."""
        health, ready, bits = self._condition(state, units)
        features = jnp.concatenate([health, state.position / self.size, ready, bits], -1)
        return jnp.where(state.alive[:, None], features, 0)

    def _condition(self, state: WorldState, units: Units) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Health `[U, 1]`, remaining cooldown `[U, 1]`, kind `[U, kinds]`."""
        ready = jnp.clip(state.cooldown / units.weapon_cooldown, 0, 1)
        return (state.health / units.health)[:, None], ready[:, None], jnp.asarray(units.bits, ready.dtype)

    def _arrange(self, state: WorldState, units: Units, place: jax.Array, shown: jax.Array) -> jax.Array:
        """The features of the other units that are `shown` `[N, U]`, and the agent's own features."""
        n, width = self.num_agents, self.num_units
        health, ready, bits = self._condition(state, units)
        most = np.where(np.arange(width) < n, self.num_actions - 1, MOVES + n - 1)
        rest = jnp.concatenate([state.movement, (state.attack / most)[:, None], ready, bits], -1)
        views = [jnp.broadcast_to(x, (n, *x.shape)) for x in (health, rest)]
        features = jnp.where(shown[..., None], jnp.concatenate([views[0], place, views[1]], -1), 0)
        features = jnp.where(self.others, features[:, :-1], features[:, 1:])
        return jnp.concatenate([features.reshape(n, -1), self.own_features(state, units)[:n]], -1)


def distance(offset: jax.Array) -> jax.Array:
    """Lengths of vectors `[…, 2]`."""
    return jnp.sqrt(jnp.square(offset[..., 0]) + jnp.square(offset[..., 1]))


def choose(among: jax.Array, uniform: jax.Array) -> jax.Array:
    """A uniform index where `among` `[…, K]` is true, from a number in [0, 1); any index if it is true nowhere."""
    counted = jnp.cumsum(among, -1)
    return jnp.sum(counted < counted[..., -1:] * (1 - uniform[..., None]), -1)


def pushed_apart(position: jax.Array, alive: jax.Array, radius: jax.Array) -> jax.Array:
    """Positions after living units that overlap have pushed each other away, each by half of the overlap."""
    offset = position[:, None] - position
    away = distance(offset) + np.eye(len(position)) + 1e-6
    overlap = jax.nn.relu((radius[:, None] + radius) / away - 1)
    overlap = jnp.where(alive[:, None] & alive, overlap, 0)
    return position + jnp.sum(offset * overlap[..., None], axis=1) / 2
