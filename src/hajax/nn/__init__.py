"""Networks: the default torso, memories, and the base classes of your own memories and critics (`docs/networks.md`)."""

from hajax.nn.layers import MLP
from hajax.nn.memory import GRU, Memory
from hajax.nn.networks import TeamCritic

__all__ = ["GRU", "MLP", "Memory", "TeamCritic"]
