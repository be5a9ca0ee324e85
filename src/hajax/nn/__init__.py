"""Networks: the default torso and the memories, and the base class of a memory of one's own (`docs/networks.md`)."""

from hajax.nn.layers import MLP
from hajax.nn.memory import GRU, Memory
from hajax.nn.networks import TeamCritic

__all__ = ["GRU", "MLP", "Memory", "TeamCritic"]
