"""Hydra's nodes and presets against the registries and the library's defaults."""

import fnmatch
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import yaml

import hajax
import hajax.algorithms
import hajax.envs
from hajax.envs.base import Environment, timestep
from hajax.runs import config
from hajax.runs.errors import Refusal
from hajax.spaces import Box, Discrete
from hajax.spec import AgentSpec, EnvSpec

# Read before any test registers names of its own.
DETERMINISTIC = ("haddpg", "maddpg", "hatd3", "matd3")  # which need Box actions
ALGORITHMS, ENVS = hajax.list_algorithms(), hajax.list_envs()


def test_every_algorithm_and_environment_has_one():
    assert config.options("algo") == sorted([*ALGORITHMS, *hajax.algorithms.list_templates()])
    assert config.options("env") == sorted(ENVS)
    assert all(config.description(group, name) for group in config.GROUPS for name in config.options(group))


def test_all_robots_have_the_same_options():
    robots = [config.compose([f"env={name}"])["env"] for name in ENVS if name.startswith("mamujoco/")]
    assert len(robots) == 20
    assert all(robot | {"name": ""} == robots[0] | {"name": ""} for robot in robots)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_algorithm_defaults_are_the_library_s(name):
    options = config.compose([f"algo={name}"])["algo"]
    assert options.pop("name") == name
    game = "games/gaussian" if name in DETERMINISTIC else "games/hasac_matrix"
    env = hajax.make_env(game, reward=options.pop("reward"))
    configured, default = hajax.make_algorithm(name, env, **options), hajax.make_algorithm(name, env)
    assert configured.settings == default.settings
    assert configured.hyperparameters == default.hyperparameters
    assert set(options) == {*vars(default.settings), *vars(default.hyperparameters)}


# Making a robot traces all of its physics; one stands for all, whose options are the same.
@pytest.mark.parametrize("name", [x for x in ENVS if not x.startswith("mamujoco/") or x == "mamujoco/reacher_2x1"])
@pytest.mark.parametrize("algo", ["happo", "ippo"])
def test_environments_build_with_the_algorithm_s_reward(name, algo):
    options = config.compose([f"env={name}", f"algo={algo}"])["env"]
    assert options.pop("name") == name
    assert hajax.make_env(name, **options).spec.reward == {"happo": "team", "ippo": "individual"}[algo]


def test_harl_preset():
    settings = config.compose(["preset=harl/mpe"])
    algo = settings["algo"]
    assert (settings["num_envs"], settings["rollout_length"]) == (20, 200)
    assert (algo["hidden_sizes"], algo["activation"], algo["layer_norm"]) == ([128, 128], "relu", True)
    assert (algo["epochs"], algo["critic_epochs"], algo["minibatches"]) == (5, 5, 1)
    assert (algo["actor_lr"], algo["critic_lr"], algo["entropy_coef"]) == (5e-4, 5e-4, 0.01)
    assert algo["normalize_values"] is True
    assert config.compose(["preset=harl/mpe", "algo.clip=0.1", "num_envs=8"])["num_envs"] == 8


# Presets state what differs from hajax's defaults. They rely on these, which are those of HARL and of the papers.
RELIED_ON = {
    "happo": {"activation": "relu", "layer_norm": True, "epochs": 5, "critic_epochs": 5, "minibatches": 1}
    | {"actor_lr": 5e-4, "critic_lr": 5e-4, "clip": 0.2, "entropy_coef": 0.01, "discount": 0.99, "gae_lambda": 0.95}
    | {"value_loss": "huber", "huber_delta": 10.0, "max_grad_norm": 10.0, "adam_eps": 1e-5, "normalize_values": True}
    | {"output_gain": 0.01, "std_scale": 0.5, "hidden_sizes": [128, 128], "chunk_length": 10, "memory": "none"},
    "hatrpo": {"kl_radius": 0.01, "accept_ratio": 0.5, "backtrack": 0.8, "damping": 0.1, "cg_iterations": 10}
    | {"line_search_steps": 10},
    "haddpg": {"activation": "relu", "actor_lr": 5e-4, "critic_lr": 1e-3, "discount": 0.99, "target_rate": 0.005}
    | {"exploration_noise": 0.1, "n_step": 1, "batch_size": 1000, "buffer_size": 1_000_000, "warmup_steps": 10_000}
    | {"updates_per_step": 1.0, "hidden_sizes": [128, 128]},
    "hasac": {"critic_lr": 5e-4, "temperature_lr": 3e-4, "auto_temperature": True, "hidden_sizes": [256, 256]},
    "had3qn": {"discount": 0.95, "epsilon": 0.05, "head_sizes": [128]},
}


@pytest.mark.parametrize("name", RELIED_ON)
def test_defaults_that_presets_rely_on(name):
    algo = config.compose([f"algo={name}"])["algo"]
    assert {key: algo[key] for key in RELIED_ON[name]} == RELIED_ON[name]


# HARL's metric of discrete policies is Σ_a (e^d − 1 − d): near a uniform policy |A| times the KL, in SMAC some 6 times.
KL = {0.06: 0.01, 0.01: 0.0017, 0.005: 8.3e-4, 0.001: 1.7e-4}

# tuned_configs/smac/MAP/hatrpo of HARL at commit d539bad
SMAC_HATRPO = [
    ("10m_vs_11m", 0.95, 0.005, 0.5, "none", 5e-4),
    ("25m", 0.99, 0.01, 0.5, "gru", 5e-4),
    ("27m_vs_30m", 0.99, 0.001, 0.8, "gru", 5e-4),
    ("3s5z", 0.95, 0.01, 0.5, "none", 5e-4),
    ("3s5z_vs_3s6z", 0.99, 0.005, 0.5, "none", 5e-4),
    ("5m_vs_6m", 0.99, 0.01, 0.5, "gru", 5e-4),
    ("6h_vs_8z", 0.99, 0.001, 0.8, "none", 1e-3),
    ("8m_vs_9m", 0.99, 0.005, 0.5, "none", 5e-4),
    ("corridor", 0.99, 0.06, 0.5, "gru", 5e-4),
    ("mmm2", 0.95, 0.06, 0.5, "none", 5e-4),
]


@pytest.mark.parametrize(
    ("preset", "hidden", "clip", "discount"),
    [
        ("hatrpo-happo/smac", [64], 0.3, 0.99),
        ("harl/smac", [64, 64, 64], 0.2, 0.99),
        ("harl/smac_corridor", [64, 64, 64], 0.2, 0.99),
        ("harl/smac_outnumbered", [64, 64, 64], 0.05, 0.95),
        ("harl/smac_8m_vs_9m", [64, 64, 64], 0.05, 0.95),
    ],
)
@pytest.mark.parametrize("name", ["happo", "mappo"])
def test_smac_presets(preset, hidden, clip, discount, name):
    """The papers' and HARL's tables; their names are what a run is called by."""
    settings = config.compose([f"preset={preset}", f"algo={name}"])
    algo = settings["algo"]
    assert (settings["num_envs"], settings["rollout_length"], settings["preset"]) == (20, 160, preset)
    assert (algo["hidden_sizes"], algo["clip"], algo["discount"]) == (hidden, clip, discount)
    assert (algo["epochs"], algo["minibatches"], algo["actor_lr"], algo["critic_lr"]) == (5, 1, 5e-4, 5e-4)
    assert (algo["output_gain"], algo["adam_eps"], algo["max_grad_norm"], algo["value_loss"]) == (
        0.01,
        1e-5,
        10,
        "huber",
    )
    options = {key: value for key, value in algo.items() if key not in ("name", "reward")}
    made = hajax.make_algorithm(name, hajax.make_env("games/hasac_matrix"), **options)
    assert made.settings.hidden_sizes == tuple(hidden)


@pytest.mark.parametrize(
    ("preset", "name", "schedule", "numbers"),
    [
        ("harl/mpe_hatrpo", "hatrpo", (20, 200), {"kl_radius": 0.001, "hidden_sizes": [128, 128]}),
        ("harl/smac_hatrpo", "hatrpo", (20, 160), {"kl_radius": KL[0.01], "hidden_sizes": [64, 64, 64]}),
        (
            "hatrpo-happo/smac_hatrpo",
            "hatrpo",
            (20, 160),
            {"kl_radius": KL[0.06], "accept_ratio": 0.5, "hidden_sizes": [64]},
        ),
        ("harl/smac_gru", "happo", (20, 160), {"memory": "gru", "chunk_length": 10, "clip": 0.2, "discount": 0.99}),
        ("harl/smac_gru", "mappo", (20, 160), {"memory": "gru", "chunk_length": 10, "clip": 0.2, "discount": 0.99}),
        ("harl/smac_outnumbered", "happo", (20, 160), {"memory": "gru", "chunk_length": 10, "clip": 0.05}),
        (
            "harl/smac_3s5z_vs_3s6z",
            "happo",
            (20, 160),
            {"memory": "gru", "minibatches": 2, "epochs": 5, "clip": 0.1, "discount": 0.95},
        ),
        (
            "harl/smac_6h_vs_8z",
            "happo",
            (20, 160),
            {"memory": "none", "minibatches": 2, "epochs": 10, "critic_epochs": 10, "clip": 0.05, "discount": 0.95},
        ),
        ("harl/smac_mmm2", "happo", (20, 160), {"memory": "none", "minibatches": 1, "clip": 0.2, "discount": 0.95}),
        *(
            (
                f"harl/smac_hatrpo_{where}",
                "hatrpo",
                (20, 160),
                {
                    "discount": discount,
                    "kl_radius": KL[harl],
                    "backtrack": backtrack,
                    "memory": memory,
                    "critic_lr": lr,
                },
            )
            for where, discount, harl, backtrack, memory, lr in SMAC_HATRPO
        ),
        ("haml/smac", "haa2c", (8, 400), {"epochs": 5, "actor_lr": 5e-4, "hidden_sizes": [64]}),
        ("haml/smac", "maa2c", (8, 400), {"epochs": 5, "actor_lr": 5e-4, "hidden_sizes": [64]}),
        ("hajax/smax", "happo", (64, 64), {"minibatches": 8, "actor_lr": 5e-4, "discount": 0.95}),
        ("hajax/smax", "mappo", (64, 64), {"minibatches": 8, "actor_lr": 5e-4, "discount": 0.95}),
        *(
            ("harl/mpe_haddpg", name, (20, 50), {"batch_size": 1000, "n_step": 1, "actor_lr": 5e-4, "critic_lr": 1e-3})
            for name in ("haddpg", "maddpg", "hatd3", "matd3")
        ),
        *(
            ("harl/mpe_had3qn", name, (20, 50), {"batch_size": 1000, "epsilon": 0.05, "head_sizes": [128]})
            for name in ("had3qn", "mad3qn")
        ),
        *(
            ("harl/mpe_hasac", name, (20, 50), {"batch_size": 1000, "n_step": 20, "hidden_sizes": [256, 256]})
            for name in ("hasac", "masac")
        ),
        ("mamt/mpe", "mamt", (12, 25), {"batch_size": 1024, "tsallis_q": 0.2, "adam_eps": 1e-7, "edge_threshold": 0.2}),
        (
            "mamt/mpe_mamd",
            "mamd",
            (12, 25),
            {"batch_size": 1024, "tsallis_q": 0.2, "adam_eps": 1e-7, "critic_lr": 1e-3},
        ),
        ("mamt/mpe_maac", "maac", (12, 25), {"batch_size": 1024, "updates_per_step": 0.48, "adam_eps": 1e-7}),
        ("mamt/mpe_maddpg", "maddpg", (12, 25), {"batch_size": 1024, "max_grad_norm": 0.5, "actor_lr": 1e-3}),
        ("mamt/mpe_mappo", "mappo", (12, 341), {"max_grad_norm": 10.0, "huber_delta": 10.0, "gae_lambda": 0.95}),
        ("lola/iterated_games", "lola", (128, 50), {"actor_lr": 0.1, "lookahead": 1.0, "discount": 0.96}),
        ("maac/mpe", "maac", (12, 25), {"batch_size": 1024, "updates_per_step": 0.48, "reward_scale": 100.0}),
        ("hajax/smax_hatrpo", "hatrpo", (64, 64), {"minibatches": 8, "kl_radius": 0.02, "gae_lambda": 0.9}),
    ],
)
def test_presets_of_other_algorithms(preset, name, schedule, numbers):
    settings = config.compose([f"preset={preset}", f"algo={name}"])
    algo = settings["algo"]
    assert (settings["num_envs"], settings["rollout_length"], settings["preset"]) == (*schedule, preset)
    assert {key: algo[key] for key in numbers} == numbers
    options = {key: value for key, value in algo.items() if key not in ("name", "reward")}
    game = "games/gaussian" if name in DETERMINISTIC else "games/hasac_matrix"
    assert hajax.make_algorithm(name, hajax.make_env(game), **options).name == name


# What HARL's tuned configurations of MAMuJoCo change, as `../shared` and its files have them.
ON_POLICY = {"hidden_sizes": [128, 128, 128], "minibatches": 1, "critic_lr": 5e-4, "epochs": 5, "critic_epochs": 5}
OFF_POLICY = {"hidden_sizes": [256, 256], "batch_size": 1000, "target_rate": 0.005, "updates_per_step": 1}
TUNED = {
    "mamujoco": {
        "": {"clip": 0.2, "entropy_coef": 0.01, "actor_lr": 5e-4},
        "ant_4x2": {"clip": 0.1, "entropy_coef": 0},
        "half_cheetah_2x3": {"clip": 0.05, "epochs": 15, "critic_epochs": 15, "entropy_coef": 0.01},
        "hopper_3x1": {"clip": 0.05, "epochs": 10, "critic_epochs": 10, "entropy_coef": 0, "lr_decay": True},
        "walker2d_2x3": {"clip": 0.05, "minibatches": 2, "actor_lr": 1e-3, "critic_lr": 1e-3, "lr_decay": True},
        "walker2d_6x1": {"clip": 0.1, "entropy_coef": 0.01},
        "humanoid_17x1": {"clip": 0.1, "entropy_coef": 0, "lr_decay": True},
    },
    "mamujoco_hatrpo": {
        "": {"kl_radius": 0.01},
        "ant_4x2": {"kl_radius": 0.005},
        "half_cheetah_2x3": {"kl_radius": 0.01},
        "hopper_3x1": {"kl_radius": 0.001},
        "walker2d_2x3": {"kl_radius": 0.01},
        "walker2d_6x1": {"kl_radius": 0.005},
    },
    "mamujoco_haa2c": {
        "": {"entropy_coef": 0.01, "actor_lr": 5e-4},
        "ant_4x2": {"entropy_coef": 0, "actor_lr": 5e-4, "lr_decay": True},
        "half_cheetah_2x3": {"entropy_coef": 0, "lr_decay": True},
        "hopper_3x1": {"epochs": 3, "critic_epochs": 3, "actor_lr": 1e-4, "critic_lr": 1e-4, "lr_decay": True},
        "walker2d_2x3": {"actor_lr": 1e-4, "critic_lr": 1e-4, "entropy_coef": 0, "lr_decay": True},
        "walker2d_6x1": {"actor_lr": 1e-4, "critic_lr": 1e-4, "entropy_coef": 0, "lr_decay": True},
    },
    "mamujoco_haddpg": {
        "": {"n_step": 1, "exploration_noise": 0.1, "actor_lr": 5e-4, "critic_lr": 1e-3},
        "ant_4x2": {"n_step": 20, "exploration_noise": 0.05, "updates_per_step": 0.5},
        "half_cheetah_2x3": {"n_step": 20},
        "hopper_3x1": {"n_step": 20},
        "walker2d_2x3": {"n_step": 10},
        "walker2d_6x1": {"n_step": 20},
    },
    "mamujoco_hatd3": {
        "ant_4x2": {"n_step": 5, "policy_delay": 2},
        "half_cheetah_2x3": {"n_step": 10},
        "hopper_3x1": {"n_step": 5},
        "walker2d_2x3": {"n_step": 20, "policy_delay": 8},
        "walker2d_6x1": {"n_step": 25},
        "humanoid_17x1": {"n_step": 5},
    },
    "mamujoco_hasac": {
        "": {"n_step": 10, "actor_lr": 1e-3, "critic_lr": 1e-3, "auto_temperature": True},
        "ant_4x2": {"n_step": 5, "critic_lr": 3e-4, "auto_temperature": False, "temperature": 0.2},
        "half_cheetah_2x3": {"n_step": 10, "actor_lr": 1e-3, "critic_lr": 1e-3, "auto_temperature": True},
        "walker2d_2x3": {"n_step": 20, "actor_lr": 5e-4, "critic_lr": 1e-3, "auto_temperature": False},
        "walker2d_6x1": {"n_step": 20, "actor_lr": 5e-4, "critic_lr": 1e-3, "auto_temperature": False},
    },
}
PAPERS = {
    "hatrpo-happo/mamujoco": ("happo", (4, 1000), {"actor_lr": 5e-6, "critic_lr": 5e-3, "clip": 0.3, "epochs": 5}),
    "hatrpo-happo/mamujoco_hatrpo": ("hatrpo", (4, 1000), {"kl_radius": 1e-4, "accept_ratio": 0.5, "critic_lr": 5e-3}),
    "hatrpo-happo/mamujoco_maddpg": (
        "maddpg",
        (16, 125),
        {"batch_size": 200, "target_rate": 0.05, "updates_per_step": 0.8, "warmup_steps": 25_000},
    ),
    "haml/mamujoco": ("haa2c", (4, 1000), {"actor_lr": 2e-4, "critic_lr": 1e-3, "epochs": 5, "hidden_sizes": [64]}),
    "haml/mamujoco_haddpg": (
        "haddpg",
        (20, 100),
        {"n_step": 20, "target_rate": 0.1, "updates_per_step": 0.5, "hidden_sizes": [64, 64]},
    ),
}


def mamujoco_presets():
    """Name, algorithm, schedule and numbers of each."""
    for base, robots in TUNED.items():
        name = base.removeprefix("mamujoco_") if base != "mamujoco" else "happo"
        for robot, changed in robots.items():
            preset = f"harl/{base}" if not robot else f"harl/{robot}{base.removeprefix('mamujoco')}"
            on_policy = name in ("happo", "hatrpo", "haa2c")
            numbers = {"lr_decay": False} | ON_POLICY if on_policy else OFF_POLICY
            numbers = {key: x for key, x in (numbers | changed).items() if name != "hatrpo" or key != "epochs"}
            envs = 10 if name in DETERMINISTIC else 20
            yield preset, name, (envs, 200 if on_policy else 50), numbers
    for preset, rest in PAPERS.items():
        yield preset, *rest


@pytest.mark.parametrize(("preset", "name", "schedule", "numbers"), list(mamujoco_presets()))
def test_mamujoco_presets(preset, name, schedule, numbers):
    settings = config.compose([f"preset={preset}", f"algo={name}"])
    algo = settings["algo"]
    assert (settings["num_envs"], settings["rollout_length"], settings["preset"]) == (*schedule, preset)
    assert {key: algo.get(key, settings.get(key)) for key in numbers} == numbers
    options = {key: value for key, value in algo.items() if key not in ("name", "reward")}
    assert hajax.make_algorithm(name, hajax.make_env("games/gaussian"), **options).name == name


def test_every_preset_is_tested():
    tested = {"harl/mpe", "hatrpo-happo/smac", "harl/smac", "harl/smac_outnumbered", "haml/smac", "hajax/smax"}
    tested |= {
        "harl/smac_3s5z_vs_3s6z",
        "harl/smac_6h_vs_8z",
        "harl/smac_mmm2",
        "harl/smac_8m_vs_9m",
        "harl/smac_corridor",
    }
    tested |= {"harl/smac_gru", *(f"harl/smac_hatrpo_{where}" for where, *_ in SMAC_HATRPO)}
    tested |= {"harl/mpe_haddpg", "harl/mpe_hasac", "harl/mpe_had3qn", "maac/mpe"}
    tested |= {"lola/iterated_games", "mamt/mpe", "mamt/mpe_mamd", "mamt/mpe_maac", "mamt/mpe_maddpg", "mamt/mpe_mappo"}
    tested |= {"harl/mpe_hatrpo_reference", "harl/mpe_hatrpo_continuous"}
    tested |= {preset for preset, *_ in mamujoco_presets()}
    tested |= {f"{name}_hatrpo" for name in ("harl/mpe", "harl/smac", "hatrpo-happo/smac", "hajax/smax")}
    assert set(PRESETS) == tested


PRESETS = config.options("preset")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_alone_is_of_its_algorithm_and_environment(preset):
    """With nothing else given; HARL's and the papers' have HARL's network."""
    settings = config.compose([f"preset={preset}"])
    fits = yaml.safe_load((config.conf_dir() / "preset" / f"{preset}.yaml").read_text(encoding="utf-8"))["fits"]
    assert settings["preset"] == preset
    assert settings["algo"]["name"] in fits["algo"]
    assert any(fnmatch.fnmatchcase(settings["env"]["name"], pattern) for pattern in fits["env"])
    assert set(fits["algo"]) <= set(ALGORITHMS)
    assert all(fnmatch.filter(ENVS, pattern) for pattern in fits["env"])
    described = config.description("preset", preset)
    assert described
    assert not re.search(r"`(algo|env)=", described)  # which it sets itself
    algo = settings["algo"]
    if algo["layer_norm"]:
        assert algo["layer_norm_min_inputs"] == (16 if preset.startswith("hajax/") else 1)
    # What it sets of the algorithm is nothing that the algorithm lacks.
    assert set(algo) == set(config.compose([f"algo={algo['name']}"])["algo"])


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["preset=harl/mpe_hasac", "algo=happo"], ["preset=harl/mpe_hasac with algo=happo", "algo=hasac or masac"]),
        (["preset=harl/mpe", "algo=hatrpo"], ["preset=harl/mpe with algo=hatrpo", "algo=happo or mappo or ippo"]),
        (["preset=harl/half_cheetah_2x3", "env=smax/3m"], ["with env=smax/3m", "env=mamujoco/half_cheetah_*"]),
        (["preset=harl/ant_4x2", "env=mamujoco/half_cheetah_2x3"], ["env=mamujoco/ant_*"]),
        (["preset=harl/smac_gru", "env=smax/3m"], ["env=smax/3s5z or smax/25m"]),
    ],
)
def test_a_preset_is_refused_for_what_it_is_not_for(overrides, named):
    with pytest.raises(Refusal, match=r"^preset=.*; allowed: algo=.* and env=.*, which it is for$") as refusal:
        config.compose(overrides)
    assert all(part in str(refusal.value) for part in named)


def test_no_preset_may_be_said():
    assert config.compose(["preset=null", "num_seeds=2"]) == config.compose(["num_seeds=2"])


def test_a_preset_may_be_tried_on_one_s_own(monkeypatch):
    """Nobody can say that it is not for them."""
    monkeypatch.setattr(hajax.envs, "_registered", {})
    hajax.register_env("workshop/matrix", "hajax.envs.games:trap_of_homogeneity")
    settings = config.compose(["preset=harl/mpe", "env=workshop/matrix", "algo=mappo"])
    assert (settings["env"]["name"], settings["algo"]["name"]) == ("workshop/matrix", "mappo")
    assert settings["algo"]["sharing"] == "type"  # the algorithm's own default, whatever comes first


def test_a_registered_environment_needs_no_file(monkeypatch):
    monkeypatch.setattr(hajax.envs, "_registered", {})
    hajax.register_env("workshop/matrix", "hajax.envs.games:trap_of_homogeneity")
    settings = config.compose(["env=workshop/matrix", "env.num_agents=4", "algo=ippo"])
    options = {"num_agents": 4, "max_steps": 1, "reward": "individual", "state": "environment"}
    assert settings["env"] == {"name": "workshop/matrix", **options}
    with pytest.raises(Refusal, match=r"env=workshop/matrices is unknown;.* allowed: "):
        config.compose(["env=workshop/matrices"])


# Every preset, one iteration. What it says of sizes is made small, and so is the team: programs then differ in what is
# computed only, and presets that differ in numbers share one.
SMALL = {"hidden_sizes": [4], "head_sizes": [4], "buffer_size": 400, "warmup_steps": 40, "batch_size": 4, "n_step": 2}
SMALL |= {"updates_per_step": 1, "epochs": 2, "critic_epochs": 2, "chunk_length": 4, "cg_iterations": 2}


@functools.cache
def small_team(continuous: bool) -> Environment:
    """Two agents that act as those of a preset's environment do."""
    space = Box(-1, 1, shape=2) if continuous else Discrete(3)
    spec = EnvSpec(
        "small", [AgentSpec(name, 3, space) for name in "ab"], state_size=4, max_steps=5, masks_actions=not continuous
    )

    def show(t, **fields):
        if not continuous:
            fields["action_mask"] = jnp.ones((2, 1, 3), bool).at[0, 0, t % 3].set(False)
        observation, state = jnp.sin(jnp.arange(6.0).reshape(2, 3) + t), jnp.cos(jnp.arange(4.0) + t)
        return t, timestep(spec, observation, state, **fields)

    def step(key, t, action):
        return show(t + 1, reward=jnp.cos(action.sum((-1, -2))) * jnp.ones(2), truncated=t + 1 >= 5)

    return Environment(spec, lambda key: show(jnp.zeros((), int), first=True), step)


PROGRAMS: dict[tuple[str, bool, str], tuple[Any, Any]] = {}
# One of each kind of algorithm, of discrete and continuous actions, and of memory. `make test-evidence` has the rest.
OF_A_KIND = {"harl/mpe", "harl/smac_gru", "harl/ant_4x2_hatrpo", "harl/ant_4x2_hatd3", "harl/mpe_hasac"}
OF_A_KIND |= {"harl/mpe_had3qn"}


@pytest.mark.parametrize(
    "preset",
    [pytest.param(preset, marks=[] if preset in OF_A_KIND else pytest.mark.evidence) for preset in PRESETS],
)
def test_every_preset_trains_for_an_iteration(preset):
    settings = config.compose([f"preset={preset}"])
    name, where = settings["algo"]["name"], settings["env"]
    options = {key: value for key, value in settings["algo"].items() if key not in ("name", "reward")}
    fixed = {"epochs"} if options.get("epochs") == 1 else set()  # some algorithms are defined by one
    options |= {key: value for key, value in SMALL.items() if key in options and key not in fixed}
    continuous = where["name"].startswith("mamujoco/") or where.get("actions") == "continuous"
    env = small_team(continuous)
    algo = hajax.make_algorithm(name, env, **options)
    key = (name, continuous, repr(algo.settings))
    if key not in PROGRAMS:
        loop = hajax.make_loop(env, algo, num_envs=4, rollout_length=8)
        PROGRAMS[key] = jax.jit(loop.init), jax.jit(loop.iterate)
    init, iterate = PROGRAMS[key]
    before = init(jax.random.key(0), algo.hyperparameters)
    after, metrics = iterate(before)
    old, new = (jax.tree.leaves(state.algorithm.actors.params) for state in (before, after))
    assert all(jnp.isfinite(leaf).all() for leaf in new)
    assert any((x != y).any() for x, y in zip(old, new, strict=True))
    assert metrics
