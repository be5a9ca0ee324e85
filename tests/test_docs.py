"""Every Python block of the guides runs: those of a page in order, in one namespace, as a reader would run them."""

import json
import re
import runpy
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import hajax.envs

DOCS = Path(__file__).parent.parent / "docs"
README = DOCS.parent / "README.md"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
# README trains for a million steps; its code is run as it stands but for these.
SMALLER = {
    "total_steps=1_000_000": "total_steps=500",
    "num_envs=20": "num_envs=5",
    "rollout_length=200": "rollout_length=50",
}
BLOCK = re.compile(r"^```python[^\S\n]*\n(.*?)^```[^\S\n]*$", re.DOTALL | re.MULTILINE)


def python_blocks(text):
    """The code of every ```python block, after as many empty lines as stand before it, so that errors point at it."""
    return ["\n" * text.count("\n", 0, match.start(1)) + match.group(1) for match in BLOCK.finditer(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page, monkeypatch, tmp_path):
    text = page.read_text(encoding="utf-8")
    blocks = python_blocks(text)
    assert len(blocks) == len(re.findall(r"^\s*```\s*python", text, re.MULTILINE)), "a block is indented or not closed"
    # A module of its own, since dataclasses and NamedTuples look up where they are defined.
    module = types.ModuleType("page_" + re.sub(r"\W", "_", page.stem))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(hajax.envs, "_registered", {})
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        for size, small in SMALLER.items() if page == README else ():
            block = block.replace(size, small)
        exec(compile(block, str(page), "exec", dont_inherit=True), module.__dict__)


def test_the_guides_are_found():
    pages = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
    assert len(python_blocks(pages["adding-an-environment.md"])) >= 4


def test_blocks_keep_their_line_numbers():
    text = "one\n\n```python\nx = 1\n```\n\n```text\nno\n```\n\n```python\ny = x\n```\n"
    first, second = python_blocks(text)
    assert first.splitlines().index("x = 1") == 3
    assert second.splitlines().index("y = x") == 11


@pytest.mark.parametrize("page", [*PAGES, *sorted(DOCS.glob("*/*.md"))], ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_the_example_of_vmapped_seeds_runs():
    example = runpy.run_path(str(README.parent / "examples" / "vmapped_seeds.py"))
    returns = np.asarray(example["main"](4_000, 2))
    assert returns.shape == (3, 2)
    assert np.all(np.isfinite(returns))
    assert len(np.unique(returns)) == 6  # every seed and every learning rate learned something else


def test_the_notebook_s_cells_run(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    notebook = json.loads((README.parent / "notebooks" / "vmapped_seeds.ipynb").read_text(encoding="utf-8"))
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in notebook["cells"][2:])  # committed with what it shows
    namespace: dict = {}
    for cell in code:
        exec(cell.replace("total_steps=100_000", "total_steps=4_000"), namespace)
    assert namespace["returns"].shape == (4, 1)
    assert np.all(np.isfinite(namespace["returns"]))
