"""Loading of run directories: the team and the trained state of one seed, or its policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax

from hajax.runs.errors import Refusal, refusing
from hajax.runs.files import run_directory
from hajax.runs.resume import read_settings
from hajax.runs.settings import TrainSettings
from hajax.runs.team import Team, build
from hajax.runs.trials import make_trials
from hajax.training.checkpoints import read_checkpoint, restore
from hajax.training.policy import Policy


class LoadedRun(NamedTuple):
    """A trained run. `states` is the learner state with a leading axis over `seeds`."""

    settings: TrainSettings
    team: Team
    states: Any
    seeds: tuple[int, ...]
    step: int  # environment steps per seed that had been trained when the checkpoint was saved

    def state(self, seed: int) -> Any:
        """The learner state of one seed.

        Raises:
            ValueError: the run has no such seed.
        """
        if seed not in self.seeds:
            raise Refusal(f"seed={seed}; allowed: the run's seeds, {', '.join(map(str, self.seeds))}")
        return jax.tree.map(lambda x: x[self.seeds.index(seed)], self.states)


def load_run(run_dir: str | Path, checkpoint: int | str = "last") -> LoadedRun:
    """The run in `run_dir`, with the parameters of the checkpoint at that step, or of the last one.

    Arrays are converted to this program's precision: a policy trained in float32 also acts with `jax_enable_x64`.

    Raises:
        ValueError: there is no run, or no such checkpoint, or it is damaged or of a newer version.
    """
    path = run_directory(run_dir)
    settings = read_settings(path)
    with refusing():
        found = read_checkpoint(path / "checkpoints", checkpoint)
        team = build(settings)
        keys, hyperparameters, _ = make_trials(team, settings.seeds)
        shapes = jax.eval_shape(jax.vmap(team.algorithm.init), keys, hyperparameters)
        states = restore(found, shapes, under="train/algorithm/", cast=True)
    return LoadedRun(
        settings, team, states, tuple(range(settings.seed, settings.seed + settings.num_seeds)), found.step
    )


def load_policy(run_dir: str | Path, seed: int | None = None, checkpoint: int | str = "last") -> Policy:
    """The policy of a trained run, for use outside hajax.

        policy = hajax.load_policy("runs/spread")
        memory = policy.initial_memory()
        actions, memory = policy(observations, memory)

    Args:
        run_dir: the run's directory.
        seed: one of the run's seeds; its first by default.
        checkpoint: the step of a checkpoint in `run_dir/checkpoints`, or `"last"`.

    Raises:
        ValueError: there is no run, or no such seed or checkpoint, or the checkpoint is damaged or of a newer version.
    """
    loaded = load_run(run_dir, checkpoint)
    state = loaded.state(loaded.seeds[0] if seed is None else seed)
    return Policy(loaded.team.algorithm, state, loaded.team.env.observe)
