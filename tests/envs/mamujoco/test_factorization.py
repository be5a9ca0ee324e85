"""Who drives and sees what in MAMuJoCo: against gymnasium-robotics, and by moving one agent at a time."""

import functools

import mujoco
import mujoco_oracle
import numpy as np
import pytest
import transfer

from hajax.envs.mamujoco import PARTITIONS, partitions
from hajax.envs.mamujoco.factorization import by_distance, check_partition, drivers
from hajax.envs.mamujoco.physics import faithful
from hajax.envs.mamujoco.robots import find_robot
from hajax.envs.mamujoco.simulation import in_mujoco

CASES = [(robot, name) for robot, partitions in PARTITIONS.items() for name in partitions]
# gymnasium-robotics 1.4.2 lacks these. Its 2x4d gives agents legs 1, 4 and 2, 3, which are neighbors; its coupled
# cheetahs do not start with MuJoCo 4, and the first one sees the other's joints; in its ant of many segments an agent
# sees other joints than its own but in the last one, hips drive each other, and neighbors across segments are copies.
LACKING = [("half_cheetah", "3x2"), ("walker2d", "3x2"), ("walker2d", "6x1"), ("ant", "8x1")]
LACKING += [("humanoid", "17x1"), ("humanoid_standup", "17x1")]
WRONG = [("ant", "2x4d"), ("coupled_half_cheetah", "1p1"), ("many_agent_ant", "2x3")]
SHARED = [case for case in CASES if case not in LACKING + WRONG]


@functools.cache
def anatomy(robot, name=""):
    body = find_robot(robot, name or next(iter(PARTITIONS[robot])))
    return in_mujoco(body, faithful(body.model("v5"), body.frame_skip), "v5").anatomy


def their_environment(robot, name, k):
    with mujoco_oracle.quietly():
        from gymnasium_robotics import mamujoco_v1

        return mamujoco_v1.parallel_env(mujoco_oracle.ROBOTICS[robot], name, agent_obsk=k)


@pytest.mark.parametrize(("robot", "name"), SHARED)
def test_actions_and_observations_are_gymnasium_robotics(robot, name):
    own, agents = anatomy(robot, name), partitions.agents(robot, name)
    for k in (0, 1, 2):
        theirs = their_environment(robot, name, k)
        assert [[own.actuators[joint] for joint in agent] for agent in agents] == [
            [node.act_ids for node in nodes] for nodes in theirs.agent_action_partitions
        ]
        views = [own.local(agent, k, own.robot.categories, "qpos qvel") for agent in agents]
        assert [view.size for view in views] == [theirs.observation_space(a).shape[0] for a in theirs.possible_agents]
        if theirs.observation_factorization is None:  # Reacher's is no index map
            continue
        for view, agent in zip(views, theirs.possible_agents, strict=True):
            expected = own.observation[np.asarray(theirs.observation_factorization[agent], int)]
            if robot.startswith("humanoid"):  # they take the abdomen's z for y and y for z
                expected = swap_abdomen(own, expected)
            if robot == "walker2d":  # agents see velocities as they are, the whole robot's up to 10
                section = dict(zip(own.layout["bounded_qvel"], own.layout["qvel"], strict=True))
                expected = np.array([section.get(entry, entry) for entry in expected])
            np.testing.assert_array_equal(view, expected)


def their_name(robot, joint):
    if robot == "coupled_half_cheetah":
        which, part = joint.split("_")
        return part + {"first": "0", "second": "1"}[which]
    return joint.replace("_", "") if robot == "ant" else joint


@pytest.mark.parametrize(("robot", "name"), WRONG)
def test_where_they_are_wrong_agents_differ_in_what_is_named_only(robot, name):
    own, agents = anatomy(robot, name), partitions.agents(robot, name)
    with mujoco_oracle.quietly():
        from gymnasium_robotics.envs.multiagent_mujoco.obsk import get_parts_and_edges

        theirs, edges, _ = get_parts_and_edges(mujoco_oracle.ROBOTICS[robot], name)
    assert {frozenset(their_name(robot, joint) for joint in edge) for edge in own.edges} == {
        frozenset(node.label for node in edge.nodes) for edge in edges
    }
    joints = [[their_name(robot, joint) for joint in agent] for agent in agents]
    driven = {their_name(robot, joint): actuator for joint, actuator in own.actuators.items()}
    if name == "2x4d":  # they pair legs 1, 4 and 2, 3
        trade = str.maketrans("34", "43")
        joints = [[joint.translate(trade) for joint in agent] for agent in joints]
    if robot == "many_agent_ant":  # in every segment their hips and ankles drive the other leg's
        trade = str.maketrans("12", "21")
        driven = {
            joint.partition("_")[0].translate(trade) + joint[joint.index("_") :]: a for joint, a in driven.items()
        }
    assert [[node.label for node in nodes] for nodes in theirs] == joints
    assert {node.label: node.act_ids for nodes in theirs for node in nodes} == driven
    if robot != "coupled_half_cheetah":
        env = their_environment(robot, name, 0)
        sizes = [own.local(agent, 0, own.robot.categories, "qpos qvel").size for agent in agents]
        assert sizes == [env.observation_space(agent).shape[0] for agent in env.possible_agents]


def test_policies_are_played_elsewhere_where_agents_are_the_same():
    played = {(robot, name) for robot, names in transfer.COUNTERPARTS.items() for name in names}
    assert played == set(SHARED)


def swap_abdomen(own, entries):
    """With the entries of abdomen_y and abdomen_z exchanged, as far as they are joint positions and velocities."""
    y, z = own.joints["abdomen_y"], own.joints["abdomen_z"]
    pairs = [(y.entries[c][0], z.entries[c][0]) for c in ("qpos", "qvel", "qfrc_actuator")]
    table = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    return np.array([table.get(entry, entry) for entry in entries])


@pytest.mark.parametrize(("robot", "name"), CASES)
def test_every_actuator_has_one_owner_and_k_0_is_its_own_joints(robot, name):
    own, agents = anatomy(robot, name), partitions.agents(robot, name)
    check_partition(robot, agents, tuple(own.actuators))
    assert sorted(own.actuators[joint] for agent in agents for joint in agent) == list(range(own.model.nu))
    for agent in agents:
        view = own.local(agent, 0, ("qpos qvel",), "")
        expected = {
            entry
            for joint in agent
            for entry in (
                own.layout["qpos"][own.model.joint(joint).qposadr[0]],
                own.layout["qvel"][own.model.joint(joint).dofadr[0]],
            )
        }
        if robot == "swimmer":  # which also shows each rotor a component of the whole one's velocity
            assert expected - {own.layout["qpos"][own.model.joint(agent[0]).qposadr[0]]} < set(view)
        elif robot == "reacher":  # whose angles are shown as sines and cosines
            assert len(view) == 3
        else:
            assert set(view) == expected
            assert len(view) == 2 * len(agent)


@pytest.mark.parametrize(("robot", "name"), CASES)
def test_an_agent_s_action_is_felt_by_its_own_joints_alone(robot, name):
    """Only its own joint carries force, and is moved by it."""
    own, agents = anatomy(robot, name), partitions.agents(robot, name)
    driver, component = drivers([[own.actuators[joint] for joint in agent] for agent in agents])
    data = mujoco.MjData(own.model)
    mujoco.mj_forward(own.model, data)
    idle = data.qacc.copy()
    for i, agent in enumerate(agents):
        for j, joint in enumerate(agent):
            action = np.zeros((len(agents), max(map(len, agents))))
            action[i, j] = 0.3
            data.ctrl[:] = action[driver, component]
            mujoco.mj_forward(own.model, data)
            (dof,) = own.model.joint(joint).dofadr
            assert np.flatnonzero(data.qfrc_actuator).tolist() == [dof]
            assert (data.qacc - idle)[dof] * data.qfrc_actuator[dof] > 0


def test_distances_of_the_humanoid_s_right_elbow():
    edges = anatomy("humanoid").edges
    levels = by_distance(["right_elbow"], edges, 3)
    assert len(levels) == 4
    assert levels[1] == ["right_shoulder1", "right_shoulder2"]
    assert levels[2] == ["abdomen_x", "abdomen_y", "abdomen_z"]
    assert "left_shoulder1" in levels[3]
    assert "right_hip_x" in levels[3]
    assert "right_knee" not in levels[3]


def test_the_ant_of_many_segments():
    levels = by_distance(["ankle1_0"], anatomy("many_agent_ant", "3x2").edges, 3)
    assert levels == [
        ["ankle1_0"],
        ["hip1_0"],
        ["hip1_1", "hip2_0", "hip2_1"],
        ["ankle1_1", "ankle2_0", "ankle2_1", "hip1_2", "hip2_2"],
    ]


def test_each_of_the_coupled_cheetahs_sees_itself_and_the_tendon():
    own = anatomy("coupled_half_cheetah")
    for k, agent in enumerate(partitions.agents("coupled_half_cheetah", "1p1")):
        view = own.local(agent, 0, own.robot.categories, "")
        joints = range(9 * k + 3, 9 * k + 9)
        tendon = [*own.layout["ten_J"], *own.layout["ten_length"], *own.layout["ten_velocity"]]
        assert sorted(view) == sorted([*own.layout["qpos"][joints], *own.layout["qvel"][joints], *tendon])
        assert len(tendon) == 6
    assert own.observation.size == 40


def test_neighbors_follow_from_the_bodies():
    """Ant's hips hang on the torso, and are neighbors; an ankle's is its hip."""
    assert by_distance(["ankle_1"], anatomy("ant").edges, 3) == [
        ["ankle_1"],
        ["hip_1"],
        ["hip_2", "hip_3", "hip_4"],
        ["ankle_2", "ankle_3", "ankle_4"],
    ]


@pytest.mark.parametrize(
    ("partition", "message"),
    [
        ([["bthigh", "bshin"], ["bfoot", "fthigh", "fshin"]], "leaves out ffoot"),
        ([["bthigh", "bshin", "bfoot"], ["bfoot", "fthigh", "fshin", "ffoot"]], "names 'bfoot' 2 times"),
        ([["bthigh", "bshin", "bfoot", "rootx"], ["fthigh", "fshin", "ffoot"]], "'rootx', which no actuator drives"),
        ([["bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"], []], "an agent without joints"),
    ],
)
def test_a_partition_that_is_none_is_refused(partition, message):
    with pytest.raises(ValueError, match=message) as error:
        check_partition("half_cheetah", partition, tuple(anatomy("half_cheetah").actuators))
    assert "each of bthigh, bshin, bfoot, fthigh, fshin, ffoot exactly once" in str(error.value)
