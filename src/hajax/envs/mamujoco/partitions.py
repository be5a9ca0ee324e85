"""The known partitions of every robot: agents separated by `|`, joints named as in the XML.

The components of an agent's action are in this order. It is gymnasium-robotics' order where that has the partition, so
that policies can be used there.
"""

from __future__ import annotations

_CHEETAH = "bthigh bshin bfoot fthigh fshin ffoot"
_RIGHT_LEG, _LEFT_LEG = "foot_joint leg_joint thigh_joint", "foot_left_joint leg_left_joint thigh_left_joint"
_LEGS = [f"hip_{leg} ankle_{leg}" for leg in (1, 2, 3, 4)]
_ABDOMEN = "abdomen_x abdomen_y abdomen_z"
_HUMAN_LEGS = " ".join(f"{side}_hip_x {side}_hip_y {side}_hip_z {side}_knee" for side in ("right", "left"))
_ARMS = " ".join(f"{side}_shoulder1 {side}_shoulder2 {side}_elbow" for side in ("right", "left"))


def _one_each(joints: str) -> str:
    return " | ".join(joints.split())


_HUMANOID = {
    "9|8": f"{_ABDOMEN} {_ARMS} | {_HUMAN_LEGS}",
    "17x1": _one_each(f"{_ABDOMEN} {_HUMAN_LEGS} {_ARMS}"),
}

PARTITIONS: dict[str, dict[str, str]] = {
    "half_cheetah": {
        "2x3": "bthigh bshin bfoot | fthigh fshin ffoot",
        "3x2": "bfoot bshin | bthigh ffoot | fshin fthigh",
        "6x1": _one_each(_CHEETAH),
    },
    "ant": {
        "2x4": f"{_LEGS[0]} {_LEGS[1]} | {_LEGS[2]} {_LEGS[3]}",
        "2x4d": f"{_LEGS[0]} {_LEGS[2]} | {_LEGS[1]} {_LEGS[3]}",
        "4x2": " | ".join(_LEGS),
        "8x1": _one_each(" ".join(_LEGS)),
    },
    "hopper": {"3x1": _one_each("thigh_joint leg_joint foot_joint")},
    "walker2d": {
        "2x3": f"{_RIGHT_LEG} | {_LEFT_LEG}",
        "3x2": "foot_joint leg_joint | thigh_joint foot_left_joint | leg_left_joint thigh_left_joint",
        "6x1": _one_each(f"{_RIGHT_LEG} {_LEFT_LEG}"),
    },
    "humanoid": _HUMANOID,
    "humanoid_standup": _HUMANOID,
    "swimmer": {"2x1": _one_each("motor1_rot motor2_rot")},
    "reacher": {"2x1": _one_each("joint0 joint1")},
    "coupled_half_cheetah": {
        "1p1": " | ".join(" ".join(f"{which}_{joint}" for joint in _CHEETAH.split()) for which in ("first", "second")),
    },
    # Other numbers of agents, and of segments per agent, are made on demand.
    "many_agent_swimmer": {"10x2": ""},
    "many_agent_ant": {"2x3": ""},
}

# What each agent drives, where the number of its joints does not tell.
NOTES = {
    ("ant", "2x4"): "2 neighboring legs each",
    ("ant", "2x4d"): "2 opposite legs each",
    ("ant", "4x2"): "a leg each",
    ("coupled_half_cheetah", "1p1"): "one of two coupled cheetahs each",
    ("humanoid", "9|8"): "arms and abdomen, and legs",
    ("humanoid_standup", "9|8"): "arms and abdomen, and legs",
    ("many_agent_ant", "2x3"): "3 segments each, or any other numbers",
    ("many_agent_swimmer", "10x2"): "2 joints each, or any other numbers",
}


def agents(robot: str, partition: str) -> list[list[str]]:
    """The joints of every agent, in the order of its action."""
    if not robot.startswith("many_agent"):
        return [agent.split() for agent in PARTITIONS[robot][partition].split("|")]
    count, each = map(int, partition.split("x"))
    if robot == "many_agent_swimmer":
        return [[f"rot{each * i + j}" for j in range(each)] for i in range(count)]
    joints = ("hip1", "ankle1", "hip2", "ankle2")
    return [[f"{joint}_{each * i + j}" for j in range(each) for joint in joints] for i in range(count)]


def segmented(partition: str) -> int:
    """The number of segments N · M of the partition `NxM`: N agents with M segments each.

    Raises:
        ValueError: there are fewer than two segments.
    """
    count, each = map(int, partition.split("x"))
    if count < 1 or each < 1 or count * each < 2:
        raise ValueError(f"partition {partition!r}; allowed: NxM with N and M at least 1 and N · M at least 2")
    return count * each
