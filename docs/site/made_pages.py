"""The pages of the documentation site that are made from the library itself."""

from __future__ import annotations

import ast
import base64
import dataclasses
import inspect
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from nbconvert import MarkdownExporter

import hajax
from hajax.algorithms import describe_algorithm
from hajax.envs import describe_env
from hajax.runs import config as run_config
from hajax.runs import nodes, reference
from hajax.runs.errors import shown
from hajax.validation import about

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
AT_ROOT = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
# Where the results of an environment are described.
RESULTS = {"mpe": "mpe.md", "smax": "smax.md", "mamujoco": "mamujoco.md", "sisl": "pursuit.md"}
TABLES = "algorithms-environments-presets"
THEMES = {
    "Training": "train Training preset save load plot render load_policy Policy population",
    "Functions of JAX": "make_env make_algorithm make_train make_loop make_evaluate shard",
    "Specifications and data": "EnvSpec AgentSpec Discrete MultiDiscrete Box Timestep Environment on_policy_batch "
    "OnPolicyBatch off_policy_batch OffPolicyBatch envs",
    "Algorithms": "Algorithm haml mehaml drifts neighborhoods settings nn check_drift",
    "Names": "list_algorithms list_envs register_algorithm register_env",
}


def ours(group: str) -> list[str]:
    """The algorithms or environments of the library, without extensions that are installed."""
    names = hajax.list_algorithms() if group == "algo" else hajax.list_envs()
    return [name for name in names if nodes.is_ours(group, name)]


def themes() -> Iterator[tuple[str, tuple[str, ...]]]:
    """The public names by theme; every one has to be there."""
    listed = [(theme, tuple(names.split())) for theme, names in THEMES.items()]
    missing = {*hajax.__all__} - {"__version__"} ^ {name for _, names in listed for name in names}
    if missing:
        raise SystemExit(f"docs/site/made_pages.py: THEMES and hajax.__all__ differ in {', '.join(sorted(missing))}")
    return iter(listed)


def generated() -> Iterator[tuple[str, str]]:
    """Every made page, by where it is in the site."""
    for name, uri in AT_ROOT.items():
        yield uri, (ROOT / name).read_text(encoding="utf-8")
    for path in notebooks():
        yield f"notebooks/{path.stem}.md", notebook_page(path)
    yield "algorithms/index.md", algorithms_page()
    runs = kept_runs()
    for name in ours("algo"):
        yield f"algorithms/{name}.md", algorithm_page(name, runs)
    yield "reference/index.md", reference_page()
    yield f"reference/{TABLES}.md", tables_page()
    for name in hajax.__all__:
        if name != "__version__":
            yield f"reference/{name}.md", public_page(name)


def notebooks() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def notebook_page(path: Path) -> str:
    """A notebook with its outputs; pictures are in the page itself."""
    text, resources = MarkdownExporter().from_filename(str(path))
    for name, picture in resources["outputs"].items():
        text = text.replace(f"({name})", f"({_data_uri(name, picture)})")
    return text


def _data_uri(name: str, picture: bytes) -> str:
    return f"data:image/{Path(name).suffix[1:]};base64,{base64.b64encode(picture).decode()}"


def algorithms_page() -> str:
    rows = [f"| [`{name}`]({name}.md) | {describe_algorithm(name)} |" for name in ours("algo")]
    return "\n".join(["# Algorithms", "", "| `algo=` | |", "|---|---|", *rows, ""])


def algorithm_page(name: str, runs: list[dict[str, Any]]) -> str:
    """What an algorithm computes, its settings, and the committed runs."""
    path = ROOT / "src" / "hajax" / "algorithms" / f"{name}.py"
    title, _, paper = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")
    settings = reference.table(reference.of_one(reference.algorithm_rows(name)))
    found = [run for run in runs if run["algo"] == name]
    rows = ["| run | environment | steps | seeds | final evaluation |", "|---|---|---|---|---|"]
    rows += [
        f"| {x['link']} | [`{x['env']}`]({x['page']}) | {x['steps']} | {x['seeds']} | {x['score']} |" for x in found
    ]
    results = "\n".join(rows) if found else "No committed run."
    return f"""\
# {name.upper()}

{title} `hajax train algo={name}`, `hajax.make_algorithm("{name}", env)`.
{paper}

## What it computes

::: hajax.algorithms.{name}.{name}
    options:
      heading_level: 3

## Settings

{settings}

## Committed runs

The interquartile mean over seeds with its 95% bootstrap interval. A run's link is its configuration. Runs of one
environment differ in their settings, and some are ablations: the page of the environment's results says what they show.
Those whose configuration has no `guard` used the compound ratio as it is.

{results}
"""


def kept_runs() -> list[dict[str, Any]]:
    """The runs in docs/results."""
    found = []
    for path in sorted((DOCS / "results").glob("**/summary.json")):
        run, folder = json.loads(path.read_text(encoding="utf-8")), path.parent.relative_to(DOCS).as_posix()
        won = run.get("eval_metrics", {}).get("win")
        score = won or run["eval_return"]
        low, high = score["ci95"] or (None, None)
        interval = "" if low is None else f" [{low:.3g}, {high:.3g}]"
        page = RESULTS.get(run["env"].split("/")[0], "simulators.md")
        found.append(
            {
                "algo": run["algo"],
                "env": run["env"],
                "page": f"../results/{page}",
                "link": f"[{folder.removeprefix('results/')}](../{folder}/config.yaml)",
                "steps": f"{run['eval_step']:,}",
                "seeds": run["num_seeds"],
                "score": f"{'win rate' if won else 'return'} {score['iqm']:.4g}{interval}",
            }
        )
    return sorted(found, key=lambda run: run["env"])


def reference_page() -> str:
    """The public names by theme, each with its first line."""
    lines = ["# Reference", "", "Everything that `import hajax` offers, and every [setting](../settings.md)."]
    for theme, names in themes():
        lines += ["", f"## {theme}", "", "| name | |", "|---|---|"]
        for name in names:
            summary = (inspect.getdoc(getattr(hajax, name)) or "").partition("\n\n")[0].replace("\n", " ")
            lines.append(f"| [`hajax.{name}`]({name}.md) | {summary.replace('|', chr(92) + '|')} |")
    return "\n".join([*lines, ""])


def public_page(name: str) -> str:
    """A public name from its docstring; a module with its public names."""
    value = getattr(hajax, name)
    lines = [f"# hajax.{name}", ""]
    if inspect.ismodule(value):
        lines += [inspect.getdoc(value) or "", ""]
        for member in value.__all__:
            fields = name == "settings" and dataclasses.is_dataclass(getattr(value, member))
            lines += _fields_of(getattr(value, member)) if fields else _documented(getattr(value, member), member)
    else:
        lines += _documented(value, name)
    return "\n".join(lines)


def _fields_of(owner: type) -> list[str]:
    """A class of settings with all of its fields."""
    rows = ["| field | default | allowed | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(owner):
        said = about(owner, field.name)
        rows.append(f"| `{field.name}` | `{shown(field.default)}` | {said.range()} | {said.meaning} |")
    return [f"## {owner.__name__}", "", inspect.getdoc(owner) or "", "", *(rows if rows[2:] else []), ""]


def _documented(value: Any, name: str) -> list[str]:
    """A name by its docstring, and of a class of data its fields, with the comments beside them."""
    home = inspect.getmodule(value)
    if home is None or not hasattr(value, "__qualname__"):  # a constant, such as a dictionary or a neighborhood
        home = next(module for module in (hajax.drifts, hajax.neighborhoods) if name in module.__all__)
        return [f"::: {home.__name__}.{name}", ""]
    lines = [f"::: {value.__module__}.{value.__qualname__}", ""]
    if not inspect.isclass(value) or not (hasattr(value, "_fields") or dataclasses.is_dataclass(value)):
        return lines
    source = textwrap.dedent(inspect.getsource(value))
    rows, functions = [], []
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and not ast.unparse(node.annotation).startswith("ClassVar"):
            kind, comment = ast.unparse(node.annotation), source.splitlines()[node.end_lineno - 1].partition("# ")[2]
            rows.append(f"| `{ast.unparse(node.target)}` | `{kind.replace('|', chr(92) + '|')}` | {comment} |")
            if getattr(getattr(home, kind, None), "_is_protocol", False):
                functions += [f"::: {value.__module__}.{kind}.__call__", "    options:"]
                functions += [f"      heading: {ast.unparse(node.target)}", "      heading_level: 3", ""]
    return [*lines, "| field | type | |", "|---|---|---|", *rows, "", *functions] if rows else lines


def tables_page() -> str:
    """The environments and presets."""
    lines = ["# Environments and presets", "", "## Environments", "", "| `env=` | |", "|---|---|"]
    lines += [f"| `{name}` | {describe_env(name)} |" for name in ours("env")]
    lines += [f"| `{form}` | {text} |" for form, text in run_config.environments_elsewhere().items()]
    lines += ["", "## Presets", "", "| `preset=` | for | what | settings |", "|---|---|---|---|"]
    for name in run_config.options("preset"):
        node = yaml.safe_load((run_config.conf_dir() / "preset" / f"{name}.yaml").read_text(encoding="utf-8"))
        fits = [f"`{x}`" for group in node.get("fits", {}).values() for x in group]
        node = {key: value for key, value in node.items() if key not in ("defaults", "fits", "preset")}
        changed = [f"`{key}={json.dumps(value)}`" for key, value in run_config.flat(node)]
        what = run_config.description("preset", name)
        lines.append(f"| `{name}` | {', '.join(fits)} | {what} | {' '.join(changed)} |")
    return "\n".join([*lines, ""])
