"""Sweeps whose runs are other processes: joblib's, and jobs of submitit that a cluster preempts."""

import contextlib
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import TINY_TRAINING

from hajax.cli.sweep import requeue, sharing_cores
from hajax.runs import config
from hajax.runs.errors import Refusal

HAJAX = [sys.executable, "-m", "hajax", "train", "-m", "num_seeds=1", "env=games/hasac_matrix", *TINY_TRAINING]


def sweep(directory, *overrides):
    """The finished process of a sweep into `directory`."""
    command = [*HAJAX, *overrides, f"out_dir={directory}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def results(directory):
    """The rows of every run of a sweep, by the name of its directory."""
    return {file.parent.name: file.read_bytes() for file in directory.glob("*/metrics.csv")}


def test_processes_make_the_runs_of_the_sequence_and_missing_ones_are_listed(tmp_path):
    swept = ["algo=happo,mappo", "total_steps=128"]
    alone = sweep(tmp_path / "alone", *swept)
    together = sweep(tmp_path / "together", *swept, "hydra/launcher=processes", "algo.actor_lr=0.0005,-1")
    assert alone.returncode == 0, alone.stderr
    expected, found = results(tmp_path / "alone"), results(tmp_path / "together")
    assert set(expected) == {"algo=happo", "algo=mappo"}
    assert found == {f"{name},actor_lr=0.0005": rows for name, rows in expected.items()}
    # Two of the four could not start.
    assert together.returncode == 1
    assert "2 of 4 runs failed" in together.stdout
    again = together.stdout.partition("make them again with:\n  ")[2].splitlines()[0]
    assert again.startswith("hajax train -m ")
    assert again.endswith(f"out_dir={tmp_path / 'together'} resume=auto")


def processes(pattern):
    """The numbers of the processes with that text in their commands."""
    found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def jobs_of(directory, *overrides):
    """A sweep by jobs of this machine, into `directory`."""
    command = [*HAJAX, *overrides, "hydra/launcher=submitit_local", f"out_dir={directory}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def opened_by(number):
    """The files that a process has open."""
    found = set()
    for link in Path(f"/proc/{number}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(link.readlink())
    return found


def wait_for_rows(under_way, job, rows):
    """Waits until a run has so many evaluations."""
    deadline = time.monotonic() + 300
    while not (job / "timing.csv").exists() or len((job / "timing.csv").read_text().splitlines()) <= rows:
        assert time.monotonic() < deadline
        assert under_way.poll() is None
        time.sleep(0.02)


@pytest.mark.parametrize("moments", [1, pytest.param(5, marks=pytest.mark.evidence)])
def test_a_preempted_job_is_queued_anew_and_ends_with_the_same_numbers(tmp_path, moments):
    swept = ["algo=happo", f"total_steps={moments * 12_800}", "eval_interval=1_280", "checkpoint.interval=12_800"]
    assert sweep(tmp_path / "alone", *swept, "seed=0,1").returncode == 0
    rng = random.Random(moments)
    with jobs_of(tmp_path / "jobs", *swept, "seed=0,1", "resume=auto") as under_way:
        for moment in range(moments):
            wait_for_rows(under_way, tmp_path / "jobs" / "seed=1", 10 * moment + 2)
            time.sleep(rng.uniform(0, 0.2))
            for number in processes(f"submitit.core._submit {tmp_path / 'jobs'}"):
                os.kill(number, signal.SIGTERM)
        out, _ = under_way.communicate(timeout=300)
    assert under_way.returncode == 0, out
    errors = "".join(file.read_text() for file in (tmp_path / "jobs" / ".submitit").glob("*/*.err"))
    assert errors.count("Requeued job") >= moments
    assert results(tmp_path / "jobs") == results(tmp_path / "alone")


@pytest.mark.evidence
def test_every_launcher_makes_the_same_runs_and_a_killed_job_is_made_again(tmp_path):
    """Two algorithms, two environments, two seeds."""
    swept = ["algo=happo,mappo", "env=games/hasac_matrix,games/trap_of_homogeneity", "seed=0,1"]
    swept += ["total_steps=16_000", "eval_interval=3_200"]
    assert sweep(tmp_path / "alone", *swept).returncode == 0
    expected = results(tmp_path / "alone")
    assert len(expected) == 8
    by_processes = sweep(tmp_path / "processes", *swept, "hydra/launcher=processes", "hydra.launcher.n_jobs=2")
    assert by_processes.returncode == 0, by_processes.stderr
    assert results(tmp_path / "processes") == expected

    victim = "env=games-trap_of_homogeneity,algo=mappo,seed=1"
    with jobs_of(tmp_path / "jobs", *swept) as under_way:
        wait_for_rows(under_way, tmp_path / "jobs" / victim, 2)
        for number in processes(f"submitit.core._submit {tmp_path / 'jobs'}"):
            if tmp_path / "jobs" / victim / ".lock" in opened_by(number):
                os.kill(number, signal.SIGKILL)
        out, _ = under_way.communicate(timeout=600)
    assert under_way.returncode == 1
    assert "1 of 8 runs failed" in out
    assert f"  {victim}: no results" in out
    again = shlex.split(out.partition("make them again with:\n  ")[2].splitlines()[0])
    done = subprocess.run([sys.executable, "-m", *again], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "jobs") == expected


def test_a_job_that_could_not_go_on_is_not_queued_anew(monkeypatch, capsys):
    requeue("auto")  # outside of submitit: nothing
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    requeue(False)
    assert "not queued anew: resume=auto, which it needs, was not given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("launcher", "runs", "threads"),
    [
        (["hydra/launcher=joblib"], 8, "1"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], 8, "3"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=-3"], 8, "1"),
        (["hydra/launcher=joblib"], 3, "2"),
        (["hydra/launcher=submitit_local"], 2, "3"),
        (["hydra/launcher=submitit_slurm"], 8, None),
        ([], 8, None),
    ],
)
def test_processes_share_the_cores(monkeypatch, launcher, runs, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.delenv("NPROC", raising=False)
    with sharing_cores(launcher, {str(k) for k in range(runs)}):
        assert os.environ.get("NPROC") == threads
    assert "NPROC" not in os.environ


def test_a_launcher_that_is_not_installed_is_refused():
    with pytest.raises(Refusal, match="hydra/launcher=ray is unknown; allowed: basic, joblib, processes, slurm"):
        config.launcher(["hydra/launcher=ray"])
