"""The expected results of `update`, from `reference.py` alone, and their comparison with the actual ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import problems
import reference
import reference_trpo


@dataclasses.dataclass
class Expected:
    actors: list[reference.Learner]
    critics: list[reference.Learner]
    statistics: list[dict[str, float]] | None
    observation_moments: list[np.ndarray] | None
    state_moments: list[np.ndarray] | None
    compound_ratio: np.ndarray  # [T·E]
    steps: dict[int, dict[str, float]]  # the info of each group: of the line search, and the expected gain
    positions: list[dict[str, float]]  # the diagnostics of the compound ratio at each position of the order
    order: Sequence[int] | None


@dataclasses.dataclass
class Stream:
    """The rollout as one critic reads it, `[T, E, …]`."""

    inputs: np.ndarray
    final_inputs: np.ndarray
    reward: np.ndarray
    active: np.ndarray
    final_active: np.ndarray
    sequences: reference.Sequences | None  # with the initial memory before step 0


def streams(algo: Any, state: Any, batch: Any) -> tuple[list[list[int]], list[Stream]]:
    """The groups of critics, and a stream for every agent (for the team, if the critic is central)."""
    active, final_active, reward = (np.asarray(x) for x in (batch.active, batch.final_active, batch.reward))

    def sequences(active):
        if algo.settings.memory == "none":
            return None
        return problems.sequences(algo, batch, active, np.zeros((active.shape[1], algo.settings.hidden_sizes[-1])))

    if algo.settings.centralized:
        of_team = None if state.moments is None else jax.tree.map(lambda x: x[None], state.moments.state)
        inputs = [problems.normalized(of_team, 0, np.asarray(x), ...) for x in (batch.state, batch.final_state)]
        return [[0]], [Stream(*inputs, reward[..., 0], active.any(-1), final_active.any(-1), sequences(active.any(-1)))]
    made = []
    for i in range(algo.spec.num_agents):
        inputs = [problems.normalized_input(algo, state, x, i) for x in (batch.observation, batch.final_observation)]
        made.append(Stream(*inputs, reward[..., i], active[..., i], final_active[..., i], sequences(active[..., i])))
    return problems.groups_of(algo.spec, algo.settings.sharing), made


def read_statistics(statistics: Any) -> list[dict[str, float]]:
    fields = {name: np.asarray(x) for name, x in statistics._asdict().items()}
    return [{name: float(x[g]) for name, x in fields.items()} for g in range(len(fields["mean"]))]


def for_the_dead(values: list[np.ndarray], active: list[np.ndarray], team: bool) -> list[np.ndarray]:
    """Each agent's values `[T, E]`; where it is inactive, the mean of the active agents (0 with individual rewards)."""
    values = [x.copy() for x in values]
    for t, e in np.ndindex(values[0].shape):
        living = [value[t, e] for value, alive in zip(values, active, strict=True) if alive[t, e]]
        for value, alive in zip(values, active, strict=True):
            if not alive[t, e]:
                value[t, e] = np.mean(living) if team and living else 0.0
    return values


def update_critics(
    learners: list[reference.Learner],
    old_statistics: Any,
    groups: Any,
    streams: list[Stream],
    batch: Any,
    **options: Any,
) -> tuple[list[reference.Learner], list[dict[str, float]], Callable[..., list[np.ndarray]]]:
    """The new learners and statistics of every critic, and every stream's advantages `[T, E]` by the old ones.

    The advantages are a function of traces `[T, E]`, by default 1.
    """
    hp, settings, learning_rate, epochs = (options[k] for k in ("hp", "settings", "learning_rate", "epochs"))
    terminated, truncated = np.asarray(batch.terminated), np.asarray(batch.truncated)
    new_learners, new_statistics, judged = [], [], {}
    for g, members in enumerate(groups):
        mean, scale = reference.location_and_scale(old_statistics[g]) if settings.normalize_values else (0.0, 1.0)
        for i in members:
            stream = streams[i]
            flat = stream.inputs.reshape(-1, stream.inputs.shape[-1])
            final_flat, parameters = stream.final_inputs.reshape(flat.shape), learners[g].params
            rows = final_rows = stream.sequences
            if rows is not None:
                _, after = reference.body(parameters, flat, rows, [])
                # The final observation of a step, as a sequence that continues from the memory after that step.
                alone, never = np.arange(len(flat)), np.zeros(len(flat), bool)
                final_rows = reference.Sequences(alone, never, never, after)
            old, _ = reference.value(parameters, flat, rows)
            final, _ = reference.value(parameters, final_flat, final_rows)
            chunks = None if rows is None else rows.chunks(settings.chunk_length, after)
            baseline, future = ((scale * x + mean).reshape(stream.reward.shape) for x in (old, final))
            judged[i] = flat, old, baseline, future, chunks
    baselines, futures = ([judged[i][k] for i in range(len(streams))] for k in (2, 3))
    team = options["reward"] == "team"
    if not settings.centralized:
        baselines = for_the_dead(baselines, [stream.active for stream in streams], team)
        futures = for_the_dead(futures, [stream.final_active for stream in streams], team)

    def advantages_with(trace=None):
        return [
            reference.gae(
                stream.reward,
                baseline,
                future,
                terminated,
                truncated,
                hp.discount,
                np.where(stream.final_active | settings.centralized | team, hp.gae_lambda, 1),
                trace,
            )
            for stream, baseline, future in zip(streams, baselines, futures, strict=True)
        ]

    advantages = advantages_with()
    for g, members in enumerate(groups):
        statistics, pool = old_statistics[g], []
        mean, scale = 0.0, 1.0
        for i in members:
            flat, old, *_, chunks = judged[i]
            pool.append((flat, old, (advantages[i] + baselines[i]).ravel(), streams[i].active.ravel(), chunks))
        if settings.normalize_values and settings.value_statistics_per == "update":
            seen = np.concatenate([target[active] for _, _, target, active, _ in pool])
            statistics = reference.update_statistics(statistics, seen, hp.value_decay)
            mean, scale = reference.location_and_scale(statistics)
        learner = learners[g]
        for rows in (rows for minibatches in epochs[g] for rows in minibatches):
            parts = [[x[rows][active[rows]] for x in arrays] for *arrays, active, _ in pool]
            x, old, target = (np.concatenate(column) for column in zip(*parts, strict=True))
            if settings.normalize_values and settings.value_statistics_per == "minibatch":
                statistics = reference.update_statistics(statistics, target, hp.value_decay)
                mean, scale = reference.location_and_scale(statistics)
            target = (target - mean) / scale
            parts = [chunks.take(rows).take(active[rows]) for *_, active, chunks in pool if chunks is not None]
            _, gradient = reference.value_loss(
                learner.params,
                x,
                old,
                target,
                hp,
                settings.value_loss,
                settings.clip_value,
                reference.Sequences.join(parts) if parts else None,
            )
            learner = learner.step(gradient, learning_rate, hp)
        new_learners.append(learner)
        new_statistics.append(statistics)
    return new_learners, new_statistics, advantages_with


def moments(old: Any, groups: Any, rows: list[np.ndarray], own: list[Any]) -> list[np.ndarray]:
    """Weight, mean and squared deviations, stacked over groups, with the new `rows` of every agent (or of the team)."""
    weight, mean, deviation = (np.array(field) for field in old)
    for g, members in enumerate(groups):
        x = np.concatenate([rows[i] for i in members])
        entries = own[members[0]]
        total, before = weight[g] + len(x), mean[g, entries]
        squares = deviation[g, entries] + weight[g] * before**2 + (x**2).sum(0)
        weight[g], mean[g, entries] = total, (weight[g] * before + x.sum(0)) / total
        deviation[g, entries] = squares - total * mean[g, entries] ** 2
    return [weight, mean, deviation]


def update(
    algo: Any,
    state: Any,
    batch: Any,
    order: Sequence[int] | None,
    shuffles: Sequence[np.ndarray] | None = None,
    by_score: str = "",
) -> Expected:
    """The update by plain loops, groups in `order` (`None`: simultaneous).

    With `by_score`, `greedy` or `semi_greedy`, `order` is the shuffled order of the groups without scores.

    `shuffles` are the row permutations of all passes: first those of the groups in `order`, then those of the critics.
    """
    settings, hp = algo.settings, jax.tree.map(float, state.hyperparameters)
    num_steps, num_envs = batch.log_prob.shape[:2]
    drawn = iter(shuffles or [])

    def rows_of(chosen):
        """The rows of samples; if chunks are shuffled, the rows of the chunks in the order of time."""
        if settings.memory == "none":
            return chosen
        length = settings.chunk_length
        env, chunk = np.divmod(chosen, num_steps // length)
        return np.sort(((chunk * length + np.arange(length)[:, None]) * num_envs + env).ravel())

    def passes(count):
        if settings.minibatches == 1:
            return [[np.arange(num_steps * num_envs)]] * count
        return [
            [rows_of(rows) for rows in np.split(np.asarray(next(drawn)), settings.minibatches)] for _ in range(count)
        ]

    def decayed(learning_rate):
        done = int(state.updates) / hp.decay_updates
        return learning_rate * max(1 - done, 0)

    groups = problems.groups_of(algo.spec, settings.sharing)
    critic_groups, critic_streams = streams(algo, state, batch)
    actor_passes, steps, positions, num_agents = {}, {}, [], algo.spec.num_agents
    assert not (by_score and settings.minibatches > 1), "the order of the groups' passes would not be known yet"
    if algo.name != "hatrpo":
        actor_passes = {g: passes(settings.epochs) for g in (range(len(groups)) if order is None else order)}

    def improve(g, learner, bounds, members, clip):
        rollout = members
        if settings.memory == "gru":
            members = [(samples.chunks(learner.params, settings.chunk_length), m) for samples, m in members]
        if algo.name == "hatrpo":
            updated = [done for done in steps if "kl" in steps[done]] if order is not None else []
            before = sum(len(groups[done]) * steps[done]["kl"] for done in updated)
            left = num_agents - sum(len(groups[done]) for done in updated)
            radius = {
                "agent": hp.kl_radius,
                "joint": hp.kl_radius / num_agents,
                "unspent": (hp.kl_radius - before) / left,
            }[settings.kl_budget]
            ball = hp.replace(kl_radius=radius)
            learner, info = reference_trpo.trpo(learner, bounds, rollout, ball, settings.line_search_steps, members)
            steps[g] = steps.get(g, {}) | info
            return learner
        unclipped = hp.replace(clip=np.inf) if algo.name in ("haa2c", "maa2c") else hp
        if algo.name == "a2po":
            own, passes = hp.replace(clip=clip), actor_passes[g]
            return reference.ppo(learner, bounds, members, own, decayed(hp.actor_lr), passes, reference.a2po_loss)
        return reference.ppo(learner, bounds, members, unclipped, decayed(hp.actor_lr), actor_passes[g])

    critics, statistics, advantages_with = update_critics(
        [view.read() for view in problems.critic_views(algo, state)],
        read_statistics(state.value_statistics) if settings.normalize_values else [{}] * len(critic_groups),
        critic_groups,
        critic_streams,
        batch,
        hp=hp,
        settings=settings,
        reward=algo.spec.reward,
        learning_rate=decayed(hp.critic_lr),
        epochs=[passes(settings.critic_epochs) for _ in critic_groups],
    )
    agents = [problems.samples(algo, state, batch, i) for i in range(algo.spec.num_agents)]
    learners = [view.read() for view in problems.actor_views(algo, state)]
    bounds = [problems.bounds(algo, members[0]) for members in groups]

    def advantages_by(compound):
        recomputed = advantages_with(np.minimum(compound, 1).reshape(num_steps, num_envs))
        return [x.ravel() for x in recomputed] * (len(agents) if settings.centralized else 1)

    advantages = advantages_by(np.ones(num_steps * num_envs))
    if by_score:
        assert order is not None
        scores = []
        for g, members in enumerate(groups):
            of_group = [agents[i] for i in members]
            scaled = reference.standardize([advantages[i] for i in members], [agent.active for agent in of_group])
            if settings.memory == "gru":
                of_group = [agent.chunks(learners[g].params, settings.chunk_length) for agent in of_group]
            scores.append(reference.expected_gain(learners[g], bounds[g], of_group, scaled))
        order = reference.order_by_score(scores, order, by_score)
        steps |= {g: {"expected_gain": score} for g, score in enumerate(scores)}
    actors, compound = reference.in_sequence(
        learners,
        groups,
        bounds,
        agents,
        advantages,
        order,
        improve,
        settings.guard,
        hp,
        positions,
        advantages_by if algo.name == "a2po" else None,
        settings.center_advantage,
    )
    observation_moments = state_moments = None
    if state.moments is not None:
        own = [np.arange(agent.observation_size) for agent in algo.spec.agents]
        seen = [np.asarray(batch.observation)[batch.active[..., i]][:, i, own[i]] for i in range(len(agents))]
        observation_moments = moments(state.moments.observation, groups, seen, own)
        of_team = [np.asarray(x)[None] for x in state.moments.state]
        state_moments = moments(of_team, [[0]], [np.asarray(batch.state)[batch.active.any(-1)]], [...])
    statistics = statistics if settings.normalize_values else None
    moments_of = observation_moments, state_moments
    return Expected(actors, critics, statistics, *moments_of, compound, steps, positions, order)


def assert_updated(algo: Any, before: Any, after: Any, info: Any, expected: Expected, tolerance: float = 1e-10) -> None:
    """Asserts that all parameters, Adam moments and statistics are as expected, and M is the product of the ratios."""
    for g, view in enumerate(problems.actor_views(algo, after)):
        view.assert_equals(expected.actors[g], before.actors, tolerance)
    for g, view in enumerate(problems.critic_views(algo, after)):
        view.assert_equals(expected.critics[g], before.critics, tolerance)
    if expected.statistics is not None:
        for actual, wanted in zip(read_statistics(after.value_statistics), expected.statistics, strict=True):
            np.testing.assert_allclose(list(actual.values()), [wanted[name] for name in actual], 0, tolerance)
    if after.moments is not None:
        for actual, wanted in zip(after.moments.observation, expected.observation_moments, strict=True):
            np.testing.assert_allclose(actual, wanted, 0, tolerance)
        for actual, wanted in zip(after.moments.state, expected.state_moments, strict=True):
            np.testing.assert_allclose(actual, wanted[0], 0, tolerance)
    np.testing.assert_allclose(info["compound_ratio"], expected.compound_ratio.mean(), tolerance)
    for g, step in expected.steps.items():
        for name, value in step.items():
            np.testing.assert_allclose(info[name][g], value, 0, tolerance, err_msg=f"{name} of group {g}")
    if expected.order is None:
        assert "order" not in info
    else:
        assert list(info["order"]) == list(expected.order)
    for position, diagnostics in enumerate(expected.positions):
        for name, value in diagnostics.items():
            np.testing.assert_allclose(info[name][position], value, tolerance, tolerance, err_msg=f"{name}, {position}")
    assert after.updates == before.updates + 1


def take(tree: Any, rows: Sequence[int], axis: int) -> Any:
    return jax.tree.map(lambda x: jnp.take(x, jnp.array(rows), axis), tree)


def assert_trees_close(one: Any, other: Any, tolerance: float) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 0, tolerance), one, other)
