"""A Python session: train with progress, continue, save and load, plot and render. At a shell: `hajax train`."""

from hajax.session.pictures import plot, render
from hajax.session.presets import preset
from hajax.session.saving import load, save
from hajax.session.training import Training, train

__all__ = ["Training", "load", "plot", "preset", "render", "save", "train"]
