"""Turns a configuration of HARL (github.com/PKU-MARL/HARL) into the `hajax train` command that comes nearest to it.

    python examples/from_harl.py CONFIG.json                        a run's configuration, or a tuned one
    python examples/from_harl.py happo.yaml pettingzoo_mpe.yaml     the files of an algorithm and of an environment
    python examples/from_harl.py mine.yaml --algo happo --env mpe   names that the files do not tell

The command is on standard output. Standard error says, a line for each key, what is not carried over as it is, and what
differs in any case. The tables are in from_harl.yaml, and for readers in docs/coming-from-harl.md.
"""

import argparse
import json
import math
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

import hajax
from hajax.runs import config, nodes
from hajax.runs.errors import Refusal, shown
from hajax.runs.settings import validate
from hajax.runs.team import build

TABLES: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
CODE = "HARL's code"  # instead of a key, the origin of a setting
SMAX_CHOICES = 6  # available early in a training (docs/results/kl_metrics.md)


class Translation:
    """The keys of a file that are left to read, the settings found so far, and what is to be said about them."""

    def __init__(self, algo: str, keys: Mapping[str, Any]):
        self.algo, self.on_policy = algo, algo in TABLES["on_policy"]
        self.keys, self.left = keys, dict(keys)
        self.paths = {path.rpartition(".")[2]: path for path in keys}
        self.settings: dict[str, Any] = {}
        self.origin: dict[str, str] = {}  # of a setting: the path of HARL's key, or `CODE`
        self.notes: list[str] = []
        self.differs: list[str] = []
        self.unused: list[str] = []
        self.usual: list[str] = []  # keys with the value that hajax has by default

    def has(self, name: str) -> bool:
        """Whether there is a key that is not read yet."""
        return self.paths.get(name) in self.left

    def get(self, name: str, default: Any = None) -> Any:
        return self.keys.get(self.paths.get(name, ""), default)

    def number(self, name: str, default: float, least: float = 0) -> float:
        """The value of a key that must be positive, and at least `least`. YAML reads 1e7 as text."""
        value = self.get(name, default)
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 < number < math.inf or number < least:
            raise Refusal(f"{self.paths[name]}={shown(value)}; allowed: a number {f'>= {least}' if least else '> 0'}")
        return number

    def count(self, name: str, default: int) -> int:
        return int(self.number(name, default, least=1))

    def read(self, name: str) -> str:
        """The path of the key, which is then read."""
        self.left.pop(self.paths[name], None)
        return self.paths[name]

    def put(self, setting: str, value: Any, name: str | None = None) -> None:
        """Sets what follows from the key `name`, or from HARL's code."""
        self.settings[setting] = value
        self.origin[setting] = self.read(name) if name in self.paths else CODE

    def note(self, name: str, why: str) -> None:
        """Says why a key is not carried over as it is."""
        self.notes.append(f"{self.read(name)}={shown(self.get(name))}: {why}")

    def apply(self, rule: Mapping[str, Any]) -> None:
        """One of the rules of the tables, which applies."""
        for setting, value in rule.get("set", {}).items():
            self.put(setting, value)
        self.unused += [self.read(name) for name in rule.get("unused", ()) if self.has(name)]
        for name, (value, otherwise) in rule.get("only", {}).items():
            if self.has(name) and self.get(name) == value:
                self.usual.append(self.read(name))
            elif self.has(name):
                self.note(name, otherwise)
        self.differs += rule.get("differs", ())

    def applies(self, rule: Mapping[str, Any], env: str, actions: str) -> bool:
        return (
            self.algo in rule.get("algo", [self.algo])
            and fnmatchcase(env, rule.get("env", "*"))
            and actions == rule.get("actions", actions)
            and all(self.get(name) == value for name, value in rule.get("with", {}).items())
            and all(self.get(name) != value for name, value in rule.get("unless", {}).items())
        )


def environment(found: Translation, kind: str) -> str:
    """hajax's name of the environment that HARL calls `kind`, with a scenario or a map."""
    family, key = TABLES["families"][kind], "map_name" if "smac" in kind else "scenario"
    typed = [str(found.get(name, "")) for name in (key, "agent_conf")]
    name = re.sub(r"[-_]v\d+$", "", typed[0])
    if kind == "mamujoco":
        robot = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().replace("manyagent", "many_agent")
        name = f"{robot}_{typed[1].replace('|', '_')}"
    elif kind == "smacv2":
        name = re.sub(r"^(?:protoss|terran|zerg)_(\d+)_vs_\1$", r"smacv2_\1_units", name)
    name = TABLES["maps"].get(name, name)
    if not nodes.has_node("env", f"{family}/{name}"):
        value = " with agent_conf=".join(filter(None, typed)) or "missing"
        raise Refusal(f"env_args.{key}={value}; allowed: {', '.join(counterparts(kind))}")
    for read in {key, "agent_conf"} & set(found.paths):
        found.read(read)
    return f"{family}/{name}"


def counterparts(kind: str) -> list[str]:
    """The scenarios or maps that hajax has."""
    if kind == "smacv2":
        return [f"{race}_{n}_vs_{n}" for race in ("protoss", "terran", "zerg") for n in (5, 10, 20)]
    family = TABLES["families"][kind]
    names = [name.partition("/")[2] for name in config.options("env") if name.startswith(f"{family}/")]
    return [name for name in names if "smacv2" not in name] + (list(TABLES["maps"]) if kind == "smac" else [])


def schedule(found: Translation) -> None:
    """Steps and evaluations, which HARL counts in other units."""
    envs = found.count("n_rollout_threads", 20)
    whole = envs * (found.count("episode_length", 200) if found.on_policy else 1)
    steps = found.count("num_env_steps", 10_000_000) // whole * whole  # HARL rounds down
    if not found.on_policy and found.has("warmup_steps"):  # which come before these steps
        warmup = found.count("warmup_steps", 10_000) // envs * envs
        found.put("algo.warmup_steps", warmup, "warmup_steps")
        steps += warmup
    found.put("total_steps", steps, "num_env_steps")
    if found.has("eval_interval"):
        found.put("eval_interval", found.count("eval_interval", 1) * whole, "eval_interval")


def computed(found: Translation, env: str, actions: str) -> None:
    """Settings that need a computation."""
    schedule(found)
    if found.get("use_naive_recurrent_policy"):
        found.put("algo.chunk_length", found.count("episode_length", 200))
    if found.has("update_per_train") and not found.on_policy:
        interval = found.count("train_interval", 50)  # HARL rounds down the updates in it
        updates = int(found.number("update_per_train", 1) * interval)
        found.put("algo.updates_per_step", updates / interval, "update_per_train")
    if found.algo == "had3qn" and found.has("dueling_a_hidden_sizes"):
        widths = found.get("dueling_v_hidden_sizes")
        found.apply({"only": {"dueling_a_hidden_sizes": [widths, f"both streams have {shown(widths)}"]}})
    minibatches = [name for name in ("actor_num_mini_batch", "critic_num_mini_batch") if found.has(name)]
    for name in minibatches[: found.on_policy]:
        found.put("algo.minibatches", found.get(name), name)
    for name in minibatches[1:] if found.on_policy else []:
        found.apply({"only": {name: [found.settings["algo.minibatches"], "the critic has the actors' number"]}})
    if found.algo == "hatrpo" and found.has("kl_threshold") and actions == "discrete":
        kl_radius(found, env)


def kl_radius(found: Translation, env: str) -> None:
    """The threshold as one of the KL divergence, which HARL's metric is not if actions are choices."""
    choices, which = SMAX_CHOICES, "choices available early in a training"
    if not env.startswith("smax/"):
        choices = max(agent.action_space.n for agent in hajax.make_env(env).spec.agents)
        which = "choices of an agent"
    radius = float(f"{found.number('kl_threshold', 0.01) / choices:.2g}")
    found.put("algo.kl_radius", radius, "kl_threshold")
    why = f"HARL's metric is about {choices} times the KL divergence (docs/results/kl_metrics.md)"
    found.note("kl_threshold", f"algo.kl_radius={radius}, divided by the {choices} {which}: {why}")


def written(name: str, value: Any) -> Any:
    """The value of HARL's key as hajax writes it."""
    return TABLES["values"].get(name, {}).get(value, value) if isinstance(value, bool | str) else value


def translate(algo: str, kind: str, keys: Mapping[str, Any]) -> tuple[list[str], Translation]:
    """The arguments of `hajax train`, and what is to be said about them; `Refusal` if hajax has no such run."""
    found = Translation(algo, keys)
    env = environment(found, kind)
    real = kind == "mamujoco" or (kind == "pettingzoo_mpe" and found.get("continuous_actions", False))
    actions = "continuous" if real else "discrete"
    for rule in TABLES["rules"]:
        if found.applies(rule, env, actions):
            found.apply(rule)
    computed(found, env, actions)
    start = [f"algo={algo}", f"env={env}"]
    defaults = dict(config.flat(config.compose(start)))
    for name, setting in TABLES["settings"].items():
        if found.has(name) and setting in defaults:
            found.put(setting, written(name, found.get(name)), name)
    found.notes += [f"{path}={shown(value)}: {algo} on {env} has no such setting" for path, value in found.left.items()]
    for setting in [setting for setting, value in found.settings.items() if defaults.get(setting) == value]:
        found.usual += [found.origin[setting]] if found.origin[setting] != CODE else []
        del found.settings[setting]
    ordered = sorted(found.settings, key=lambda name: (name.startswith("algo."), name.startswith("env.")))
    arguments = [*start, *(f"{setting}={shown(found.settings[setting])}" for setting in ordered)]
    try:
        build(validate(config.compose(arguments)))
    except Refusal as refusal:
        setting = str(refusal).partition("=")[0]
        raise Refusal(f"{found.origin.get(setting, 'the configuration')}: {refusal}") from refusal
    return arguments, found


def read(path: str) -> dict[str, Any]:
    """The content of a JSON or YAML file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = json.loads(text) if path.endswith(".json") else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Refusal(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise Refusal(f"{path} has no keys; allowed: a configuration file of HARL")
    return content


def parts(path: str, scenario: str | None, algo: str | None, env: str | None) -> tuple[str, str, dict[str, Any]]:
    """The algorithm, the environment, and all keys by their paths, such as `model.lr`."""
    content = read(path)
    named, stems = content.get("main_args", {}), [Path(path).stem, Path(scenario or "").stem]
    found: dict[str, Any] = {}
    for name, flag, allowed in (("algo", algo, TABLES["algorithms"]), ("env", env, TABLES["families"])):
        unknown = stems[1] if name == "env" else None
        in_file = named.get(name) or next((stem for stem in stems if stem in allowed), unknown)
        value = found[name] = "pettingzoo_mpe" if flag == "mpe" else flag or in_file
        if value not in allowed:
            source = f"main_args.{name}" if named and not flag else f"--{name}"
            raise Refusal(f"{source}={value or 'missing'}; allowed: {', '.join(allowed)}")
    usual = content.get("env_args", TABLES["scenarios"].get(found["env"], {}))
    sections = dict(content.get("algo_args", content)) | {"env_args": read(scenario) if scenario else usual}
    sections["main_args"] = {name: value for name, value in named.items() if name not in found}
    return found["algo"], found["env"], {path: x for path, x in config.flat(sections) if not isinstance(x, Mapping)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="JSON, or YAML of an algorithm")
    parser.add_argument("scenario", nargs="?", help="YAML of an environment, instead of HARL's default")
    parser.add_argument("--algo", help=", ".join(TABLES["algorithms"]))
    parser.add_argument("--env", help=f"mpe, {', '.join(TABLES['families'])}")
    given = parser.parse_args(arguments)
    try:
        command, found = translate(*parts(given.config, given.scenario, given.algo, given.env))
    except Refusal as refusal:
        print(f"from_harl: {refusal}", file=sys.stderr)
        return 2
    code = [f"{setting}={shown(value)}" for setting, value in found.settings.items() if found.origin[setting] == CODE]
    lists = {"set, as in HARL's code": code, "equal to hajax's defaults": found.usual, "no effect": found.unused}
    lines = [*found.notes, *(f"{title}: {', '.join(names)}" for title, names in lists.items() if names)]
    print("\n".join([*lines, *(f"differs: {text}" for text in found.differs)]), file=sys.stderr)
    print(f"hajax train {shlex.join(command)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
