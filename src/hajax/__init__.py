"""hajax: heterogeneous-agent reinforcement learning as pure JAX functions.

Names are imported on first use, so that `import hajax` costs nothing beyond itself.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hajax import drifts, neighborhoods, settings
    from hajax.algorithms import Algorithm, list_algorithms, make_algorithm, register_algorithm
    from hajax.cli.loading import load_policy
    from hajax.core.batches import OnPolicyBatch, on_policy_batch
    from hajax.core.drift_axioms import check_drift
    from hajax.core.haml import haml
    from hajax.core.mehaml import mehaml
    from hajax.core.transitions import OffPolicyBatch, off_policy_batch
    from hajax.envs import Environment, list_envs, make_env, register_env
    from hajax.spaces import Box, Discrete, MultiDiscrete
    from hajax.spec import AgentSpec, EnvSpec, Timestep
    from hajax.training import make_evaluate, make_loop, make_train

_HOMES = {
    "hajax": ("drifts", "neighborhoods", "settings"),
    "hajax.algorithms": ("Algorithm", "list_algorithms", "make_algorithm", "register_algorithm"),
    "hajax.cli.loading": ("load_policy",),
    "hajax.core.batches": ("OnPolicyBatch", "on_policy_batch"),
    "hajax.core.drift_axioms": ("check_drift",),
    "hajax.core.haml": ("haml",),
    "hajax.core.mehaml": ("mehaml",),
    "hajax.core.transitions": ("OffPolicyBatch", "off_policy_batch"),
    "hajax.envs": ("Environment", "list_envs", "make_env", "register_env"),
    "hajax.spaces": ("Box", "Discrete", "MultiDiscrete"),
    "hajax.spec": ("AgentSpec", "EnvSpec", "Timestep"),
    "hajax.training": ("make_evaluate", "make_loop", "make_train"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AgentSpec",
    "Algorithm",
    "Box",
    "Discrete",
    "EnvSpec",
    "Environment",
    "MultiDiscrete",
    "OffPolicyBatch",
    "OnPolicyBatch",
    "Timestep",
    "__version__",
    "check_drift",
    "drifts",
    "haml",
    "list_algorithms",
    "list_envs",
    "load_policy",
    "make_algorithm",
    "make_env",
    "make_evaluate",
    "make_loop",
    "make_train",
    "mehaml",
    "neighborhoods",
    "off_policy_batch",
    "on_policy_batch",
    "register_algorithm",
    "register_env",
    "settings",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'hajax' has no attribute {name!r}")
    value = import_module(f"{home}.{name}") if home == "hajax" else getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
