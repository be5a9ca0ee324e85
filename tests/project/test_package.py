"""The package as it is installed and imported: lazy names, import time, constraints, the wheel."""

import ast
import itertools
import os
import re
import statistics
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

import hajax

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_every_public_name_resolves():
    assert set(hajax.__all__) == {"__version__", *hajax._HOME_OF}
    for name in hajax.__all__:
        assert getattr(hajax, name) is not None
    assert dir(hajax) == hajax.__all__


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'make_agent'"):
        _ = hajax.make_agent


def test_import_imports_nothing_heavy():
    heavy = "{'jax', 'numpy', 'flax', 'hydra', 'matplotlib', 'jaxmarl'}"
    assert python(f"import sys, hajax; print({heavy} & set(sys.modules))") == "set()"


def test_import_costs_at_most_300_ms_beyond_jax():
    code = "import time, jax; t = time.perf_counter(); import hajax; print(time.perf_counter() - t)"
    assert statistics.median(float(python(code)) for _ in range(3)) <= 0.3


def constraints() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def test_constraints_are_names_and_versions_only():
    for name, version in constraints().items():
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)
        assert re.fullmatch(r"[0-9][A-Za-z0-9.]*", version)
    text = (ROOT / "constraints.txt").read_text()
    assert not re.search(r"://|^-|@|/(home|root|tmp|opt)/", text, re.MULTILINE)


def test_constraints_pin_every_direct_dependency_and_the_fast_jax():
    normalized = {re.sub(r"[-_.]+", "-", name).lower() for name in constraints()}
    extras = PROJECT["optional-dependencies"]
    for requirement in [*PROJECT["dependencies"], *itertools.chain(*extras.values())]:
        if requirement.startswith("hajax["):  # an extra of its own, which is among them
            continue
        name = re.match(r"[A-Za-z0-9._-]+", requirement)[0]
        assert re.sub(r"[-_.]+", "-", name).lower() in normalized, requirement
    assert constraints()["jax"] == constraints()["jaxlib"] == "0.9.2"


def test_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["title"].split(":")[0], citation["version"]) == ("hajax", hajax.__version__)
    assert citation["license"] == PROJECT["license"]
    assert {"cff-version", "message", "authors", "date-released"} <= set(citation)


def test_wheel_carries_the_configurations(tmp_path):
    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    names = set(zipfile.ZipFile(wheel).namelist())
    configurations = {path.relative_to(ROOT).as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    assert {f"hajax/{name}" for name in configurations} <= names
    assert "hajax/conf/train.yaml" in names
    assert {"hajax/__init__.pyi", "hajax/py.typed"} <= names
    assert f"hajax-{hajax.__version__}.dist-info/licenses/LICENSE" in names
    assert all(name.startswith(("hajax/", f"hajax-{hajax.__version__}.dist-info/")) for name in names)


def test_wheel_and_source_are_fit_for_an_index(tmp_path):
    """Their metadata and the README's rendering, and what the source needs to be tested and installed."""
    built = [next(builder(str(ROOT)).build(directory=str(tmp_path))) for builder in (WheelBuilder, SdistBuilder)]
    check = [sys.executable, "-m", "twine", "check", "--strict", *built]
    run = subprocess.run(check, capture_output=True, text=True, env=os.environ | {"NO_COLOR": "1"})
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("PASSED") == 2
    with tarfile.open(built[1]) as source:
        names = {name.partition("/")[2] for name in source.getnames()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "constraints.txt", "conf/train.yaml", "pyproject.toml"} <= names


def test_changes_of_this_version_are_listed():
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert hajax.__version__ in headings[:2]  # after changes that are not released, if there are any


# What each part of the package may import; `hajax` itself only names what is imported on first use.
BELOW = {
    "validation": (),
    "places": (),
    "colors": (),
    "sharding": (),
    "population": (),
    "spaces": ("validation",),
    "spec": ("spaces", "validation"),
    "nn": ("spec", "spaces", "validation"),
    "core": ("nn", "spec", "spaces", "sharding", "validation"),
    "tabular": ("core", "validation"),
    "drifts": ("core",),
    "neighborhoods": ("core",),
    "settings": ("core", "validation"),
    "algorithms": ("core", "spec", "places", "validation"),
    "envs": ("spec", "spaces", "places", "validation", "colors"),
    "training": ("core", "envs", "algorithms", "spec", "spaces", "sharding", "validation"),
    "runs": ("training", "algorithms", "envs", "core", "spec", "sharding", "population", "places", "validation"),
    "viewing": ("runs", "training", "envs", "spec", "colors"),
    "session": ("viewing", "runs", "training", "envs", "core", "spec", "validation"),
    "cli": ("runs", "viewing", "training", "validation"),
    "__main__": ("cli",),
}


def imports() -> dict[str, set[str]]:
    """Every module of the package, and those of the package that it imports anywhere, if only for its types."""
    source = ROOT / "src"
    paths = {".".join(path.relative_to(source).with_suffix("").parts): path for path in source.rglob("*.py")}
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    found = {}
    for module, path in paths.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= inner & set(paths) or {node.module or ""}
        found[module] = (names & set(paths)) - {module, "hajax"}
    del found["hajax"]
    return found


def test_imports_point_one_way():
    for module, names in imports().items():
        part = module.split(".")[1]
        for name in names:
            other = name.split(".")[1]
            assert other == part or other in BELOW[part], f"{module} imports {name}"


def test_no_imports_go_in_a_circle():
    left = imports()
    while left:
        last = [module for module, names in left.items() if not names & set(left)]
        assert last, f"a circle among {sorted(left)}"
        for module in last:
            del left[module]
