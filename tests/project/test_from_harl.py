"""`examples/from_harl.py` turns files with HARL's keys into commands that hajax accepts, and says what it leaves out.

The files here have values of our own; HARL's are not part of this repository.
"""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from hajax.runs import config
from hajax.runs.settings import validate

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("from_harl", ROOT / "examples" / "from_harl.py")
from_harl = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(from_harl)

# Sections of HARL's files.
MACHINE = {
    "seed": {"seed_specify": True, "seed": 3},
    "device": {"cuda": True, "cuda_deterministic": False, "torch_threads": 2},
    "eval": {"use_eval": True, "n_eval_rollout_threads": 4, "eval_episodes": 8},
    "render": {"use_render": False, "render_episodes": 1},
    "logger": {"log_dir": "./somewhere"},
}
TRAIN = {"num_env_steps": 100_000, "log_interval": 5, "use_linear_lr_decay": True, "use_proper_time_limits": True}
ON_POLICY_TRAIN = TRAIN | {"n_rollout_threads": 8, "episode_length": 50, "eval_interval": 5, "use_valuenorm": True}
OFF_POLICY_TRAIN = TRAIN | {"n_rollout_threads": 8, "train_interval": 20, "update_per_train": 0.5, "eval_interval": 100}
OFF_POLICY_TRAIN |= {"warmup_steps": 2001, "model_dir": None}
ON_POLICY_MODEL = {
    "hidden_sizes": [32, 16],
    "activation_func": "tanh",
    "use_feature_normalization": True,
    "initialization_method": "orthogonal_",
    "gain": 0.02,
    "use_naive_recurrent_policy": False,
    "use_recurrent_policy": False,
    "recurrent_n": 1,
    "data_chunk_length": 5,
    "lr": 0.0003,
    "critic_lr": 0.0007,
    "opti_eps": 1e-05,
    "weight_decay": 0,
    "std_x_coef": 1,
    "std_y_coef": 0.4,
}
CRITIC = {
    "critic_epoch": 4,
    "use_clipped_value_loss": True,
    "clip_param": 0.15,
    "critic_num_mini_batch": 2,
    "value_loss_coef": 1,
    "use_max_grad_norm": True,
    "max_grad_norm": 5.0,
    "use_gae": True,
    "gamma": 0.97,
    "gae_lambda": 0.9,
    "use_huber_loss": True,
    "use_policy_active_masks": True,
    "huber_delta": 8.0,
    "action_aggregation": "prod",
    "share_param": False,
    "fixed_order": False,
}
PPO = CRITIC | {"ppo_epoch": 6, "actor_num_mini_batch": 2, "entropy_coef": 0.003}
TRUST_REGION = CRITIC | {"kl_threshold": 0.02, "ls_step": 7, "accept_ratio": 0.4, "backtrack_coeff": 0.6}
OFF_POLICY = {"gamma": 0.98, "buffer_size": 5000, "batch_size": 64, "polyak": 0.01, "n_step": 3}
OFF_POLICY |= {"share_param": False, "fixed_order": False}
OFF_POLICY_MODEL = {"hidden_sizes": [32], "activation_func": "relu", "lr": 0.0002, "critic_lr": 0.0004}
SPREAD = {"scenario": "simple_spread_v2", "continuous_actions": False}


def on_policy(algo=PPO, model=(), train=()):
    """The sections of an on-policy file."""
    return MACHINE | {"train": ON_POLICY_TRAIN | dict(train), "model": ON_POLICY_MODEL | dict(model), "algo": algo}


def off_policy(algo=(), model=(), train=()):
    """The sections of an off-policy file."""
    train = OFF_POLICY_TRAIN | dict(train)
    return MACHINE | {"train": train, "model": OFF_POLICY_MODEL | dict(model), "algo": OFF_POLICY | dict(algo)}


@pytest.fixture
def translated(tmp_path, capsys):
    """Translates one JSON file; the exit code, the settings of the command, and the lines of standard error."""

    def run(algo, env, sections, scenario, *flags):
        main = {"algo": algo, "env": env, "exp_name": "mine", "load_config": ""}
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"main_args": main, "algo_args": sections, "env_args": scenario}))
        return result(from_harl.main([str(path), *flags]), capsys)

    return run


def result(code, capsys):
    out, err = capsys.readouterr()
    if code:
        assert not out
        assert code == 2
        assert err.startswith("from_harl: ")
        assert len(err.splitlines()) == 1
        return code, {}, err.strip()
    assert len(out.splitlines()) == 1
    command, train, *overrides = shlex.split(out)
    assert (command, train) == ("hajax", "train")
    validate(config.compose(overrides))
    return code, dict(override.split("=", 1) for override in overrides), err.splitlines()


def composed(settings):
    """All settings of a run, by name."""
    return dict(config.flat(config.compose([f"{name}={value}" for name, value in settings.items()])))


def test_happo_on_mpe(translated):
    _, settings, lines = translated("happo", "pettingzoo_mpe", on_policy(), SPREAD | {"max_cycles": 20, "N": 4})
    assert settings == {
        "algo": "happo",
        "env": "mpe/simple_spread",
        "seed": "3",
        "num_seeds": "1",
        "total_steps": "100000",
        "num_envs": "8",
        "rollout_length": "50",
        "eval_interval": "2000",
        "eval.episodes": "8",
        "lr_decay": "true",
        "env.max_steps": "20",
        "env.num_agents": "4",
        "algo.hidden_sizes": "[32,16]",
        "algo.activation": "tanh",
        "algo.layer_norm_min_inputs": "1",
        "algo.output_gain": "0.02",
        "algo.actor_lr": "0.0003",
        "algo.critic_lr": "0.0007",
        "algo.epochs": "6",
        "algo.critic_epochs": "4",
        "algo.minibatches": "2",
        "algo.clip": "0.15",
        "algo.clip_value": "true",
        "algo.entropy_coef": "0.003",
        "algo.max_grad_norm": "5.0",
        "algo.discount": "0.97",
        "algo.gae_lambda": "0.9",
        "algo.huber_delta": "8.0",
        "algo.guard": "none",
        "algo.value_decay": "0.99999",
        "algo.value_statistics_per": "minibatch",
    }
    code, usual, unused, *differs = lines  # no key is left out
    assert code.startswith("set, as in HARL's code: num_seeds=1, ")
    assert usual.startswith("equal to hajax's defaults: ")
    assert {"model.opti_eps", "algo.share_param"} <= set(usual.partition(": ")[2].split(", "))
    assert set(unused.removeprefix("no effect: ").split(", ")) == {
        *("device.cuda", "device.cuda_deterministic", "device.torch_threads", "train.log_interval", "logger.log_dir"),
        *("render.use_render", "render.render_episodes", "main_args.exp_name", "main_args.load_config"),
        *("eval.n_eval_rollout_threads", "model.std_x_coef", "model.std_y_coef", "model.data_chunk_length"),
        "model.recurrent_n",
    }
    assert all(line.startswith("differs: ") for line in differs)


def test_continuous_actions_are_in_native_units_in_mpe_but_not_in_mamujoco(translated):
    _, settings, _ = translated("mappo", "pettingzoo_mpe", on_policy(), SPREAD | {"continuous_actions": True})
    run = composed(settings)
    assert (run["env.actions"], run["algo.action_scaling"], run["algo.std_scale"]) == ("continuous", False, 0.4)
    assert settings["algo.sharing"] == "none"
    assert "algo.guard" not in settings
    robot = {"scenario": "HalfCheetah-v2", "agent_conf": "2x3", "agent_obsk": 0, "episode_limit": 500}
    _, settings, lines = translated("haa2c", "mamujoco", on_policy(CRITIC | {"a2c_epoch": 2}), robot)
    assert (settings["env"], settings["env.version"]) == ("mamujoco/half_cheetah_2x3", "v4")
    assert (settings["env.max_steps"], settings["algo.epochs"], settings["algo.std_scale"]) == ("500", "2", "0.4")
    assert "algo.action_scaling" not in settings
    assert any("version 4" in line for line in lines)


@pytest.mark.parametrize(
    ("kind", "scenario", "radius", "choices"),
    [
        ("pettingzoo_mpe", SPREAD, "0.004", "5 choices of an agent"),
        ("pettingzoo_mpe", SPREAD | {"scenario": "simple_reference_v2"}, "0.0004", "50 choices of an agent"),
        ("pettingzoo_mpe", SPREAD | {"scenario": "simple_speaker_listener_v3"}, "0.004", "5 choices of an agent"),
        ("smac", {"map_name": "2s3z"}, "0.0033", "6 choices available early in a training"),
    ],
)
def test_hatrpo_s_threshold_of_choices_is_divided_by_their_number(translated, kind, scenario, radius, choices):
    _, settings, lines = translated("hatrpo", kind, on_policy(TRUST_REGION), scenario)
    assert settings["algo.kl_radius"] == radius
    about = f"algo.kl_threshold=0.02: algo.kl_radius={radius}, divided by the {choices}: "
    assert lines[0].startswith(about)
    assert (settings["algo.line_search_steps"], settings["algo.accept_ratio"]) == ("7", "0.4")
    assert (settings["algo.backtrack"], settings["algo.minibatches"]) == ("0.6", "2")
    assert any(line.startswith("no effect: ") and "model.lr" in line for line in lines)


def test_hatrpo_s_threshold_of_gaussians_is_hajax_s(translated):
    scenario = SPREAD | {"continuous_actions": True}
    _, settings, lines = translated("hatrpo", "pettingzoo_mpe", on_policy(TRUST_REGION), scenario)
    assert settings["algo.kl_radius"] == "0.02"
    assert not any("kl_threshold" in line for line in lines)


def test_hatd3_on_mamujoco(translated):
    twin = {"expl_noise": 0.2, "policy_noise": 0.3, "noise_clip": 0.4, "policy_freq": 4}
    robot = {"scenario": "Ant-v2", "agent_conf": "4x2"}
    sections = off_policy(twin, {"final_activation_func": "tanh"})
    _, settings, _ = translated("hatd3", "mamujoco", sections, robot)
    assert settings == {
        "algo": "hatd3",
        "env": "mamujoco/ant_4x2",
        "seed": "3",
        "num_seeds": "1",
        "total_steps": "102000",
        "num_envs": "8",
        "rollout_length": "20",
        "eval_interval": "800",
        "eval.episodes": "8",
        "lr_decay": "true",
        "env.version": "v4",
        "algo.others": "policy",
        "algo.hidden_sizes": "[32]",
        "algo.actor_lr": "0.0002",
        "algo.critic_lr": "0.0004",
        "algo.discount": "0.98",
        "algo.buffer_size": "5000",
        "algo.batch_size": "64",
        "algo.warmup_steps": "2000",  # HARL rounds down to whole steps of all environments
        "algo.target_rate": "0.01",
        "algo.n_step": "3",
        "algo.updates_per_step": "0.5",
        "algo.exploration_noise": "0.2",
        "algo.target_noise": "0.3",
        "algo.target_noise_clip": "0.4",
        "algo.policy_delay": "4",
    }
    _, settings, lines = translated("maddpg", "mamujoco", sections, {"scenario": "Humanoid-v2", "agent_conf": "9|8"})
    assert (settings["env"], settings["algo.others"]) == ("mamujoco/humanoid_9_8", "replay")
    assert "algo.policy_noise=0.3: maddpg on mamujoco/humanoid_9_8 has no such setting" in lines
    assert "differs: HARL multiplies actions by their bound of 0.4 twice, and hajax once" in lines


SOFT = {"auto_alpha": True, "alpha": 0.3, "alpha_lr": 0.001, "use_huber_loss": True, "huber_delta": 10.0}
SOFT |= {"use_policy_active_masks": True}


def test_hasac_with_choices_and_a_temperature_that_adapts(translated):
    model = {"use_feature_normalization": True, "final_activation_func": "tanh", "gain": 0.01}
    sections = off_policy(SOFT, model, {"use_valuenorm": True})
    _, settings, lines = translated("hasac", "smac", sections, {"map_name": "MMM2", "state_type": "FP"})
    assert settings["env"] == "smax/2M7m_vs_3M8m"
    assert (settings["algo.temperature"], settings["algo.temperature_lr"]) == ("1.0", "0.001")
    assert settings["algo.target_entropy_share"] == "0.0"
    assert "env.state" not in settings
    keys = {line.partition("=")[0] for line in lines if re.match(r"[a-z_]+\.\w+=", line)}
    assert keys == {
        *("env_args.state_type", "train.use_valuenorm", "algo.use_huber_loss"),
        "model.use_feature_normalization",
    }
    assert any(line.startswith("no effect: ") and "algo.alpha" in line for line in lines)
    assert "differs: 2M7m_vs_3M8m has no medivacs, which MMM2 has" in lines


def test_hasac_with_a_fixed_temperature(translated):
    sections = off_policy(SOFT | {"auto_alpha": False, "use_huber_loss": False}, {"final_activation_func": "tanh"})
    scenario = {"scenario": "manyagent_swimmer", "agent_conf": "5x2"}
    _, settings, lines = translated("hasac", "mamujoco", sections, scenario)
    assert settings["env"] == "mamujoco/many_agent_swimmer_5x2"
    assert (settings["algo.auto_temperature"], settings["algo.temperature"]) == ("false", "0.3")
    assert lines[0] == "model.final_activation_func=tanh: all hidden layers have algo.activation"


def test_had3qn_s_networks(translated):
    model = {"base_hidden_sizes": [24], "dueling_v_hidden_sizes": [12], "dueling_a_hidden_sizes": [8]}
    model |= {"base_activation_func": "tanh", "dueling_v_activation_func": "hardswish"}
    sections = off_policy({"epsilon": 0.1}, {"lr": 0.0005})
    sections["model"] = {"lr": 0.0002, "critic_lr": 0.001} | model
    _, settings, lines = translated("had3qn", "pettingzoo_mpe", sections, SPREAD)
    assert (settings["algo.hidden_sizes"], settings["algo.head_sizes"]) == ("[24]", "[12]")
    assert (settings["algo.epsilon"], settings["algo.activation"]) == ("0.1", "tanh")
    assert "model.dueling_a_hidden_sizes=[8]: both streams have [12]" in lines
    assert "model.dueling_v_activation_func=hardswish: all layers have algo.activation" in lines


def test_memory_and_states_of_agents_on_smac(translated):
    scenario = {"map_name": "5m_vs_6m", "state_type": "FP"}
    _, settings, lines = translated("happo", "smac", on_policy(model={"use_recurrent_policy": True}), scenario)
    assert (settings["env"], settings["env.state"]) == ("smax/5m_vs_6m", "fp")
    assert (settings["algo.memory"], settings["algo.chunk_length"]) == ("gru", "5")
    assert any(line.startswith("differs: SMAX is not StarCraft") for line in lines)
    _, settings, lines = translated(
        *("mappo", "smacv2"), on_policy(model={"use_naive_recurrent_policy": True}), {"map_name": "zerg_5_vs_5"}
    )
    assert settings["env"] == "smax/smacv2_5_units"
    assert (settings["algo.memory"], settings["algo.chunk_length"]) == ("gru", "50")
    assert "model.use_naive_recurrent_policy=true: algo.memory=gru with chunks as long as a rollout" in lines


def test_switches_that_are_off(translated):
    off = {"use_max_grad_norm": False, "use_gae": False, "use_huber_loss": False, "critic_num_mini_batch": 1}
    off |= {"share_param": True, "fixed_order": True, "use_clipped_value_loss": False}
    sections = on_policy(PPO | off, {"use_feature_normalization": False}, {"use_valuenorm": False})
    sections["seed"] = {"seed_specify": False, "seed": 9}
    _, settings, lines = translated("happo", "pettingzoo_mpe", sections, SPREAD)
    run = composed(settings)
    assert (run["algo.max_grad_norm"], run["algo.gae_lambda"], run["algo.value_loss"]) == (float("inf"), 1, "squared")
    assert (run["algo.sharing"], run["algo.order"]) == ("type", "fixed")
    assert (run["algo.layer_norm"], run["algo.layer_norm_min_inputs"]) == (True, 1_000_000)
    assert (run["algo.normalize_values"], run["algo.clip_value"], run["seed"]) == (False, False, 0)
    assert "algo.value_decay" not in settings
    assert "algo.critic_num_mini_batch=1: the critic has the actors' number" in lines
    assert "algo.use_gae=false: algo.gae_lambda=1, which is the same" in lines
    assert "differs: HARL updates shared parameters once for each agent, and hajax once for all" in lines


def test_keys_without_a_counterpart_and_unknown_ones(translated):
    algo = PPO | {"value_loss_coef": 0.5, "action_aggregation": "mean", "temper": 2}
    sections = on_policy(algo, {"weight_decay": 0.1, "initialization_method": "xavier_uniform_"})
    _, _, lines = translated("happo", "pettingzoo_mpe", sections, SPREAD)
    assert [line for line in lines if re.match(r"[a-z_]+\.\w+=", line)] == [
        "model.initialization_method=xavier_uniform_: hajax's layers are initialized orthogonally",
        "model.weight_decay=0.1: hajax has no weight decay",
        "algo.value_loss_coef=0.5: the actors and the critic have optimizers of their own, and the weight is 1",
        "algo.action_aggregation=mean: hajax's ratio is that of an agent's whole action",
        "algo.temper=2: happo on mpe/simple_spread has no such setting",
    ]


def test_a_pair_of_yaml_files(tmp_path, capsys):
    algorithm, environment = tmp_path / "happo.yaml", tmp_path / "pettingzoo_mpe.yaml"
    algorithm.write_text(yaml.safe_dump(on_policy(train={"num_env_steps": "1e5"})))
    environment.write_text("scenario: simple_reference_v2  # of three\ncontinuous_actions: False\n")
    _, settings, _ = result(from_harl.main([str(algorithm), str(environment)]), capsys)
    assert (settings["algo"], settings["env"]) == ("happo", "mpe/simple_reference")
    assert (settings["total_steps"], settings["algo.actor_lr"]) == ("100000", "0.0003")
    mine = algorithm.rename(tmp_path / "mine.yaml")
    _, settings, _ = result(from_harl.main([str(mine), "--algo", "mappo", "--env", "mpe"]), capsys)
    assert (settings["algo"], settings["env"], settings["env.actions"]) == ("mappo", "mpe/simple_spread", "continuous")
    _, _, refusal = result(from_harl.main([str(mine), "--env", "mpe"]), capsys)
    assert refusal.startswith("from_harl: --algo=missing; allowed: happo, hatrpo, ")
    _, _, refusal = result(from_harl.main([str(mine), "--algo", "happo", "--env", "smac"]), capsys)
    assert refusal.startswith("from_harl: env_args.map_name=missing; allowed: 10m_vs_11m, ")


ALLOWED_ENVIRONMENTS = "pettingzoo_mpe, smac, smacv2, mamujoco"


@pytest.mark.parametrize(
    ("algo", "kind", "sections", "scenario", "message"),
    [
        ("happo", "football", on_policy(), {}, f"main_args.env=football; allowed: {ALLOWED_ENVIRONMENTS}"),
        ("happo", "gym", on_policy(), {}, f"main_args.env=gym; allowed: {ALLOWED_ENVIRONMENTS}"),
        ("qmix", "smac", on_policy(), {}, "main_args.algo=qmix; allowed: happo, hatrpo, haa2c, mappo, "),
        (
            "happo",
            "smac",
            on_policy(),
            {"map_name": "2c_vs_64zg"},
            "env_args.map_name=2c_vs_64zg; allowed: 10m_vs_11m, ",
        ),
        (
            "happo",
            "smacv2",
            on_policy(),
            {"map_name": "zerg_10_vs_11"},
            "env_args.map_name=zerg_10_vs_11; allowed: pro",
        ),
        (
            "happo",
            "pettingzoo_mpe",
            on_policy(),
            {"scenario": "simple_tag_v2"},
            "env_args.scenario=simple_tag_v2; allowed",
        ),
        (
            *("happo", "mamujoco", on_policy(), {"scenario": "Ant-v2", "agent_conf": "3x3"}),
            "env_args.scenario=Ant-v2 with agent_conf=3x3; allowed: ant_2x4, ",
        ),
        (
            *("happo", "pettingzoo_mpe", on_policy(model={"activation_func": "selu"}), SPREAD),
            "model.activation_func: algo.activation=selu; allowed: relu, tanh, elu, gelu, silu",
        ),
        (
            *("happo", "pettingzoo_mpe", on_policy(train={"num_env_steps": "many"}), SPREAD),
            "train.num_env_steps=many; allowed: a number >= 1",
        ),
        (
            *("haddpg", "pettingzoo_mpe", off_policy(), SPREAD),
            "the configuration: action_space=Discrete(n=5) of agent_0 does not suit haddpg",
        ),
        (
            *("hasac", "pettingzoo_mpe", off_policy(train={"warmup_steps": 40}), SPREAD),
            "train.warmup_steps: algo.warmup_steps=40 ends before there is a minibatch",
        ),
    ],
)
def test_refusals_name_the_key_the_value_and_what_is_allowed(translated, algo, kind, sections, scenario, message):
    code, _, refusal = translated(algo, kind, sections, scenario)
    assert code == 2
    assert refusal.startswith(f"from_harl: {message}")


@pytest.mark.parametrize("text", ["{", "[]"])
def test_files_that_are_no_configuration(tmp_path, capsys, text):
    (tmp_path / "config.json").write_text(text)
    code, _, refusal = result(from_harl.main([str(tmp_path / "config.json")]), capsys)
    assert code == 2
    assert str(tmp_path / "config.json") in refusal


def test_every_key_is_in_the_page():
    page = (ROOT / "docs" / "coming-from-harl.md").read_text(encoding="utf-8")
    for key, setting in from_harl.TABLES["settings"].items():
        assert re.search(rf"`{key}[`=]", page), key
        assert setting in page, setting
