"""Settings have one source: the dataclasses say what each means and may be, and the rest is made of that."""

import dataclasses
import itertools
import math
import pickle
from pathlib import Path

import jax
import numpy as np
import problems
import pytest
import yaml
from tiny import TINY

import hajax
import hajax.algorithms
import hajax.settings
from hajax.algorithms import find_algorithm, find_template, list_algorithms, list_templates
from hajax.cli import main
from hajax.envs import describe_options, list_envs
from hajax.runs import config, reference
from hajax.runs.errors import Refusal, shown
from hajax.runs.settings import (
    CheckpointSettings,
    EvalSettings,
    PopulationSettings,
    TrainSettings,
    describe,
    run_fields,
)
from hajax.settings import BaseHyperparameters, TeamSettings, combined, setting
from hajax.spaces import Box, Discrete
from hajax.validation import about

# Read before any test registers names of its own.
ALGORITHMS, TEMPLATES, ENVS = list_algorithms(), list_templates(), list_envs()
OWNERS = [owner for name in hajax.settings.__all__ if isinstance(owner := getattr(hajax.settings, name), type)]
OWNERS += [find_template(name) for name in TEMPLATES]
# Parts alone are checked once they are combined with the rest.
WHOLE = [owner for owner in OWNERS if hasattr(owner, "__post_init__") or issubclass(owner, BaseHyperparameters)]


def names(owner):
    return [field.name for field in dataclasses.fields(owner)]


@pytest.mark.parametrize("owner", [*OWNERS, TrainSettings, EvalSettings, CheckpointSettings, PopulationSettings])
def test_every_field_says_what_it_means_and_may_be(owner):
    for name in set(names(owner)) - {"algo", "env", "eval", "checkpoint", "pbt"}:
        said = about(owner, name)
        assert len(said.meaning.split()) >= 2, name
        assert not said.meaning.endswith("."), name
        assert said.kind or said.choices or said.allowed, name
        assert (owner, name) in run_fields().values() or said.range(), name


def wrong_values(owner, name):
    """Values that a setting cannot have, with what is allowed as the message says it."""
    said = about(owner, name)
    if said.choices:
        return [("sideways", ", ".join(said.choices)), (3, ", ".join(said.choices))]
    if said.kind == "bool":
        return [(1, "true, false"), ("true", "true, false")]
    if said.kind == "ints":
        return [([0], "a list of whole numbers >= 1"), (3, "a list of whole numbers >= 1")]
    whole = said.kind == "int" and not issubclass(owner, BaseHyperparameters)
    low = 1 if whole and said.low is None else said.low
    kind = "a whole number" if whole else "a number" if said.range() != "a finite number" else "a finite number"
    wrong = [("much", kind), (None, kind), ([0.5], kind)] + [(1.5, kind)] * whole
    if said.finite:
        wrong.append((math.inf, kind))
    wrong.append((math.nan, kind))
    if low is not None:
        wrong.append((low if said.open_low else low - 1, f"{kind} {'>' if said.open_low else '>='} {low}"))
    if said.high is not None:
        wrong.append((said.high + 1, f"<= {said.high}"))
    return wrong


def made(owner, **values):
    settings = owner(**values)
    getattr(settings, "validate", lambda: None)()
    return settings


@pytest.mark.parametrize("owner", WHOLE)
def test_every_range_is_enforced_by_name(owner):
    for name in names(owner):
        if about(owner, name).allowed:  # which is checked where the agents are known
            continue
        for value, allowed in wrong_values(owner, name):
            with pytest.raises(ValueError, match=rf"^{name}=.*; allowed: ") as error:
                made(owner, **{name: value})
            assert allowed in str(error.value).split("; allowed: ")[1]
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("owner", WHOLE)
def test_every_bound_itself_is_allowed(owner):
    for name in names(owner):
        said = about(owner, name)
        allowed = [said.high, None if said.open_low else said.low, *said.choices, None if said.finite else math.inf]
        for value in allowed:
            if value is not None:
                assert getattr(made(owner, **{name: value}), name) == value


class Mine(hajax.settings.GradientHyperparameters):
    clip: float = 0.3  # another default; meaning and range stay
    tilt: float = -2.0  # declared by nothing
    kl_coef: float = setting(0.1, "β: the weight of the KL divergence", low=0, high=5)


def test_hyperparameters_of_one_s_own_declare_their_own_ranges():
    assert (about(Mine, "clip").open_low, about(Mine, "kl_coef").range()) == (True, ">= 0 and <= 5")
    Mine(tilt=-1e9).validate()
    Mine(tilt=np.float32(3), clip=jax.numpy.asarray(0.1)).validate()
    for wrong, message in (
        ({"clip": 0.0}, "clip=0.0; allowed: a number > 0"),
        ({"kl_coef": 6}, "kl_coef=6; allowed: a number >= 0 and <= 5"),
        ({"tilt": math.inf}, "tilt=inf; allowed: a finite number"),
        ({"tilt": "much"}, "tilt='much'; allowed: a finite number"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            Mine(**wrong).validate()


@dataclasses.dataclass(frozen=True)
class Own(TeamSettings):
    depth: int = 3  # declared by nothing
    share: float = setting(0.5, "a share", low=0, high=1)


def test_so_do_static_settings():
    assert Own(depth=4.0, hidden_sizes=[8]) == Own(depth=4, hidden_sizes=(8,))
    assert isinstance(Own(depth=4.0).depth, int)
    for wrong, message in (({"depth": 0}, "depth=0; allowed: a whole number >= 1"), ({"share": 2}, "share=2; allowed")):
        with pytest.raises(ValueError, match=f"^{message}"):
            Own(**wrong)


def test_combined_classes_are_pickled_by_what_they_are_made_of():
    parts = hajax.settings.Hyperparameters, hajax.settings.BallHyperparameters, hajax.settings.AdaptiveHyperparameters
    owner = combined(combined(*parts[:2]), parts[2])
    assert owner is combined(*parts)
    made = owner(clip=0.3)
    copy = pickle.loads(pickle.dumps(made))
    assert (type(copy), copy) == (owner, made)
    static = combined(hajax.settings.SoftSettings, hajax.settings.BallSettings)(others="policy")
    assert pickle.loads(pickle.dumps(static)) == static


# Hydra's nodes.


@pytest.mark.parametrize("name", [*ALGORITHMS, *TEMPLATES])
def test_a_node_s_defaults_are_those_of_the_signature(name):
    entry, node = find_algorithm(name), config.compose([f"algo={name}"])["algo"]
    parts = {} if name not in TEMPLATES else dataclasses.asdict(find_template(name)())
    stated = {
        f.name: getattr(own, f.name) for own in (entry.settings, entry.hyperparameters) for f in dataclasses.fields(own)
    }
    stated = {key: list(value) if isinstance(value, tuple) else value for key, value in stated.items()}
    assert (
        node
        == {"name": name, "reward": "individual" if name in ("ippo", "maac", "mamd", "mamt", "lola") else "team"}
        | parts
        | stated
    )


def test_a_run_s_node_has_the_dataclasses_defaults():
    composed = dict(config.flat(config.compose([])))
    for name, (owner, field) in run_fields().items():
        default = {f.name: f.default for f in dataclasses.fields(owner)}[field]
        assert composed[name] == (list(default) if isinstance(default, tuple) else default), name


def test_conf_states_no_default():
    assert sorted(path.name for path in config.conf_dir().iterdir()) == ["hydra", "preset", "train.yaml"]
    assert [path.name for path in (config.conf_dir() / "hydra").iterdir()] == ["launcher"]  # not hajax's settings
    wiring = yaml.safe_load((config.conf_dir() / "train.yaml").read_text())
    assert set(wiring) == {"defaults", "hydra"}


# Templates.

DRIFTS, NEIGHBORHOODS = ("no_drift", "ppo_clip", "kl_old_new"), ("unrestricted", "kl_ball")


@pytest.mark.parametrize(
    ("template", "parts", "name"),
    [
        ("haml", {}, "haa2c"),
        ("haml", {"drift": "ppo_clip"}, "happo"),
        ("haml", {"neighborhood": "kl_ball"}, "hatrpo"),
        ("mehaml", {}, "hasac"),
    ],
)
def test_a_template_has_the_settings_of_its_instance(template, parts, name):
    """And makes the same states of the same keys."""
    spec = problems.make_spec([Discrete(2)] * 2)
    made = hajax.make_algorithm(template, spec, hidden_sizes=(4,), **parts)
    instance = hajax.make_algorithm(name, spec, hidden_sizes=(4,))
    assert vars(made.settings) == vars(instance.settings)
    assert vars(made.hyperparameters) == vars(instance.hyperparameters)
    one, other = (algo.init(jax.random.key(0))._replace(hyperparameters=None) for algo in (made, instance))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("drift", DRIFTS)
@pytest.mark.parametrize("neighborhood", NEIGHBORHOODS)
def test_templates_are_composed_with_the_settings_of_their_parts(template, drift, neighborhood):
    chosen = [f"algo={template}", f"algo.drift={drift}", f"algo.neighborhood={neighborhood}"]
    algo = config.compose([*chosen, "algo.hidden_sizes=[4]"])["algo"]
    assert ("kl_radius" in algo, "actor_lr" in algo) == ((True, False) if neighborhood == "kl_ball" else (False, True))
    assert ("drift_coef" in algo) == (drift == "kl_old_new")
    assert ("clip" in algo) == (drift == "ppo_clip" or template == "haml")  # which the value's loss reads too
    assert "???" not in algo.values()
    options = {key: value for key, value in algo.items() if key not in ("name", "reward")}
    spec = problems.make_spec([Discrete(2)] * 2)
    assert hajax.make_algorithm(template, spec, **options).name == template


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algo.drift=kl"], "algo.drift=kl; allowed: no_drift, ppo_clip, kl_old_new"),
        (
            ["algo.kl_radius=0.1"],
            "algo.kl_radius=0.1: haml has no kl_radius with .*; allowed with algo.neighborhood=kl_ball$",
        ),
        (["algo.kl_target=0.1"], "algo.kl_target=0.1: haml has no kl_target .*; allowed with algo.adaptive=true$"),
        (["algo.drift=kl_old_new", "algo.driftcoef=1"], "algo.driftcoef=1: .*; did you mean algo.drift_coef or"),
    ],
)
def test_what_a_template_s_parts_do_not_read_is_refused(overrides, message):
    with pytest.raises(Refusal, match=rf"^{message}"):
        config.compose(["algo=haml", *overrides])


def test_a_drift_that_does_not_adapt_is_refused_as_it_was_typed(capsys):
    assert main(["train", *TINY, "algo=haml", "algo.adaptive=true", "out_dir=refused"]) == 2
    assert "algo.adaptive=true with a drift that does not read drift_coef" in capsys.readouterr().err


def test_templates_are_swept_at_the_shell(tmp_path, monkeypatch, capsys):
    """Over their drifts and neighborhoods: some of them train, with one seed and one network."""
    monkeypatch.chdir(tmp_path)
    small = [text for text in TINY if not text.startswith(("algo.epochs", "algo.critic_epochs", "num_seeds"))]
    small += ["num_seeds=1", "out_dir=sweep", "total_steps=32"]
    swept = ["algo=haml", "algo.drift=ppo_clip,kl_old_new", "algo.neighborhood=unrestricted,kl_ball"]
    assert main(["train", "-m", *small, *swept]) == 0
    found = {}
    for path in sorted(Path("sweep").glob("*/config.yaml")):
        assert (path.parent / "summary.json").exists()
        found[path.parent.name] = yaml.safe_load(path.read_text())["algo"]
    runs = [f"drift={drift},neighborhood={ball}" for drift, ball in itertools.product(DRIFTS[1:], NEIGHBORHOODS)]
    assert set(found) == set(runs)
    assert [("drift_coef" in found[name], "kl_radius" in found[name]) for name in runs] == [
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    ]
    off_policy = ["algo.warmup_steps=16", "algo.batch_size=8", "algo.buffer_size=400"]
    swept = ["algo=mehaml", "algo.drift=no_drift,kl_old_new", "algo.expectation=exact"]
    small = [text for text in small if not text.startswith(("out_dir", "total_steps"))]
    assert main(["train", "-m", *small, *off_policy, *swept, "out_dir=soft", "total_steps=64"]) == 0
    assert len(list(Path("soft").glob("*/summary.json"))) == 2


OWN_ALGORITHM = """
import hajax
from hajax.settings import GradientHyperparameters, GradientSettings, setting

class Numbers(GradientHyperparameters):
    tilt: float = setting(-1.0, "a number that may be negative")

def leaning(spec, settings=GradientSettings(epochs=2), hyperparameters=Numbers(), **networks):
    \"\"\"HAA2C with a number of its own.\"\"\"
    return hajax.haml("leaning", spec, settings, hyperparameters, **networks)

def careless(spec):
    return None
"""


def test_an_algorithm_of_one_s_own_is_trained_by_its_place(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(OWN_ALGORITHM)
    monkeypatch.setattr("sys.path", [str(tmp_path), *__import__("sys").path])
    small = [text for text in TINY if not text.startswith("algo.epochs")]
    assert main(["train", *small, "algo=mine:leaning", "algo.tilt=-3.5", "total_steps=32", "out_dir=run"]) == 0
    settings = yaml.safe_load(Path("run/config.yaml").read_text())["algo"]
    assert (settings["name"], settings["tilt"], settings["epochs"]) == ("mine:leaning", -3.5, 2)
    assert main(["evaluate", "run", "--episodes", "2"]) == 0
    assert main(["train", "algo=mine:leaning", "--help"]) == 0
    assert "a number that may be negative [a finite number]" in " ".join(capsys.readouterr().out.split())
    for argument, expected in {
        "algo=mine:learning": "module 'mine' has no attribute 'learning'; allowed: module:function",
        "algo=yours:leaning": "No module named 'yours'; allowed: module:function",
        "algo=mine:careless": "function=careless; allowed: a function (spec, settings=…, hyperparameters=…",
        "algo.tilt=null": "algo.tilt=null; allowed: a finite number",
        "algo.tlt=1": "did you mean algo.tilt",
    }.items():
        assert main(["train", *small, "algo=mine:leaning", argument, "out_dir=refused"]) == 2
        assert expected in capsys.readouterr().err
    assert not Path("refused").exists()


# Help and the table.


def help_of(capsys, *overrides):
    assert main(["train", *overrides, "--help"]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_lists_a_run_s_settings_with_default_meaning_and_range(capsys):
    text = help_of(capsys)
    for row in describe():
        assert f" {row.name}={shown(row.default)} {row.text} [{row.allowed}]" in text
    for name in (*ALGORITHMS, *TEMPLATES, *ENVS, "harl/mpe"):
        assert name in text


@pytest.mark.parametrize("name", ["happo", "hasac", "haml"])
def test_help_of_an_algorithm_lists_all_of_its_settings(name, capsys):
    text = help_of(capsys, f"algo={name}", "env=smax/3m", "num_envs=7")
    rows = [*reference.algorithm_rows(name), *describe()]
    assert len(rows) > 50
    for row in rows:
        value = 7 if row.name == "num_envs" else row.default
        assert f" {row.name}={shown(value)} {row.text} [{row.allowed}]" in text
    assert " env.opponent=closest which unit in its range an opponent attacks" in text
    assert " env.reward=team " in text


def test_every_option_of_an_environment_is_explained():
    for name in ENVS:
        for option, said in describe_options(name).items():
            assert said.meaning, f"{name}: {option}"
        assert describe_options(name)["reward"].choices == ("team", "individual")


def test_the_page_of_settings_is_that_of_the_dataclasses():
    """`make settings` writes it."""
    page = (Path(__file__).parents[1] / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == reference.page()
    for name in ALGORITHMS:
        for row in reference.algorithm_rows(name):
            assert f"| `{row.name}` | `" in page
            assert row.text in page


def test_composed_spaces_of_templates_take_boxes():
    spec = problems.make_spec([Box(-1, 1)] * 2)
    assert hajax.make_algorithm("mehaml", spec, drift="kl_new_old", neighborhood="kl_ball").settings.cg_iterations == 10
