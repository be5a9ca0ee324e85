"""Trains several seeds of HAPPO with several learning rates, by two vmaps of one pure function.

python examples/vmapped_seeds.py [--steps 200000] [--seeds 4]
"""

import argparse

import jax
import jax.numpy as jnp

import hajax


def main(steps: int, num_seeds: int) -> jax.Array:
    """Mean evaluation returns `[learning rates, seeds]`."""
    env = hajax.make_env("mpe/simple_spread")
    algo = hajax.make_algorithm("happo", env)
    train = hajax.make_train(env, algo, total_steps=steps)
    evaluate = hajax.make_evaluate(env, algo, num_episodes=100)

    rates = jnp.array([1e-4, 5e-4, 1e-3])
    numbers = algo.hyperparameters.replace(actor_lr=rates)
    only_rates = jax.tree.map(lambda _: None, algo.hyperparameters).replace(actor_lr=0)
    over_seeds = jax.vmap(train, in_axes=(0, None))
    over_both = jax.vmap(over_seeds, in_axes=(None, only_rates))

    train_key, evaluation_key = jax.random.split(jax.random.key(0))
    state, _ = jax.jit(over_both)(jax.random.split(train_key, num_seeds), numbers)
    over_states = jax.vmap(jax.vmap(evaluate, in_axes=(None, 0)), in_axes=(None, 0))
    returns = jax.jit(over_states)(evaluation_key, state)["episode_return"].mean(-1)
    for rate, row in zip(rates, returns, strict=True):
        print(f"actor_lr={rate:.0e}: " + "  ".join(f"{value:7.2f}" for value in row))
    return returns


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, default=4)
    arguments = parser.parse_args()
    main(arguments.steps, arguments.seeds)
