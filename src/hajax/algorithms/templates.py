"""Algorithms with a drift and a neighborhood that are chosen by name: `make_algorithm("haml", env, drift=…)`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from hajax.core.algorithm import Algorithm
from hajax.core.drifts import DRIFTS
from hajax.core.neighborhoods import NEIGHBORHOODS
from hajax.core.neighborhoods import adaptive as adaptive_coefficient
from hajax.core.off_policy.mehaml import mehaml
from hajax.core.off_policy.settings import EntropyHyperparameters, SoftSettings
from hajax.core.on_policy.haml import haml
from hajax.core.on_policy.settings import GradientHyperparameters, Hyperparameters, Settings, TrustRegionSettings
from hajax.core.settings import (
    AscentHyperparameters,
    BallSettings,
    ClipHyperparameters,
    CoefficientHyperparameters,
    combined,
)
from hajax.spec import EnvSpec
from hajax.validation import about, setting

# The hyperparameter class with each field that drifts read.
READ = {"clip": ClipHyperparameters, "drift_coef": CoefficientHyperparameters}


@dataclasses.dataclass(frozen=True)
class PartNames:
    """The parts of a mirror-learning algorithm, by name."""

    drift: str = setting("no_drift", "D: the penalty for moving away from the old policy", choices=tuple(DRIFTS))
    neighborhood: str = setting(
        "unrestricted",
        "the policies that an update may reach: all, by Adam; those in a KL ball; or those of one gradient step",
        choices=tuple(NEIGHBORHOODS),
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            about(type(self), field.name).checked(field.name, getattr(self, field.name))

    def read(self, base: Any, neighborhood: Any) -> Any:
        """A class with the hyperparameters of `base`, of the neighborhood and of the drift."""
        drift = [READ[name] for name in getattr(DRIFTS[self.drift], "reads", ())]
        return combined(base, neighborhood.hyperparameters, *drift)


@dataclasses.dataclass(frozen=True)
class Haml(PartNames):
    """HAML: heterogeneous-agent mirror learning with any drift and neighborhood.

    Without drift it is HAA2C, with `ppo_clip` it is HAPPO, and without drift in a `kl_ball` it is HATRPO.
    """

    adaptive: bool = setting(False, "the drift's coefficient follows the KL divergence of an agent's updates")

    def algorithm(self) -> Callable[..., Algorithm]:
        neighborhood = NEIGHBORHOODS[self.neighborhood]
        gradient = issubclass(neighborhood.hyperparameters, AscentHyperparameters)
        base = GradientHyperparameters if gradient else Hyperparameters  # gradient steps also have an entropy bonus
        read = self.read(base, adaptive_coefficient(neighborhood) if self.adaptive else neighborhood)
        ball = neighborhood.settings is BallSettings  # which has a joint budget on-policy
        owned = TrustRegionSettings if ball else combined(Settings, neighborhood.settings)

        def algorithm(
            spec: EnvSpec,
            settings: Any = owned(),
            hyperparameters: Any = read(),
            **networks: Any,
        ) -> Algorithm:
            parts: Any = {"drift": DRIFTS[self.drift], "neighborhood": neighborhood, "adaptive": self.adaptive}
            return haml("haml", spec, settings, hyperparameters, **parts, **networks)

        return algorithm


@dataclasses.dataclass(frozen=True)
class Mehaml(PartNames):
    """MEHAML: maximum-entropy mirror learning with any drift and neighborhood.

    Without drift it is HASAC.
    """

    def algorithm(self) -> Callable[..., Algorithm]:
        neighborhood = NEIGHBORHOODS[self.neighborhood]

        def algorithm(
            spec: EnvSpec,
            settings: Any = combined(SoftSettings, neighborhood.settings)(others="policy"),
            hyperparameters: Any = self.read(EntropyHyperparameters, neighborhood)(),
            **networks: Any,
        ) -> Algorithm:
            parts: Any = {"drift": DRIFTS[self.drift], "neighborhood": neighborhood}
            return mehaml("mehaml", spec, settings, hyperparameters, **parts, **networks)

        return algorithm
