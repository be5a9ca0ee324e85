"""Neighborhoods for `hajax.haml` and `hajax.mehaml`, and the types for new ones; see `hajax/core/neighborhoods.py`."""

from hajax.core.neighborhoods import (
    NEIGHBORHOODS,
    Neighborhood,
    Objective,
    PolicyObjective,
    gradient_step,
    kl_ball,
    mean_kl,
    unrestricted,
    with_hyperparameters,
)
from hajax.core.optimization import Learner, init_learner

__all__ = [
    "NEIGHBORHOODS",
    "Learner",
    "Neighborhood",
    "Objective",
    "PolicyObjective",
    "gradient_step",
    "init_learner",
    "kl_ball",
    "mean_kl",
    "unrestricted",
    "with_hyperparameters",
]
