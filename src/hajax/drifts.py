"""Drift functionals for `hajax.haml` and `hajax.mehaml`, and the types for new ones; see `hajax/core/drifts.py`."""

from hajax.core.drifts import (
    DRIFTS,
    Drift,
    PolicyChange,
    kl_new_old,
    kl_old_new,
    no_drift,
    ppo_clip,
    reads,
    squared_log_ratio,
    tsallis,
)

__all__ = [
    "DRIFTS",
    "Drift",
    "PolicyChange",
    "kl_new_old",
    "kl_old_new",
    "no_drift",
    "ppo_clip",
    "reads",
    "squared_log_ratio",
    "tsallis",
]
