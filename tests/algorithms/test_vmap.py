"""Seeds and hyperparameters as vmapped axes: equal results, one trace, and no LAPACK (also in the initializer)."""

from __future__ import annotations

import functools
import re

import chex
import expected
import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest

import hajax
from hajax.nn.initializers import orthogonal
from hajax.spaces import Box, Discrete

SEEDS = 3
TEAM = (Discrete(3), Box((-1.0,), (4.0,)))


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def learner(name="happo", **settings):
    spec = problems.make_spec(TEAM, (2, 4))
    epochs = {"epochs": 2, "guard": "truncate"} if name == "happo" else {}
    return problems.make_algorithm(name, spec, critic_epochs=2, **epochs, **settings)


@functools.cache
def vmapped_problem(name="happo"):
    """A learner, its update for one seed and for all, and states and rollouts of all seeds."""
    algo = learner(name)
    states = [problems.random_state(algo, seed) for seed in range(SEEDS)]
    batches = [problems.random_batch(algo, state, seed, inactive=0.2) for seed, state in enumerate(states)]
    keys = jax.random.split(jax.random.key(0), SEEDS)
    chex.clear_trace_counter()
    single = jax.jit(chex.assert_max_traces(algo.update, n=1), compiler_options=problems.QUICK)
    return (
        algo,
        single,
        jax.jit(jax.vmap(algo.update), compiler_options=problems.QUICK),
        keys,
        stack(states),
        stack(batches),
    )


@jax.jit
def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@jax.jit
def pick(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


# Equal results.


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["happo", "hatrpo"])
def test_a_vmapped_seed_updates_as_the_seed_alone(name):
    """The single update is traced once for all calls (`assert_max_traces` raises otherwise).

    HATRPO's line search continues until the last seed has found its step, and must not change the other seeds.
    """
    _, single, vmapped, keys, states, batches = vmapped_problem(name)
    together, infos = vmapped(keys, states, batches)
    for i in range(SEEDS):
        alone, info = single(keys[i], pick(states, i), pick(batches, i))
        expected.assert_trees_close(pick(together, i), alone, 1e-10)
        expected.assert_trees_close(pick(infos, i), info, 1e-10)
    kernels = together.actors.params["torso"]["Dense_0"]["kernel"]
    assert float(jnp.abs(kernels[0] - kernels[1]).max()) > 0.1


@pytest.mark.usefixtures("float64")
def test_vmapped_hyperparameters_learn_as_each_alone():
    """Equal state, data and key, different hyperparameters per run: each has an effect, and only in its own run."""
    algo, single, vmapped, keys, states, batches = vmapped_problem()
    state, batch = pick(states, 0), pick(batches, 0)
    state = state._replace(updates=jnp.ones_like(state.updates))  # decay has an effect from the second update on
    base = algo.hyperparameters.replace(decay_updates=4.0)
    numbers = vars(base)
    runs = [base] + [base.replace(**{name: 0.5 * value}) for name, value in numbers.items()]
    runs = [jax.tree.map(lambda x: jnp.asarray(x, float), run) for run in runs]
    alone = [single(keys[0], state._replace(hyperparameters=run), batch)[0] for run in runs]
    for start in range(0, len(runs), SEEDS):  # three at a time, so that the compiled program is reused
        chosen = [runs[k % len(runs)] for k in range(start, start + SEEDS)]
        several = stack([state._replace(hyperparameters=run) for run in chosen])
        together, _ = vmapped(stack([keys[0]] * SEEDS), several, stack([batch] * SEEDS))
        for i in range(SEEDS):
            expected.assert_trees_close(pick(together, i), alone[(start + i) % len(runs)], 1e-10)

    def change(one, other):
        pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
        return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)

    for name, run in zip(numbers, alone[1:], strict=True):
        parts = [
            change(getattr(run, part), getattr(alone[0], part)) for part in ("actors", "critics", "value_statistics")
        ]
        assert max(parts) > 1e-7, f"{name} has no influence"


def test_a_vmapped_seed_trains_as_the_seed_alone_in_float32():
    """From `init` through a rollout to the update, against single seeds."""
    env = hajax.make_env("games/trap_of_heterogeneity", max_steps=3)
    algo = hajax.make_algorithm("happo", env, hidden_sizes=(6,), epochs=2, critic_epochs=2, actor_lr=1e-2)
    loop = hajax.make_loop(env, algo, num_envs=3, rollout_length=4)

    def first_iteration(key):
        train_state, metrics = loop.iterate(loop.init(key))
        return train_state._replace(key=jax.random.key_data(train_state.key)), metrics

    keys = jax.random.split(jax.random.key(1), SEEDS)
    together = jax.jit(jax.vmap(first_iteration))(keys)
    alone = jax.jit(first_iteration)
    for i in range(SEEDS):
        expected.assert_trees_close(pick(together, i), alone(keys[i]), 1e-5)
    kernels = together[0].algorithm.actors.params["torso"]["Dense_0"]["kernel"]
    assert kernels.dtype == np.float32
    assert float(jnp.abs(kernels[0] - kernels[1]).max()) > 0.1


# One trace.


def test_changed_hyperparameters_neither_retrace_nor_recompile():
    """Learning rates given to `init` or written into the state, as Python floats or arrays; the state is fed back."""
    algo = learner()
    batch = jax.tree.map(
        lambda x: x.astype(np.float32) if x.dtype.kind == "f" else x,
        problems.random_batch(algo, problems.random_state(algo, 0), 0),
    )
    chex.clear_trace_counter()
    init = jax.jit(chex.assert_max_traces(algo.init, n=1), compiler_options=problems.QUICK)
    update = jax.jit(chex.assert_max_traces(algo.update, n=1), compiler_options=problems.QUICK)
    start = {lr: init(jax.random.key(0), algo.hyperparameters.replace(actor_lr=lr)) for lr in (1e-3, 2e-3, 5e-2)}
    moved = []
    for state in start.values():
        state, _ = update(jax.random.key(1), state, batch)
        moved.append(state.actors.params["logits"]["kernel"] - start[1e-3].actors.params["logits"]["kernel"])
        faster = state._replace(hyperparameters=state.hyperparameters.replace(actor_lr=jnp.asarray(0.3, float)))
        update(jax.random.key(2), update(jax.random.key(2), faster, batch)[0], batch)
    assert init._cache_size() == update._cache_size() == 1
    np.testing.assert_allclose(jnp.linalg.norm(moved[1]), 2 * jnp.linalg.norm(moved[0]), rtol=0.2)
    with pytest.raises(AssertionError, match="traced"):  # a test of the test: another shape is another trace
        update(jax.random.key(1), start[1e-3], jax.tree.map(lambda x: x[:2], batch))


# No LAPACK.

FOREIGN = re.compile(
    r"custom_call @(\w+)|(\w*(?:lapack|geqrf|orgqr|householder|getrf|potrf|cholesky|syevd|gesdd)\w*)", re.I
)


def foreign_calls(function, *args) -> set[str]:
    text = jax.jit(function).lower(*args).as_text()
    assert "func.func public @main" in text
    return {a or b for a, b in FOREIGN.findall(text)}


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_vmapped_init_and_update_call_no_lapack(memory):
    algo = learner(memory=memory, chunk_length=2)
    keys = jax.random.split(jax.random.key(0), SEEDS)
    batch = problems.random_batch(algo, problems.random_state(algo, 0), 0)
    states = jax.eval_shape(jax.vmap(algo.init), keys)
    assert foreign_calls(jax.vmap(algo.init), keys) == set()
    assert foreign_calls(jax.vmap(algo.update), keys, states, stack([batch] * SEEDS)) == set()
    # A test of the test: flax's orthogonal initializer is found.
    decomposed = foreign_calls(jax.vmap(lambda key: jax.nn.initializers.orthogonal()(key, (4, 3))), keys)
    assert any("geqrf" in name for name in decomposed)


# The orthogonal initializer.


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", [(6, 3), (3, 6), (5, 5), (2, 3, 4), (1, 4), (4, 1)])
@pytest.mark.parametrize("scale", [1.0, 0.01, 2**0.5])
def test_kernels_are_orthogonal(shape, scale):
    kernel = np.asarray(orthogonal(scale)(jax.random.key(0), shape)).reshape(-1, shape[-1]) / scale
    small = kernel if kernel.shape[0] <= kernel.shape[1] else kernel.T
    np.testing.assert_allclose(small @ small.T, np.eye(len(small)), 0, 1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("rows", "columns"), [(6, 3), (6, 4), (4, 6), (5, 5)])
def test_masked_kernels_are_orthogonal_on_the_rows_that_exist(rows, columns):
    """For any number of existing rows from 1 to all, in any position."""
    init = jax.jit(lambda key, mask: orthogonal(0.5, mask)(key, (rows, columns)))
    for live in range(1, rows + 1):
        mask = np.random.default_rng(live).permutation(np.arange(rows) < live)
        kernel = np.asarray(init(jax.random.key(live), mask)) / 0.5
        assert not kernel[~mask].any()
        own = kernel[mask]
        small = own if live <= columns else own.T
        np.testing.assert_allclose(small @ small.T, np.eye(len(small)), 0, 1e-12)


@pytest.mark.usefixtures("float64")
def test_nearly_dependent_rows_stay_orthogonal_and_zero_rows_zero():
    from hajax.nn.initializers import orthonormalize_rows

    rng = np.random.default_rng(0)
    first = rng.normal(size=6)
    rows = np.stack([first, first + 1e-9 * rng.normal(size=6), np.zeros(6), rng.normal(size=6)])
    basis = np.asarray(orthonormalize_rows(jnp.asarray(rows)))
    np.testing.assert_allclose(basis @ basis.T, np.diag([1, 1, 0, 1]), 0, 1e-12)
    assert not basis[2].any()
    np.testing.assert_allclose(basis[0], first / np.linalg.norm(first), 0, 1e-12)


@pytest.mark.parametrize("shape", [(4, 4), (3, 4), (4, 3)])
def test_kernels_are_haar_distributed(shape):
    """Moments of the Haar measure: E q = 0, E q² = 1/n, E q⁴ = 3/(n(n+2)), E q_ij² q_ik² = 1/(n(n+2)).

    Also det = ±1 equally often, and invariance: a rotated kernel has the same distribution, tested by the fourth
    moments of its entries.
    """
    n, draws = max(shape), 20000
    kernels = jax.jit(jax.vmap(lambda key: orthogonal()(key, shape)))(jax.random.split(jax.random.key(3), draws))
    q = np.asarray(kernels, float)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(shape[0], shape[0])))
    for sample in (q, rotation @ q):
        np.testing.assert_allclose(sample.mean(0), 0, 0, 5 / np.sqrt(n * draws))
        along = 0 if shape[0] == n else 1  # whole vectors of the orthonormal set lie along this axis
        np.testing.assert_allclose((sample**2).mean(0), 1 / n, 0, 0.012)
        np.testing.assert_allclose((sample**4).mean(0), 3 / (n * (n + 2)), 0, 0.012)
        product = np.take(sample, 0, 1 + along) ** 2 * np.take(sample, 1, 1 + along) ** 2
        np.testing.assert_allclose(product.mean(0), 1 / (n * (n + 2)), 0, 0.006)
    if shape[0] == shape[1]:
        assert abs(np.sign(np.linalg.det(q)).mean()) < 5 / np.sqrt(draws)
