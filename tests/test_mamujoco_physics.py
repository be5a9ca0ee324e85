"""MAMuJoCo's steps against Gymnasium's, in MuJoCo's C, from the same states, in float64."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from hajax.envs.mamujoco.robots import ROBOTS, find_robot

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))  # scripts that import each other
import mamujoco as measured
import mujoco_oracle


@pytest.mark.parametrize(
    ("name", "version"), [("half_cheetah_2x3", "v5"), ("reacher_2x1", "v5"), ("reacher_2x1", "v4")]
)
def test_a_step_is_mujoco_s(name, version):
    """All robots are in benchmarks/mamujoco.py; these compile fast."""
    with jax.enable_x64(True):
        given = mujoco_oracle.transitions(name.rsplit("_", 1)[0], version, 200)
        apart = measured.differences(measured.our_steps(name, version, given), given)
    assert apart["other_ends"] == 0
    for kind in ("free", "contact"):
        for field in measured.MEASURED if apart[kind]["steps"] else ():
            assert apart[kind][field]["max"] < 1e-9, (kind, field)
    assert apart["free"]["steps"] + apart["contact"]["steps"] == 200


def assert_same_model(own, theirs):
    """Every number of a model but names, pictures and the sizes of buffers."""
    for field in dir(theirs):
        value = getattr(theirs, field)
        drawn = field.startswith(("name", "mat_", "tex_", "site_size", "tendon_rgba"))
        if isinstance(value, np.ndarray) and value.dtype != object and not drawn and field != "_sizes":
            np.testing.assert_array_equal(getattr(own, field), value, err_msg=field)


@pytest.mark.parametrize("version", ["v4", "v5"])
@pytest.mark.parametrize("robot", [robot for robot in ROBOTS if robot != "coupled_half_cheetah"])
def test_models_are_gymnasium_s(robot, version):
    theirs = mujoco_oracle.make(robot, version)
    assert_same_model(ROBOTS[robot].model(version), theirs.model)
    assert ROBOTS[robot].frame_skip == theirs.frame_skip


@pytest.mark.parametrize(
    ("robot", "partition", "segments"),
    [
        ("many_agent_swimmer", "10x2", 20),
        ("many_agent_swimmer", "1x2", 2),
        ("many_agent_ant", "2x3", 6),
        ("many_agent_ant", "2x1", 2),
        ("coupled_half_cheetah", "1p1", 0),
    ],
)
def test_models_are_gymnasium_robotics(robot, partition, segments):
    assert_same_model(find_robot(robot, partition).model("v5"), mujoco_oracle.robotics_model(robot, segments))


def test_loading_a_robot_writes_no_log(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for robot in ROBOTS.values():
        robot.model("v5")
    assert not [*tmp_path.iterdir()]
    assert capfd.readouterr() == ("", "")
