"""Simulators of the host as a batch of environments, which compiled programs step through callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from hajax.envs.base import BatchedEnvironment, OverlappedStep, Viewer, concatenate_observations
from hajax.envs.callbacks import callback, cores
from hajax.envs.simulators.host import LONGEST, TICKET, UNLIMITED, Past, Simulators, State
from hajax.envs.simulators.interface import MASK
from hajax.envs.simulators.rows import Layout
from hajax.envs.simulators.workers import Task
from hajax.spec import FinalStep, Timestep

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def on_host(task: Task) -> BatchedEnvironment:
    """The batch of environments whose copies workers step."""
    host, layout = Simulators(task, on_host), task.layout
    pictures = [] if task.frame is None else [(task.frame, jnp.uint8)]
    agents, components = layout.spec.num_agents, layout.spec.num_components
    kept = min(layout.spec.max_steps or UNLIMITED, LONGEST // (agents * components))  # steps of an episode
    kept = kept if task.frame is None else 1  # films are not resumed

    def reset(keys: jax.Array) -> tuple[State, Timestep]:
        seeds = jax.vmap(lambda key: jax.random.bits(key, (), jnp.uint32))(keys)
        dtype, begin = jnp.result_type(float), host.opening()

        def call(seeds):
            return host.guarded(begin, seeds, dtype)

        results = [((TICKET,), jnp.int32), ((layout.width,), dtype), *pictures]
        tickets, rows, *frames = callback(call, results)(seeds)
        zeros = jnp.zeros(len(seeds), jnp.int32)
        past = Past(seeds, zeros, zeros, jnp.zeros((len(seeds), kept, agents, components)))
        return State(tickets, past, *frames), shown(layout, rows)

    def step(keys: jax.Array, state: State, action: jax.Array) -> tuple[State, Timestep]:
        dtype = jnp.result_type(float)

        def call(tickets, action):
            found = host.guarded(host.step, tickets, action)
            return tickets + np.array([0, 0, 1], np.int32), *found  # from the callback, so that steps are in order

        results = [((TICKET,), jnp.int32), ((layout.width,), dtype), *pictures]
        tickets, rows, *frames = callback(call, results)(state.ticket, action.astype(dtype))
        timestep = shown(layout, rows)
        return State(tickets, _after(_acted(state.past, action), timestep), *frames), timestep

    def exchange(state: State, action: jax.Array, other: State) -> tuple[State, State, Timestep]:
        dtype = jnp.result_type(float)

        def call(tickets, action, others):
            return tickets + np.array([0, 0, 1], np.int32), others, host.guarded(host.exchange, tickets, action, others)

        results = [((TICKET,), jnp.int32)] * 2 + [((layout.width,), dtype)]
        mine, theirs, rows = callback(call, results)(state.ticket, action.astype(dtype), other.ticket)
        timestep = shown(layout, rows)
        return State(mine, _acted(state.past, action)), State(theirs, _after(other.past, timestep)), timestep

    def end(state: State) -> tuple[State, Timestep]:
        def call(tickets):
            return tickets, host.guarded(host.end, tickets)

        results = [((TICKET,), jnp.int32), ((layout.width,), jnp.result_type(float))]
        tickets, rows = callback(call, results)(state.ticket)
        timestep = shown(layout, rows)
        return State(tickets, _after(state.past, timestep)), timestep

    def is_faster(num_envs: int) -> bool:
        # Measured (docs/results/simulators.md): with a core for the program, always; without one, if each worker has
        # enough to do meanwhile.
        return cores() > 1 and (task.num_workers < cores() or num_envs >= 16 * task.num_workers)

    viewer = Viewer(_draw) if task.draws else None
    whole = task.num_workers == 0 or task.frame is not None
    stepped = step if whole else OverlappedStep(step, exchange, end, is_faster)
    return BatchedEnvironment(layout.spec, reset, stepped, viewer=viewer, host=host)


def _acted(past: Past, action: jax.Array) -> Past:
    """The past `[E]` with one more action `[E, N, D]`."""
    actions = jax.vmap(lambda actions, step, action: actions.at[step].set(action))(past.actions, past.step, action)
    return past._replace(step=past.step + 1, actions=actions)


def _after(past: Past, timestep: Timestep) -> Past:
    """The past `[E]` after the step that led to these timesteps; applied twice, it has the same effect as once."""
    over = (timestep.terminated | timestep.truncated) & (past.step > 0)
    return past._replace(episode=past.episode + over, step=jnp.where(over, 0, past.step))


def _draw(axes: Axes, state: State, action: Any, timestep: Timestep) -> None:
    axes.imshow(np.asarray(state.frame))
    axes.set_axis_off()


def shown(layout: Layout, rows: jax.Array) -> Timestep:
    """The timesteps of rows `[E, W]`."""
    spec, fields = layout.spec, layout.fields(rows)

    def seen(prefix: str) -> FinalStep:
        observation = fields[f"{prefix}observation"]
        mask = fields.get(f"{prefix}{MASK}")
        choices = spec.action_layout.choices
        return FinalStep(
            observation=observation,
            state=(
                concatenate_observations(spec, observation)
                if spec.state_from_observations
                else fields[f"{prefix}state"]
            ),
            action_mask=jnp.broadcast_to(choices, (len(rows), *choices.shape)) if mask is None else mask > 0,
            active=fields[f"{prefix}active"] > 0,
        )

    reward = fields["reward"]
    if spec.reward == "team":
        reward = jnp.broadcast_to(reward.sum(-1, keepdims=True), reward.shape)
    terminated, truncated = fields["terminated"] > 0, fields["truncated"] > 0
    return Timestep(
        **seen("")._asdict(),
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        first=terminated | truncated,
        final=seen("final."),
        metrics={name: fields[f"metrics.{name}"] for name in layout.metrics},
    )
