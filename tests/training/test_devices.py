"""Several devices: the results of one. The devices are virtual ones of the CPU, in processes of their own."""

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import TINY, TINY_OFF_POLICY
from trained_on_devices import MESHES

import hajax
from hajax.runs.devices import chosen, make_mesh, steps_on_host
from hajax.runs.errors import Refusal
from hajax.runs.settings import validate
from hajax.sharding import divided

SUPPORT = Path(__file__).resolve().parents[1] / "support"
# Four devices are many programs.
PLACES = [
    pytest.param(name, count, how, id=f"{name}-{count}-{how}", marks=[pytest.mark.evidence] if count == 4 else [])
    for count, meshes in MESHES.items()
    for how, (_, _, names) in meshes.items()
    for name in names
]


def run_python(*arguments):
    """The output of a Python process; its own errors on failure."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The learner states after three iterations, by the number of devices."""
    directory = tmp_path_factory.mktemp("devices")

    @functools.cache
    def started(count):
        command = [sys.executable, str(SUPPORT / "trained_on_devices.py"), str(count), str(directory / f"{count}.npz")]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    @functools.cache
    def on(count):
        started(1)  # beside the other
        _, errors = started(count).communicate(timeout=600)
        assert started(count).returncode == 0, errors[-4000:]
        return dict(np.load(directory / f"{count}.npz"))

    return on


@pytest.mark.parametrize(("name", "count", "how"), PLACES)
def test_parameters_are_those_of_one_device(trained, name, count, how):
    found, alone = trained(count), trained(1)
    paths = [path.removeprefix(f"{name}/one") for path in alone if path.startswith(f"{name}/one")]
    assert any("actors" in path for path in paths)
    assert any("critics" in path for path in paths)
    for path in paths:
        expected, actual = alone[f"{name}/one{path}"], found[f"{name}/{how}{path}"]
        # In float64; the sums of divided minibatches are added in another order.
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12 if how == "seeds" else 1e-6, err_msg=path)


@pytest.mark.parametrize(("name", "count", "how"), PLACES)
def test_devices_communicate_only_within_a_seed(trained, name, count, how):
    used = trained(count)[f"collectives/{name}/{how}"]
    assert bool(used.size) == (how != "seeds"), used


RUNS = """
import jax
jax.config.update("jax_num_cpu_devices", 4)
from hajax.cli import main
for arguments in {commands}:
    assert main(["train", *arguments]) == 0
"""


def test_a_run_goes_on_with_another_number_of_devices(tmp_path):
    """From the command line: two seeds on one device; and on two, and then on four, two for each seed."""
    settings = [*TINY_OFF_POLICY, "checkpoint.interval=180"]
    one, both = (str(tmp_path / name) for name in ("one", "both"))
    whole = [*settings, "total_steps=360", "devices=1", f"out_dir={one}"]
    first = [*settings, "total_steps=180", "devices=2", f"out_dir={both}"]
    then = ["resume=true", "total_steps=360", "devices=auto", f"out_dir={both}"]
    run_python("-c", RUNS.format(commands=[whole, first, then]))

    def read(directory):
        table = np.genfromtxt(f"{directory}/metrics.csv", delimiter=",", names=True)
        return table[-2:], json.loads(Path(directory, "summary.json").read_text())["device"]["count"]

    (expected, alone), (found, divided) = read(one), read(both)
    assert (alone, divided) == (1, 4)
    for column in ("step", "seed", "eval_return_mean", "train_episode_return", "train_value_loss"):
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-4, err_msg=column)


def test_a_population_on_several_devices(tmp_path):
    """Its points are on different devices, which exchange them. On one device, and on three with two trials each."""
    settings = [*TINY, "total_steps=96", "vmap={actor_lr: [1e-3,1e-2,1e-1]}", "pbt.interval=32", "checkpoint.keep=1"]
    commands = [[*settings, f"devices={count}", f"out_dir={tmp_path / str(count)}"] for count in (1, 3)]
    run_python("-c", RUNS.format(commands=commands))
    one, several = (np.genfromtxt(tmp_path / name / "grid.csv", delimiter=",", names=True) for name in ("1", "3"))
    assert json.loads((tmp_path / "3" / "summary.json").read_text())["device"]["count"] == 3
    assert (one["parent"] != one["point"]).sum() >= 4  # of two seeds, at two selections
    for column in ("step", "seed", "point", "parent", "actor_lr", "eval_return_mean", "train_value_loss"):
        np.testing.assert_allclose(several[column], one[column], rtol=1e-4, err_msg=column)


def settings_of(**given):
    return validate({"algo": {"name": "happo"}, "env": {"name": "games/memory"}, **given})


def test_the_number_of_devices():
    """By default as many as divide the seeds; more than there are seeds also divide the environments of each."""

    def number(available, **given):
        return chosen(settings_of(num_envs=20, **given), available)

    assert number(1, num_seeds=8) == (1, 1)
    assert number(4, num_seeds=8) == (4, 1)
    assert number(4, num_seeds=6) == (3, 1)
    assert number(8, num_seeds=2) == (8, 4)
    assert number(8, num_seeds=3) == (6, 2)
    assert number(8, num_seeds=2, shard="seeds") == (2, 1)
    assert number(8, num_seeds=8, shard="envs") == (5, 5)
    assert number(8, num_seeds=8, devices=2) == (2, 1)
    assert number(8, num_seeds=1, devices=2) == (2, 2)


PROVIDED = """
import jax
from hajax.runs.devices import provide_devices
from hajax.runs.settings import validate
provide_devices(validate({"algo": {"name": "happo"}, "env": {"name": "games/memory"}, "num_seeds": 6}))
print(jax.device_count())
"""


def test_a_cpu_has_as_many_devices_as_divide_the_seeds(monkeypatch):
    monkeypatch.setenv("NPROC", "4")
    assert run_python("-c", PROVIDED).split() == ["3"]


def test_devices_that_do_not_divide_are_refused():
    with pytest.raises(
        Refusal, match=re.escape("devices=3 with num_seeds=4, num_envs=6 and shard=auto; allowed: 1, 2, 4, 8, 12, 24")
    ):
        chosen(settings_of(num_seeds=4, num_envs=6, devices=3), 8)
    with pytest.raises(Refusal, match=re.escape("devices=0; allowed: a whole number >= 1, or auto")):
        settings_of(devices=0)
    with pytest.raises(Refusal, match=re.escape("shard=all; allowed: auto, seeds or envs")):
        settings_of(shard="all")


def test_environments_that_the_host_steps_are_not_divided(monkeypatch):
    """Those of MuJoCo in C. By default fewer devices are used."""
    env = hajax.make_env("mamujoco/half_cheetah_2x3", physics="mujoco")
    assert steps_on_host(env)
    assert not steps_on_host(hajax.make_env("games/memory"))
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    with pytest.raises(Refusal, match=r"mamujoco/half_cheetah_2x3 are stepped outside of JAX; allowed: 1, 2$"):
        make_mesh(settings_of(num_seeds=2, num_envs=4, devices=4), env)
    assert make_mesh(settings_of(num_seeds=1, num_envs=4), env) is None


def test_devices_that_jax_does_not_have_are_refused():
    with pytest.raises(Refusal, match="devices=2; allowed: at most 1, the devices that JAX has here"):
        make_mesh(settings_of(num_seeds=2, devices=2), hajax.make_env("games/memory"))


def test_seeds_that_the_devices_do_not_divide_are_refused():
    mesh = jax.sharding.AbstractMesh((3,), ("seeds",))
    with pytest.raises(ValueError, match="8 seeds on 3 devices; allowed: a multiple of 3"):
        jax.eval_shape(hajax.shard(jax.vmap(lambda x: x), mesh), np.zeros(8))


def test_without_such_an_axis_nothing_is_annotated():
    x = np.zeros((4, 2))
    assert divided(x) is x
