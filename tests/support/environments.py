"""The environments for the tests of the interface and of drawing, and random actions for them."""

import jax
import jax.numpy as jnp
import numpy as np

from hajax.envs import list_envs

UNEVEN_PAYOFF = np.arange(24.0).reshape(2, 3, 4) ** 2

OPTIONS = {
    "games/matrix": [{"payoff": UNEVEN_PAYOFF}, {"payoff": UNEVEN_PAYOFF, "max_steps": 4, "reward": "individual"}],
    "games/trap_of_homogeneity": [{"num_agents": 4}],
    "games/gaussian": [{}, {"max_steps": 3}],
    "mpe/simple_spread": [{"max_steps": 5}, {"max_steps": 5, "actions": "continuous", "reward": "individual"}],
    "mpe/simple_reference": [{"max_steps": 5}, {"max_steps": 5, "actions": "continuous"}],
    "mpe/simple_speaker_listener": [
        {"max_steps": 5, "state": "environment"},
        {"max_steps": 5, "actions": "continuous"},
    ],
    "mpe/spread_3_mix": [{"max_steps": 4, "actions": "continuous", "reward": "individual", "state": "environment"}],
    "mpe/rover_tower": [{"max_steps": 4, "state": "environment"}, {"max_steps": 3, "reward": "individual"}],
    "games/iterated_prisoners_dilemma": [{"max_steps": 4}, {"max_steps": 3, "reward": "team"}],
    "sisl/pursuit": [{"max_steps": 4, "num_agents": 3, "num_evaders": 4, "x_size": 6, "y_size": 5, "obs_range": 3}],
    "mamujoco/reacher_2x1": [{"max_steps": 3, "obs": "khop", "reward": "individual"}],
    "smax/3m": [{"max_steps": 4}, {"max_steps": 3, "state": "fp", "reward": "individual", "mirrored": True}],
    "smax/smacv2_5_units": [{"max_steps": 3, "opponent": "random"}],
}
# SMAX's scenarios share one function, and so do MAMuJoCo's robots. A few represent them here; their own tests make all.
NAMES = [name for name in list_envs() if not name.startswith(("smax/", "mamujoco/")) or name in OPTIONS]


def random_action(key, spec):
    """Actions `[N, D]`: uniform choices, and normal reals that are often outside the bounds; padding is filled too."""
    choice_key, real_key = jax.random.split(key)
    layout = spec.action_layout
    index = jnp.floor(jax.random.uniform(choice_key, layout.discrete.shape) * layout.choices.sum(-1))
    real = layout.center + 2 * layout.scale * jax.random.normal(real_key, layout.discrete.shape)
    return jnp.where(layout.discrete, index, real)
