"""Resuming: bit for bit after any death, with the settings of the run, or refused."""

import contextlib
import csv
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from tiny import TINY, TINY_OFF_POLICY

import hajax
from hajax.cli import main
from hajax.envs.base import Environment, timestep
from hajax.envs.regulator import dynamics
from hajax.runs import runner, stages
from hajax.runs.directory import lock
from hajax.runs.interrupt import stop_on_interrupt
from hajax.runs.loading import load_run
from hajax.runs.trials import seed_keys
from hajax.training.checkpoints import list_checkpoints, read_checkpoint, restore

pytestmark = pytest.mark.usefixtures("shared_programs", "working_directory")


def train(*arguments: str) -> int:
    return main(["train", *TINY, *arguments])


def rows(directory, name="metrics.csv") -> list[dict[str, str]]:
    with open(directory / name, newline="") as file:
        return list(csv.DictReader(file))


def contents(directory) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def assert_same_run(a, b):
    """Bitwise: the last checkpoint's arrays by their SHA-256, and the metrics."""
    assert (a / "metrics.csv").read_bytes() == (b / "metrics.csv").read_bytes()
    first, second = read_checkpoint(a / "checkpoints"), read_checkpoint(b / "checkpoints")
    assert first.step == second.step
    assert first.arrays == second.arrays
    assert len(first.arrays) > 50


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A finished run of 5 iterations; tests that change it work on a copy."""
    path = tmp_path_factory.mktemp("runs") / "short"
    assert train(f"out_dir={path}", "total_steps=160", "eval_interval=64") == 0
    return path


@pytest.fixture
def run(short, working_directory):
    shutil.copytree(short, working_directory / "run")
    return working_directory / "run"


# Slows a run down, so that there is something to kill, and dies in the middle of a checkpoint if told to.
VICTIM = """
import os, signal, sys, time
from hajax.cli import main
from hajax.runs import runner
from hajax.training import checkpoints
arguments, deadly_write = sys.argv[2:], int(sys.argv[1])
write_manifest, writes = checkpoints.write_manifest, 0
def killed(*args):
    global writes
    writes += 1
    time.sleep(0.05)
    if writes == deadly_write:
        os.kill(os.getpid(), signal.SIGKILL)
    return write_manifest(*args)
checkpoints.write_manifest = killed
sys.exit(main(["train", *arguments]))
"""
LONG = ["total_steps=64000", "eval_interval=6400", "checkpoint.keep=2"]
LONG_OFF_POLICY = ["total_steps=6440", "eval_interval=640", "checkpoint.keep=2"]


@pytest.mark.parametrize(
    ("settings", "deaths"),
    [
        pytest.param([*TINY, *LONG], 3, id="on"),
        pytest.param([*TINY_OFF_POLICY, *LONG_OFF_POLICY], 3, id="off_policy", marks=pytest.mark.evidence),
        pytest.param([*TINY, *LONG], 5, id="on, more often", marks=pytest.mark.evidence),
    ],
)
def test_killed_several_times_and_still_the_same_run(settings, deaths, working_directory):
    """`kill -9` at random moments, and once during the write of a checkpoint; the replay is part of the run."""
    assert main(["train", *settings, "out_dir=whole"]) == 0
    killed, random_moments = working_directory / "killed", random.Random(0)

    def evaluations() -> int:
        return (killed / "timing.csv").read_text().count("\n") - 1 if (killed / "timing.csv").exists() else 0

    for death in range(deaths):
        deadly_write = 2 if death == 2 else 0
        command = [sys.executable, "-c", VICTIM, str(deadly_write), *settings, "out_dir=killed", "resume=auto"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        if not deadly_write:
            wanted = evaluations() + random_moments.randrange(1, 3)
            # The first time while it compiles, later after one or two more evaluations.
            while not (killed / "config.yaml").exists() if death == 0 else evaluations() < wanted:
                assert process.poll() is None, process.communicate()
                time.sleep(0.002)
            time.sleep(random_moments.uniform(0, 0.1))
            process.kill()
        _, err = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, err
    assert 2 <= evaluations() < 11
    assert main(["train", *settings, "out_dir=killed", "resume=true"]) == 0
    assert_same_run(working_directory / "whole", working_directory / "killed")
    assert len(list_checkpoints(working_directory / "killed" / "checkpoints")) == 2
    assert json.loads((working_directory / "killed" / "summary.json").read_text())["status"] == "finished"


def test_a_checkpoint_without_the_replay_goes_on_with_a_new_one(working_directory, capsys):
    """It says so, keeps what was learned and where the environments stood, and steps count on."""
    settings = [*TINY_OFF_POLICY, "total_steps=360", "eval_interval=160", "checkpoint.replay=false", "out_dir=run"]
    assert main(["train", *settings]) == 0
    saved = read_checkpoint(working_directory / "run" / "checkpoints")
    assert not any("replay" in name for name in saved.arrays)
    capsys.readouterr()
    more = ["total_steps=520", "resume=true", "checkpoint.replay=true", "out_dir=run"]
    assert main(["train", *settings[:-2], *more]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "the checkpoint at 360 steps was saved without the replay (checkpoint.replay=false)" in said
    assert "40 random steps" in said
    assert [int(row["step"]) for row in rows(working_directory / "run")][::2] == [40, 200, 360, 520]
    whole = read_checkpoint(working_directory / "run" / "checkpoints")
    assert any("replay/rows/observation" in name for name in whole.arrays)
    # Its first step is one of the environments that the new replay has seen.
    loop = load_run("run").team.loop
    keys = seed_keys(0, 2)
    state = restore(whole, jax.eval_shape(jax.vmap(loop.init), keys), under="train/")
    rows_, drift_and_force = state.replay.rows, dynamics(2)
    for seed, env in itertools.product(range(2), range(4)):
        capacity = state.replay.row_of.shape[-1]
        for k in range(int(state.replay.oldest[seed]), int(state.replay.steps[seed])):
            row = env * capacity + int(state.replay.row_of[seed, env, k % capacity]) % capacity
            after = env * capacity + (int(state.replay.row_of[seed, env, k % capacity]) + 1) % capacity
            position, force = rows_.observation[seed, row, 0], rows_.action[seed, row, :, 0]
            expected = drift_and_force[0] @ position + drift_and_force[1] @ force
            np.testing.assert_allclose(rows_.observation[seed, after, 0], expected, atol=1e-5)
    # Its random steps are others than those that filled the first.
    first = jax.jit(jax.vmap(loop.init))(keys).replay.rows.observation
    assert not np.isclose(rows_.observation[:, 0], first[:, 0]).all(-1).any()


def test_killed_inside_the_first_checkpoint_of_an_off_policy_run(working_directory):
    """Its first evaluation comes after the warm-up, and there is nothing yet to go on from: it starts again."""
    settings = [*TINY_OFF_POLICY, "total_steps=104", "eval_interval=32", "out_dir=run", "resume=auto"]
    process = subprocess.run([sys.executable, "-c", VICTIM, "1", *settings], capture_output=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert [int(row["step"]) for row in rows(working_directory / "run", "timing.csv")] == [40]
    assert main(["train", *settings]) == 0
    assert [int(row["step"]) for row in rows(working_directory / "run", "timing.csv")] == [40, 72, 104]


def test_interrupted_and_resumed_is_the_same_run(working_directory):
    settings = [*TINY, "total_steps=800000", "eval_interval=400000"]
    command = [sys.executable, "-m", "hajax", "train", *settings, "out_dir=stopped"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    first = working_directory / "stopped" / "checkpoints" / f"{0:012d}"
    deadline = time.monotonic() + 120
    while not first.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.4)  # into the first chunk, which takes about two seconds
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    step = list_checkpoints(working_directory / "stopped" / "checkpoints")[-1]
    assert 0 < step < 800_000
    assert step != 400_000
    summary = json.loads((working_directory / "stopped" / "summary.json").read_text())
    assert (summary["status"], summary["total_steps"]) == ("interrupted", step)
    assert {int(row["step"]) for row in rows(working_directory / "stopped")} == {0, *range(400_000, step, 400_000)}
    assert main(["train", "out_dir=stopped", "resume=true", "progress=false"]) == 0
    assert main(["train", *settings, "out_dir=whole"]) == 0
    assert_same_run(working_directory / "stopped", working_directory / "whole")


SENT = [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU]


@pytest.fixture
def terminal():
    """SIGHUP is not ignored, as it is if the tests themselves run under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", SENT)
def test_what_clusters_and_closed_terminals_send_stops_as_ctrl_c_does(number):
    before = signal.getsignal(number)
    with stop_on_interrupt() as stop:
        os.kill(os.getpid(), number)
        assert stop.wait(5)
        if number == signal.SIGTERM:
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
        else:
            os.kill(os.getpid(), number)  # a second warning; what is being saved goes on
    assert signal.getsignal(number) == before


def test_nohup_is_left_alone():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_interrupt() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
            assert not stop.is_set()
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_between_two_checkpoints_loses_nothing(number, run, monkeypatch):
    """The run saves where it is, says that it was interrupted, and goes on from there."""
    advance = runner.TrainingProgress.advance

    def warned(bar, step, seconds):
        advance(bar, step, seconds)
        if step == 96:
            os.kill(os.getpid(), number)

    shutil.rmtree(run)
    with monkeypatch.context() as patch:
        patch.setattr(runner.TrainingProgress, "advance", warned)
        assert train("out_dir=run", "total_steps=160", "eval_interval=64") == 130
    assert list_checkpoints(run / "checkpoints")[-1] == 96
    assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"
    assert train("out_dir=run", "resume=true") == 0
    assert json.loads((run / "summary.json").read_text())["total_steps"] == 160


def test_rows_newer_than_the_checkpoint_are_dropped(run, working_directory):
    before = (run / "metrics.csv").read_bytes()
    shutil.rmtree(run / "checkpoints" / f"{160:012d}")
    with open(run / "metrics.csv", "a") as file:
        file.write("192,0,1.0")  # half a row, as a dying process leaves it
    assert main(["train", f"out_dir={run}", "resume=true", "progress=false"]) == 0
    assert (run / "metrics.csv").read_bytes() == before
    assert [row["step"] for row in rows(run, "timing.csv")] == ["0", "64", "128", "160"]


def test_killed_before_the_first_checkpoint_starts_again(run):
    before = (run / "metrics.csv").read_bytes()
    shutil.rmtree(run / "checkpoints")
    for name in ("metrics.csv", "timing.csv"):
        lines = (run / name).read_text().splitlines(keepends=True)
        (run / name).write_text("".join(line for line in lines if line.startswith(("step", "0,"))))
    assert main(["train", f"out_dir={run}", "resume=true", "progress=false"]) == 0
    assert (run / "metrics.csv").read_bytes() == before


def test_more_steps(run, working_directory):
    assert main(["train", f"out_dir={run}", "resume=true", "total_steps=320"]) == 0
    assert train("out_dir=whole", "total_steps=320", "eval_interval=64") == 0
    longer, whole = (read_checkpoint(path / "checkpoints") for path in (run, working_directory / "whole"))
    assert (longer.step, longer.arrays) == (whole.step, whole.arrays)
    assert yaml.safe_load((run / "config.yaml").read_text())["total_steps"] == 320
    seconds = [float(row["wall_seconds"]) for row in rows(run, "timing.csv")]
    assert seconds == sorted(seconds)  # over all sessions of the run


@pytest.mark.parametrize(
    "settings",
    [["algo=hasac"], ["algo=maddpg", "algo.exploration=ou", "algo.sharing=all", "algo.normalize_observations=true"]],
    ids=["temperatures", "noise and statistics"],
)
def test_more_steps_of_an_off_policy_run(settings, working_directory):
    """What else such algorithms remember is part of the run too."""
    settings = [*TINY_OFF_POLICY, *settings, "num_seeds=1", "eval_interval=64"]
    assert main(["train", *settings, "out_dir=run", "total_steps=168"]) == 0
    assert main(["train", "out_dir=run", "resume=true", "total_steps=296"]) == 0
    assert main(["train", *settings, "out_dir=whole", "total_steps=296"]) == 0
    assert_same_run(working_directory / "run", working_directory / "whole")


def test_a_finished_run_is_left_as_it_is(run, monkeypatch, capsys):
    monkeypatch.setattr("hajax.runs.runner.compile_programs", None)
    before = contents(run)
    assert main(["train", f"out_dir={run}", "resume=true"]) == 0
    assert "160 steps per seed" in capsys.readouterr().out
    assert contents(run) == before


def test_what_does_not_touch_the_results_may_change(run):
    (run / "summary.json").unlink()  # or there would be nothing left to do
    free = ["checkpoint.keep=1", "compilation_cache=false", "progress=false", "on_non_finite=continue"]
    assert main(["train", f"out_dir={run}", "resume=true", *free, "seed=0", "algo=happo", "algo.clip=0.2"]) == 0
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["checkpoint"]["keep"] == 1
    assert settings["algo"]["hidden_sizes"] == [8]  # not given, so as the run was started


def test_an_evaluation_that_came_after_its_checkpoint_is_done_again(working_directory, monkeypatch):
    """Stopped between evaluations, lengthened so that the place becomes one, and killed before the next checkpoint."""
    started = [*TINY, "total_steps=320", "eval_interval=128", "out_dir=run"]
    stop, advance = threading.Event(), runner.advance

    def interrupted(this, programs, run_state, target, event):
        if target == 4:
            target = 3
            run_state = advance(this, programs, run_state, target, threading.Event())
            stop.set()
        return advance(this, programs, run_state, target, event)

    monkeypatch.setattr(runner, "advance", interrupted)
    monkeypatch.setattr("hajax.cli.train.stop_on_interrupt", lambda: contextlib.nullcontext(stop))
    assert main(["train", *started]) == 130
    monkeypatch.undo()
    monkeypatch.chdir(working_directory)
    run = working_directory / "run"
    assert list_checkpoints(run / "checkpoints")[-1] == 96
    before = (run / "metrics.csv").read_text(), (run / "timing.csv").read_text()
    with open(run / "metrics.csv", "a") as metrics, open(run / "timing.csv", "a") as timing:
        for seed in (0, 1):
            metrics.write(f"96,{seed}" + "," * (before[0].splitlines()[0].count(",") - 1) + "\n")
        timing.write("96,1.0,1.0,1.0\n")
    assert main(["train", "out_dir=run", "resume=true"]) == 0
    assert [row["step"] for row in rows(run, "timing.csv")] == ["0", "128", "256", "320"]


def test_a_part_of_the_checkpoint_settings_leaves_the_others(run, capsys):
    assert main(["train", f"out_dir={run}", "resume=true", "checkpoint.interval=32", "total_steps=192"]) == 0
    capsys.readouterr()
    assert main(["train", "--print-config", f"out_dir={run}", "resume=true", "checkpoint.keep=7"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["checkpoint"] == {"interval": 32, "keep": 7, "replay": True}


def test_a_directory_in_use_is_refused(run, capsys):
    before = contents(run)
    with lock(run):
        assert main(["train", f"out_dir={run}", "resume=true", "total_steps=320"]) == 2
    assert f"out_dir={run} is in use by another process; allowed: one at a time" in capsys.readouterr().err
    assert contents(run) == before


def test_a_run_that_goes_on_has_no_summary_yet(run, monkeypatch):
    def crash(*args):
        raise RuntimeError

    monkeypatch.setattr("hajax.runs.runner.compile_programs", crash)
    with pytest.raises(RuntimeError):
        main(["train", f"out_dir={run}", "resume=true", "total_steps=320", "progress=false"])
    assert not (run / "summary.json").exists()
    assert not (run / ".lock").exists()


def test_a_missing_logger_matters_to_training_only(run, monkeypatch, capsys):
    settings = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(settings | {"logger": ["csv", "wandb"]}))
    monkeypatch.setattr("hajax.runs.loggers._is_installed", lambda package: False)
    assert main(["evaluate", str(run), "--episodes=2"]) == 0
    assert main(["train", f"out_dir={run}", "resume=true", "total_steps=320", "progress=false"]) == 2
    assert "logger=wandb needs wandb, which is not installed" in capsys.readouterr().err
    assert main(["train", f"out_dir={run}", "resume=true", "total_steps=192", "logger=csv", "progress=false"]) == 0


def test_auto_starts_and_goes_on(working_directory):
    for _ in range(2):
        assert train("out_dir=run", "total_steps=64", "resume=auto") == 0
    assert [int(row["step"]) for row in rows(working_directory / "run")] == [0, 0, 32, 32, 64, 64]


CHANGED = {
    "algo.clip=0.3": ("algo.clip=0.3", "algo.clip=0.2"),
    "algo=mappo": ("algo.name=mappo", "algo.name=happo"),
    "env=games/gaussian": ("env.name=games/gaussian", "env.name=games/hasac_matrix"),
    "seed=1": ("seed=1", "seed=0"),
    "num_seeds=3": ("num_seeds=3", "num_seeds=2"),
    "eval.episodes=5": ("eval.episodes=5", "eval.episodes=4"),
    "preset=harl/mpe": ("preset=harl/mpe", "preset=null"),
    "eval_interval=32": ("eval_interval=32", "eval_interval=64"),
    "total_steps=96": ("total_steps=96", "at least 160"),
    "resume=maybe": ("resume=maybe", "true, false or auto"),
}


@pytest.mark.parametrize("argument", CHANGED)
def test_changed_settings_are_refused_by_name(argument, short, capsys):
    given, allowed = CHANGED[argument]
    before = contents(short)
    resume = [] if argument.startswith("resume") else ["resume=true"]
    assert main(["train", f"out_dir={short}", *resume, argument]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("hajax train: ")
    assert given in err
    assert allowed in err
    assert contents(short) == before


def test_more_steps_are_refused_where_learning_rates_decay_over_the_run(working_directory, capsys):
    assert train("out_dir=run", "total_steps=64", "lr_decay=true") == 0
    before = contents(working_directory)
    assert main(["train", "out_dir=run", "resume=true", "total_steps=128"]) == 2
    assert "total_steps=128; allowed with lr_decay=true: 64" in capsys.readouterr().err
    assert contents(working_directory) == before


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def largest(path):
    """The largest file of a checkpoint's arrays, whose compressed data may be smaller than the manifest."""
    return max((file for file in (path / "arrays").rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def set_format(path, version):
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"format": 2', f'"format": {version}'))


def of_format_1(run, last):
    """A run of before 2, whose settings had other names."""
    set_format(last, 1)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("normalize_values", "normalise_values"))


DAMAGE = {
    "missing": (
        lambda run, last: shutil.rmtree(run / "checkpoints"),
        "holds no checkpoint",
        "a run that has saved one",
    ),
    "truncated": (lambda run, last: os.truncate(largest(last), 100), "damaged (100 bytes of", "as it was saved"),
    "bit-flipped": (lambda run, last: flip(largest(last)), "damaged (its SHA-256 differs)", "as it was saved"),
    "manifest missing": (lambda run, last: (last / "manifest.json").unlink(), "is missing", "as it was saved"),
    "manifest flipped": (lambda run, last: flip(last / "manifest.json"), "damaged", "as it was saved"),
    "future version": (lambda run, last: set_format(last, 99), "has format 99", "allowed: 2, which this hajax"),
    "earlier version": (of_format_1, "has format 1, written by hajax", "allowed: 2, which this hajax"),
    "rows missing": (lambda run, last: (run / "metrics.csv").unlink(), "has 0 rows up to step 160", "the 8"),
    "no configuration": (lambda run, last: (run / "config.yaml").unlink(), "holds no run", "the directory of a run"),
    "bad configuration": (lambda run, last: (run / "config.yaml").write_text("a: ["), "can't be read", "config.yaml"),
    "edited configuration": (
        lambda run, last: (run / "config.yaml").write_text((run / "config.yaml").read_text() + "num_seed: 3\n"),
        "num_seed=3",
        "did you mean num_seeds",
    ),
    "other agents": (
        lambda run, last: (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("- 8\n", "- 9\n")),
        "holds train/algorithm/actors/params/logits/kernel as float32[2, 2, 8, 3]",
        "float32[2, 2, 9, 3]",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_runs_are_refused_and_left_as_they_are(damage, run, capsys):
    spoil, found, allowed = DAMAGE[damage]
    spoil(run, run / "checkpoints" / f"{160:012d}")
    before = contents(run)
    assert main(["train", f"out_dir={run}", "resume=true", "total_steps=320", "progress=false"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert found in err
    assert allowed in err
    assert contents(run) == before


def test_resume_needs_a_run(working_directory, capsys):
    for arguments, expected in (
        (["resume=true"], "resume=true with out_dir=null; allowed: out_dir=DIR"),
        (["resume=true", "out_dir=nowhere"], "out_dir=nowhere holds no run; allowed"),
    ):
        assert train(*arguments) == 2
        assert expected in capsys.readouterr().err
    assert not list(working_directory.iterdir())


def poisoned(*, after: int = 20) -> Environment:
    """A one-step game that pays NaN from some step on, to the seeds whose environments drew a large number."""
    spec = hajax.EnvSpec(
        "test/poisoned", (hajax.AgentSpec("a", (1,), hajax.Discrete(2)),), state_size=1, max_steps=after
    )

    def show(state, **fields):
        return state, timestep(spec, jnp.ones((1, 1)), jnp.ones(1), **fields)

    def reset(key):
        return show((jnp.zeros((), int), jax.random.uniform(key)), first=True)

    def step(key, state, action):
        count, draw = state[0] + 1, state[1]
        reward = jnp.where((count >= after) & (draw > 0.9), jnp.nan, 1.0)
        return show((count, draw), joint_reward=reward, truncated=count >= after)

    return Environment(spec, reset, step)


class TestNonFinite:
    """Seed 2 of 0, 1, 2, 3 meets a NaN in its second iteration of 16 steps, and 1 and 3 in a later one."""

    SETTINGS = (
        "env=test/poisoned",
        "num_envs=1",
        "rollout_length=16",
        "num_seeds=4",
        "total_steps=160",
        "eval_interval=16",
        "eval.max_steps=2",
    )

    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch):
        monkeypatch.setattr(hajax.envs, "_registered", {})
        hajax.register_env("test/poisoned", poisoned)

    def test_stops_and_names_it(self, working_directory, capsys):
        arguments = [argument for argument in TINY if not argument.startswith(("env=", "num_"))]
        assert main(["train", *arguments, *self.SETTINGS, "out_dir=run"]) == 1
        run, err = working_directory / "run", capsys.readouterr().err
        summary = json.loads((run / "summary.json").read_text())
        assert summary["status"] == "diverged"
        failures = summary["non_finite"]
        assert failures
        steps = {failure["step"] for failure in failures}
        assert {failure["quantity"] for failure in failures} == {"the environment's reward"}
        assert len(steps) == 1
        (step,) = steps
        iteration = step // 16
        bad = [failure["seed"] for failure in failures]
        for failure in failures:
            assert failure["iteration"] == iteration
            assert (
                f"seed {failure['seed']} diverged: {failure['quantity']} is not finite since iteration {iteration} "
                f"(step {step:,}); last good checkpoint: step {summary['last_good_checkpoint']:,}"
            ) in err
            assert summary["eval_return"]["per_seed"][failure["seed"]] is None
        healthy = [seed for seed in range(4) if seed not in bad]
        assert healthy
        assert [int(row["seed"]) for row in rows(run) if int(row["step"]) == step] == healthy
        assert all(summary["eval_return"]["per_seed"][seed] == 2 for seed in healthy)
        assert list_checkpoints(run / "checkpoints")[-1] == step - 16
        capsys.readouterr()

        assert main(["train", "out_dir=run", "resume=true", "on_non_finite=continue", "progress=false"]) == 1
        summary = json.loads((run / "summary.json").read_text())
        assert summary["total_steps"] == 160
        last = [int(row["seed"]) for row in rows(run) if row["step"] == "160"]
        assert last
        assert set(last) == set(range(4)) - {failure["seed"] for failure in summary["non_finite"]}
        assert all(not any(value in ("nan", "inf") for value in row.values()) for row in rows(run))

    def test_stops_at_the_failure_however_long_the_slices_are(self, working_directory, monkeypatch):
        """One slice reaches from the start to the end, and yet all seeds stop where the first one failed."""
        arguments = [argument for argument in TINY if not argument.startswith(("env=", "num_"))]
        once = [*self.SETTINGS, "eval_interval=160", "env.after=40", "total_steps=1600"]
        metrics = []
        for name, seconds in (("long", 1e9), ("short", 0.0)):
            monkeypatch.setattr("hajax.runs.stages.SLICE_SECONDS", seconds)
            assert main(["train", *arguments, *once, f"out_dir={name}"]) == 1
            summary = json.loads((working_directory / name / "summary.json").read_text())
            assert {failure["step"] for failure in summary["non_finite"]} == {summary["total_steps"]}
            metrics.append((working_directory / name / "metrics.csv").read_bytes())
        assert metrics[0] == metrics[1]

    def test_ctrl_c_is_ctrl_c_also_after_a_failure(self, working_directory, monkeypatch):
        arguments = [argument for argument in TINY if not argument.startswith(("env=", "num_"))]
        stop = threading.Event()
        advance = runner.advance

        def interrupted_late(this, programs, run_state, target, event):
            if stages.iterations_of(run_state) >= 20:
                stop.set()
            return advance(this, programs, run_state, target, stop)

        monkeypatch.setattr(runner, "advance", interrupted_late)
        monkeypatch.setattr("hajax.cli.train.stop_on_interrupt", lambda: contextlib.nullcontext(stop))
        late = ["on_non_finite=continue", "total_steps=1600", "out_dir=run"]
        assert main(["train", *arguments, *self.SETTINGS, *late]) == 130
        summary = json.loads((working_directory / "run" / "summary.json").read_text())
        assert summary["status"] == "interrupted"
        assert summary["non_finite"]
        first = min(failure["step"] for failure in summary["non_finite"])
        assert summary["last_good_checkpoint"] is None or summary["last_good_checkpoint"] < first
