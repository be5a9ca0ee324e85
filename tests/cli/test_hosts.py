"""A run over several processes: the files of a run of one, and what happens when one of them is lost."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from tiny import TINY, TINY_OFF_POLICY

from hajax.cli import main
from hajax.runs import hosts
from hajax.runs.tables import read_rows

# 300 iterations, an evaluation and a checkpoint after every 30.
RUN = [*TINY, "total_steps=9600", "eval_interval=960", "checkpoint.keep=10"]
ONE_THREAD = os.environ | {"NPROC": "1"}


def command(directory, settings):
    return [sys.executable, "-m", "hajax", "train", *settings, f"out_dir={directory}"]


def alone(directory, settings):
    """One process with two devices."""
    done = subprocess.run(
        command(directory, [*settings, "devices=2"]), capture_output=True, text=True, env=ONE_THREAD, check=False
    )
    assert done.returncode == 0, done.stderr


def started(directory, settings, processes=2, second=()):
    """Processes of one run, which share a machine; `second` are other settings of the second one."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    return [
        subprocess.Popen(
            command(
                directory,
                [*settings, *(second if index == 1 else ()), f"distributed=127.0.0.1:{port}/{index}/{processes}"],
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ONE_THREAD | {"JAX_COORDINATOR_BIND_ADDRESS": f"127.0.0.1:{port}"},  # also where there is no IPv6
        )
        for index in range(processes)
    ]


def finished(processes):
    """What they printed on standard error."""
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    return errors


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The directory of an uninterrupted run of one process."""
    directory = tmp_path_factory.mktemp("alone") / "run"
    alone(directory, RUN)
    return directory


def killed(directory, victim):
    """Kills one of two processes after the third checkpoint; returns what the other printed as it ended."""
    processes = started(directory, RUN)
    try:
        deadline = time.monotonic() + 300
        while len(list((directory / "checkpoints").glob("0*"))) < 3:
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in processes)
            time.sleep(0.01)
        processes[victim].send_signal(signal.SIGKILL)
        other = processes[1 - victim]
        _, errors = other.communicate(timeout=60)
        assert other.returncode in (1, -signal.SIGABRT)
        return errors
    finally:
        for process in processes:
            process.kill()


@pytest.mark.evidence
def test_two_processes_write_what_one_writes(whole, tmp_path):
    _, silent = finished(started(tmp_path / "run", RUN))
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert {file.name for file in (tmp_path / "run").iterdir()} == {file.name for file in whole.iterdir()}
    assert "distributed: false" in (tmp_path / "run" / "config.yaml").read_text()
    assert silent == ""  # the first one prints


@pytest.mark.evidence
@pytest.mark.parametrize("settings", [TINY, TINY_OFF_POLICY], ids=["happo", "hatd3"])
def test_the_environments_of_one_seed_are_divided_among_processes(tmp_path, settings):
    settings = [*settings, "num_seeds=1", "total_steps=320", "eval_interval=160"]
    alone(tmp_path / "one", settings)
    finished(started(tmp_path / "two", settings))
    (columns, one), (_, two) = (read_rows(tmp_path / name / "metrics.csv", ()) for name in ("one", "two"))
    one, two = ([[row[name] for name in columns] for row in rows] for rows in (one, two))
    np.testing.assert_allclose(two, one, 1e-4, 1e-4)


@pytest.mark.evidence
def test_a_lost_process_ends_the_others_and_the_run_goes_on(whole, tmp_path):
    errors = killed(tmp_path / "run", victim=1)
    (line,) = errors.splitlines()
    assert line.startswith(f"hajax train: {hosts.LOST} (")
    subprocess.run(["cp", "-r", tmp_path / "run", tmp_path / "other"], check=True)
    alone(tmp_path / "run", [*RUN, "resume=true"])
    finished(started(tmp_path / "other", [*RUN, "resume=true"]))
    expected = (whole / "metrics.csv").read_bytes()
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == expected
    assert (tmp_path / "other" / "metrics.csv").read_bytes() == expected


@pytest.mark.evidence
def test_if_the_first_process_is_lost_the_output_of_the_abort_is_one_line(tmp_path):
    (line,) = killed(tmp_path / "run", victim=0).splitlines()
    assert line.startswith(f"hajax train: {hosts.LOST}")


@pytest.mark.evidence
def test_a_signal_to_one_process_stops_all_of_them(tmp_path):
    processes = started(tmp_path / "run", [*RUN, "total_steps=960_000"])
    try:
        deadline = time.monotonic() + 300
        while not list((tmp_path / "run" / "checkpoints").glob("0*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        processes[1].send_signal(signal.SIGTERM)
        for process in processes:
            process.communicate(timeout=60)
            assert process.returncode == 130
    finally:
        for process in processes:
            process.kill()


def test_a_run_of_one_process_has_its_devices(tmp_path):
    """Those of the CPU are chosen after it has joined."""
    (process,) = started(tmp_path / "run", [*TINY, "total_steps=64", "devices=2"], 1)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["device"]["count"] == 2


def test_processes_with_other_settings_are_refused(tmp_path):
    processes = started(tmp_path / "run", [*TINY, "total_steps=64"], second=["seed=7", "algo.actor_lr=0.3"])
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert errors[0] == "hajax train: process 1 has other settings than the first; see its error\n"
    assert errors[1].startswith("hajax train: other settings than the first process: algo.actor_lr=0.3 where it has ")
    assert "; seed=7 where it has 0; allowed: the same in all processes" in errors[1]
    assert not (tmp_path / "run").exists()


@pytest.mark.evidence
def test_what_the_first_process_refuses_ends_all(whole):
    processes = started(whole, RUN)
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert "already holds a run" in errors[0]
    assert errors[1] == "hajax train: the first process has refused the run; see its error\n"


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("UNKNOWN: Gloo AllGather failed: Connection closed by peer [127.0.0.1]:41640", True),
        ("INTERNAL: NCCL operation ncclAllReduce failed: unhandled system error", True),
        ("Resource temporarily unavailable", False),
        ("checkpoint of step 3 was not saved: /data/peer/run", False),
    ],
)
def test_only_errors_of_communication_are_a_lost_process(text, lost):
    assert (hosts.UNREACHABLE.match(text) is not None) == lost


@pytest.mark.parametrize(
    ("value", "environment", "message"),
    [
        ("yes", {}, r"distributed=yes; allowed: false, auto or HOST:PORT/INDEX/COUNT"),
        ("localhost:1/2/2", {}, r"distributed=localhost:1/2/2; allowed: false, auto or HOST:PORT/INDEX/COUNT"),
        (
            "auto",
            {"JAX_COORDINATOR_ADDRESS": "localhost:1", "JAX_NUM_PROCESSES": "2"},
            r"distributed=auto with JAX_PROCESS_ID=; allowed: a whole number, as JAX_COORDINATOR_ADDRESS is set",
        ),
    ],
)
def test_places_that_are_refused(capsys, monkeypatch, value, environment, message):
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    assert main(["train", f"distributed={value}"]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_sweep_takes_no_other_processes(capsys):
    assert main(["train", "-m", "distributed=auto", "seed=0,1"]) == 2
    assert "distributed=auto with -m; allowed: a run of its own, without -m" in capsys.readouterr().err
