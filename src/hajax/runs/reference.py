"""Every setting with its meaning, default and range, as rows: for `--help`, and as the page docs/settings.md.

python -m hajax.runs.reference > docs/settings.md
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from hajax.algorithms import find_algorithm, find_template, list_algorithms, list_templates
from hajax.core.off_policy.settings import OffPolicySettings
from hajax.core.settings import BaseHyperparameters
from hajax.envs import describe_options, list_envs
from hajax.runs import nodes
from hajax.runs.errors import shown
from hajax.runs.settings import Described, describe
from hajax.validation import About, about

REWARD = About(
    "the kind of reward that it learns from, and that environments give by default", choices=("team", "individual")
)
PAGE = """\
# Settings

Every setting of `hajax train`, made by `make settings` from the dataclasses and signatures that state them.
`hajax train algo=NAME env=NAME --help` shows those of one run; `make_algorithm` and `make_env` take the same names
without `algo.` and `env.`.

## A run

{run}

## Algorithms

`algo=NAME` chooses one. Where algorithms differ, the defaults say of which; a setting that is only some algorithms' is
none of the others'.

{algorithms}

### Templates

`algo=haml` and `algo=mehaml` take their parts by name. They have the settings of `haa2c` and of `hasac`, as far as the
parts read them, and those that the parts bring.

{templates}

## Environments

`env=NAME` chooses one. Its reward is of the kind that the algorithm learns from, unless it is given.

{environments}
"""


def algorithm_rows(name: str, **parts: Any) -> list[Described]:
    """The settings of an algorithm; of a template, with those that these parts bring."""
    template = find_template(name)
    entry = find_algorithm(name, **parts)
    rows = [Described("algo.reward", nodes.reward_of(entry), ", ".join(REWARD.choices), REWARD.meaning)]
    for owner in (*([] if template is None else [template(**parts)]), entry.settings, entry.hyperparameters):
        for field in dataclasses.fields(owner):
            said = about(type(owner), field.name)
            if isinstance(owner, BaseHyperparameters):
                said = dataclasses.replace(said, kind="float")
            default = getattr(owner, field.name)
            rows.append(Described(f"algo.{field.name}", default, said.range(), said.meaning, said.unit))
    return rows


def environment_rows(name: str) -> list[Described]:
    """The options of an environment."""
    options = nodes.environment_node(name) | {"reward": "algo.reward"}  # whose value it is
    return [
        Described(f"env.{option}", options.get(option), said.range(), said.meaning)
        for option, said in describe_options(name).items()
    ]


def page() -> str:
    """The page of all settings, in Markdown."""
    ours = [name for name in list_algorithms() if nodes.is_ours("algo", name)]
    environments: dict[str, list[str]] = {}
    for name in list_envs():
        if nodes.is_ours("env", name):
            environments.setdefault(_table(_of_one(environment_rows(name))), []).append(name)
    return PAGE.format(
        run=_table(_of_one(describe())),
        algorithms=_table(_of_many({name: algorithm_rows(name) for name in ours})),
        templates=_table(row for name in list_templates() for row in _template_rows(name)),
        environments="\n\n".join(f"{_code(names)}:\n\n{table}" for table, names in environments.items()),
    )


def _template_rows(name: str) -> list[tuple[str, ...]]:
    """Its parts, and what they bring beside the settings of the parts that it has by default."""
    parts = nodes.parts_of(name)
    usual = {row.name: row for row in algorithm_rows(name)}
    rows = [_cells(usual[f"algo.{part}"], f"`{shown(usual[f'algo.{part}'].default)}` (`{name}`)") for part in parts]
    brought: dict[str, tuple[Described, list[str]]] = {}
    for part in parts:
        for choice in nodes.choices_of(name, part):
            for row in algorithm_rows(name, **{part: choice}):
                if row.name not in usual:
                    brought.setdefault(row.name, (row, []))[1].append(f"{part}={shown(choice)}")
    return rows + [
        _cells(row, f"`{shown(row.default)}` (`{name}` with {_code(choices)})") for row, choices in brought.values()
    ]


def _of_one(rows: Iterable[Described]) -> list[tuple[str, ...]]:
    return [_cells(row, f"`{shown(row.default)}`") for row in rows]


def _of_many(rows: Mapping[str, list[Described]]) -> list[tuple[str, ...]]:
    """A row for each setting, with its default in each algorithm."""
    off_policy = {name for name in rows if isinstance(find_algorithm(name).settings, OffPolicySettings)}
    sets = {"": set(rows), "off-policy": off_policy, "on-policy": set(rows) - off_policy}
    # A setting that both halves have with another meaning has a row in each.
    found: dict[tuple[str, str], tuple[Described, dict[str, list[str]]]] = {}
    for name, own in rows.items():
        for row in own:
            _, defaults = found.setdefault((row.name, row.meaning), (row, {}))
            defaults.setdefault(shown(row.default), []).append(name)
    cells = []
    for row, defaults in found.values():
        every = {name for names in defaults.values() for name in names}
        label = next(
            (label for label, kind in sets.items() if kind == every), _code(sorted(every, key=list(rows).index))
        )
        usual = max(defaults, key=lambda default: len(defaults[default]))
        others = [f", `{value}` ({_code(names)})" for value, names in defaults.items() if value != usual]
        cells.append(_cells(row, f"`{usual}`{f' ({label})' if label else ''}{''.join(others)}"))
    return cells


def _cells(row: Described, default: str) -> tuple[str, ...]:
    return f"`{row.name}`", default, row.allowed, row.text


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    lines = [("setting", "default", "allowed", "meaning"), ("---",) * 4, *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    print(page(), end="")
