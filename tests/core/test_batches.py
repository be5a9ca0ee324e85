"""Users' own data as a batch: defaults, and errors that name the array."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hajax

SPEC = hajax.EnvSpec(
    "mine",
    (hajax.AgentSpec("a", (6,), hajax.Discrete(4)), hajax.AgentSpec("b", (2,), hajax.Box((-1.0, 0.0), (1.0, 1.0)))),
    state_size=5,
    max_steps=9,
)
T, E, N = 4, 3, 2
REQUIRED = {
    "observation": jnp.ones((T, E, N, 6)),
    "state": jnp.ones((T, E, 5)),
    "action": jnp.zeros((T, E, N, 2)),
    "log_prob": jnp.zeros((T, E, N)),
    "reward": jnp.arange(12.0).reshape(T, E),
    "final_observation": jnp.ones((T, E, N, 6)),
    "final_state": jnp.ones((T, E, 5)),
}


def test_defaults_of_omitted_fields():
    ends = jnp.zeros((T, E), bool).at[1, 2].set(True)
    batch = hajax.on_policy_batch(SPEC, **REQUIRED, truncated=ends)
    assert batch.active.all()
    assert not batch.terminated.any()
    np.testing.assert_array_equal(batch.action_mask[1, 2], SPEC.action_layout.choices)
    np.testing.assert_array_equal(batch.reward[..., 0], REQUIRED["reward"])
    np.testing.assert_array_equal(batch.reward[..., 1], REQUIRED["reward"])
    expected_first = np.zeros((T, E), bool)
    expected_first[0] = expected_first[2, 2] = True
    np.testing.assert_array_equal(batch.first, expected_first)


def test_final_active_is_the_next_row_s_active_agents():
    alive = jnp.ones((T, E, N), bool).at[2:, :, 1].set(False)
    ends = jnp.zeros((T, E), bool).at[1, 2].set(True)
    batch = hajax.on_policy_batch(SPEC, **REQUIRED, truncated=ends, active=alive)
    wanted = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]], bool).T
    np.testing.assert_array_equal(batch.final_active[..., 1], wanted)
    assert batch.final_active[..., 0].all()
    given = hajax.on_policy_batch(SPEC, **REQUIRED, final_active=~alive)
    np.testing.assert_array_equal(given.final_active, ~alive)


def test_it_is_what_update_takes():
    algo = hajax.make_algorithm("happo", SPEC, hidden_sizes=(4,), epochs=1, critic_epochs=1)
    batch = hajax.on_policy_batch(SPEC, **REQUIRED, terminated=jnp.ones((T, E), bool))
    state, info = jax.jit(algo.update)(jax.random.key(1), jax.jit(algo.init)(jax.random.key(0)), batch)
    assert int(state.updates) == 1
    assert all(bool(jnp.isfinite(value).all()) for value in info.values())


@pytest.mark.parametrize("name", [name for name in REQUIRED if name != "observation"])
def test_a_wrong_shape_is_named(name):
    wrong = REQUIRED | {name: jnp.zeros((T, E, 7))}
    with pytest.raises(ValueError, match=rf"{name} has shape \(4, 3, 7\); allowed: \(4, 3"):
        hajax.on_policy_batch(SPEC, **wrong)


def test_a_policy_with_memory_needs_its_memory_and_first():
    algo = hajax.make_algorithm("happo", SPEC, hidden_sizes=(5,), memory="gru", chunk_length=2)
    state = jax.eval_shape(algo.init, jax.random.key(0))

    def update(**given):
        batch = hajax.on_policy_batch(SPEC, **REQUIRED, **given)
        return jax.eval_shape(algo.update, jax.random.key(1), state, batch)

    update(memory=jnp.ones((E, N, 5)), first=jnp.zeros((T, E), bool))
    with pytest.raises(ValueError, match=r"memory is missing; allowed: shape \(3, 2, 5\), before step 0"):
        update()
    with pytest.raises(ValueError, match=r"first is None, but a memory is given; allowed: bool \[T, E\]"):
        update(memory=algo.initial_memory((E,)))
    with pytest.raises(ValueError, match=r"first has shape \(4,\); allowed: \(4, 3\)"):
        update(memory=algo.initial_memory((E,)), first=jnp.zeros(T, bool))


def test_a_team_reward_is_one_number_and_individual_rewards_one_per_agent():
    """Individual rewards with `reward="team"` are refused, because only the first agent's would be used."""
    own = jnp.ones((T, E, N))
    with pytest.raises(ValueError, match=r"reward has shape \(4, 3, 2\); allowed: \(4, 3\), the team's, for mine"):
        hajax.on_policy_batch(SPEC, **(REQUIRED | {"reward": own}))
    individual = dataclasses.replace(SPEC, reward="individual")
    assert hajax.on_policy_batch(individual, **(REQUIRED | {"reward": own})).reward.shape == (T, E, N)
    with pytest.raises(ValueError, match=r"reward has shape \(4, 3\); allowed: \(4, 3, 2\)"):
        hajax.on_policy_batch(individual, **REQUIRED)


def test_the_observation_itself_is_checked():
    with pytest.raises(ValueError, match=r"observation has shape \(4, 3, 2, 8\); allowed: \(4, 3, 2, 6\) for mine"):
        hajax.on_policy_batch(SPEC, **(REQUIRED | {"observation": jnp.zeros((T, E, N, 8))}))


def test_masks_for_an_environment_that_has_none_are_refused():
    unmasked = dataclasses.replace(SPEC, masks_actions=False)
    mask = jnp.broadcast_to(SPEC.action_layout.choices, (T, E, *SPEC.action_layout.choices.shape))
    assert hajax.on_policy_batch(SPEC, **REQUIRED, action_mask=mask).action_mask.shape == mask.shape
    with pytest.raises(ValueError, match="action_mask is given, but mine has masks_actions=False; allowed: None"):
        hajax.on_policy_batch(unmasked, **REQUIRED, action_mask=mask)
