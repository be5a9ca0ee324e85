"""`normalize_observations` of off-policy algorithms: the statistics, and which observations they normalize."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import off_policy_problems
import problems
import pytest

from hajax.spaces import Box, Discrete

CHOICES, BOX = (Discrete(3),) * 3, (Box((-1.0, 0.0), (2.0, 0.5)),) * 3
MIXED = (Discrete(3), Box((-1.0, 0.0), (2.0, 0.5)), Discrete(3))
SHARING = (0, 1, 0)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def normalized(x: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """`x` `[…, O]`, normalized by the statistics of the rows `seen` `[M, O]`."""
    return np.clip((x - seen.mean(0)) / np.sqrt(seen.var(0) + 1e-8), -10, 10)


@pytest.mark.parametrize(
    ("name", "spaces"),
    [("hatd3", BOX), ("hasac", CHOICES), ("hasac", MIXED), ("had3qn", CHOICES), ("id3qn", CHOICES)],
)
def test_an_update_sees_what_it_drew_in_units_of_all_draws_so_far(name, spaces):
    """Statistics of all sampled batches so far, without inactive agents, normalize the update's batch.

    Agents 0 and 2 share parameters, and agent 1 has a padded observation. Training and evaluation use the same
    statistics.
    """
    spec = problems.make_spec(spaces, (4, 2, 4))
    algo, plain = (
        off_policy_problems.make_algorithm(name, spec, sharing=SHARING, batch_size=40, normalize_observations=on)
        for on in (True, False)
    )
    update, plain_update = jax.jit(algo.update), jax.jit(plain.update)
    plain_state = off_policy_problems.random_state(plain, 0)
    nothing_seen = problems.zeros_of(jax.eval_shape(algo.init, jax.random.key(0)).moments)
    state = plain_state._replace(moments=nothing_seen)
    observations: list[list[np.ndarray]] = [[], []]
    states: list[np.ndarray] = []
    for turn in range(2):
        batch = off_policy_problems.random_batch(algo, turn, inactive=0.3)
        # Entries have different scales far from 1, and some final observations are clipped at 10.
        stretch = 10.0 ** np.arange(-2, spec.observation_size - 2) * spec.observation_mask
        batch = batch._replace(
            observation=batch.observation * stretch + 3 * spec.observation_mask,
            final_observation=batch.final_observation * stretch * 5 + 3 * spec.observation_mask,
            state=batch.state * 7 - 2,
            final_state=batch.final_state * 7 - 2,
        )
        for agent, group in enumerate(SHARING):
            observations[group].append(
                np.asarray(batch.observation[..., agent, :])[np.asarray(batch.active[..., agent])]
            )
        states.append(np.asarray(batch.state)[np.asarray(batch.active).any(-1)])

        def seen(x):
            rows = [np.concatenate(observations[group]) for group in SHARING]
            return np.stack([normalized(np.asarray(x)[..., i, :], rows[i]) for i in range(3)], -2)

        by_hand = batch._replace(
            observation=seen(batch.observation),
            final_observation=seen(batch.final_observation),
            state=normalized(np.asarray(batch.state), np.concatenate(states)),
            final_state=normalized(np.asarray(batch.final_state), np.concatenate(states)),
        )
        assert np.abs(by_hand.final_observation).max() == 10
        key = jax.random.key(turn)
        state, _ = update(key, state, batch)
        plain_state, _ = plain_update(key, plain_state, jax.tree.map(jnp.asarray, by_hand))
        without = state._replace(moments=None)
        assert jax.tree.structure(without) == jax.tree.structure(plain_state)
        for ours, theirs in zip(jax.tree.leaves(without), jax.tree.leaves(plain_state), strict=True):
            np.testing.assert_allclose(ours, theirs, 1e-8, 1e-8)
    assert not np.asarray(state.moments.observation.mean)[1, 2:].any()  # the padding of agent 1
    counts = [len(np.concatenate(rows)) for rows in observations]
    np.testing.assert_array_equal(state.moments.observation.weight, counts)

    timestep = problems.timestep_of(batch)
    act, plain_act = (jax.jit(one.act, static_argnums=4) for one in (algo, plain))
    for deterministic in (True, False):
        action, _, _ = act(jax.random.key(9), state, timestep, (), deterministic)
        shown = timestep._replace(observation=jnp.asarray(seen(timestep.observation)))
        expected, _, _ = plain_act(jax.random.key(9), plain_state, shown, (), deterministic)
        np.testing.assert_allclose(action, expected, 1e-8, 1e-8)


def test_without_it_there_are_no_statistics():
    spec = problems.make_spec(BOX)
    assert off_policy_problems.make_algorithm("hatd3", spec).init(jax.random.key(0)).moments is None
