"""Every Python block of the guides runs: those of a page in order, in one namespace, as a reader would run them."""

import base64
import json
import re
import runpy
import shlex
import sys
import types
from pathlib import Path

import jax
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from tiny import TINY_TRAINING

import hajax.algorithms
import hajax.envs
from hajax.cli import main

pytestmark = pytest.mark.evidence
DOCS = Path(__file__).parents[2] / "docs"
README = DOCS.parent / "README.md"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
# README trains for a million steps; its code is run as it stands but for these.
SMALLER = {
    "total_steps=1_000_000": "total_steps=500",
    "total_steps=2_000_000": "total_steps=5000",
    "num_envs=20": "num_envs=5",
    "rollout_length=200": "rollout_length=50",
}
BLOCK = re.compile(r"^```python[^\S\n]*\n(.*?)^```[^\S\n]*$", re.DOTALL | re.MULTILINE)


def python_blocks(text):
    """The code of every ```python block, after as many empty lines as stand before it, so that errors point at it."""
    return ["\n" * text.count("\n", 0, match.start(1)) + match.group(1) for match in BLOCK.finditer(text)]


# Its commands run with tiny networks besides, in the order in which they stand, and so does the code that needs them.
SHORTER = {"total_steps=1_000_000": "total_steps=32", "total_steps=2_000_000": "total_steps=64"}
# Six runs of the programs that tests/cli/test_cli.py compiles; that they are of MPE shows elsewhere on the page.
QUICK_SWEEP = ["env=games/hasac_matrix", "num_seeds=1"]
MY_MODULE = "from hajax.envs.games import gaussian as my_env\n"


def run_command(line, out_dir):
    """Runs `hajax …` as it stands in README, smaller."""
    arguments = shlex.split(line, comments=True)[1:]
    if arguments[0] == "train" and "--help" not in arguments:
        small = [SHORTER.get(argument, argument) for argument in arguments]
        small += QUICK_SWEEP if "-m" in arguments else []
        steps = [] if any(argument.startswith("total_steps") for argument in small) else ["total_steps=32"]
        named = [] if any(argument.startswith("out_dir") for argument in small) else [f"out_dir={out_dir}"]
        arguments = [*small, *TINY_TRAINING, *steps, *named]
    assert main(arguments) == 0, line


def test_readme_s_commands_and_code_run(monkeypatch, tmp_path):
    text = README.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    (tmp_path / "my_module.py").write_text(MY_MODULE)
    module = types.ModuleType("page_readme")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    ran = []
    for kind, block in re.findall(r"^```(sh|python)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if kind == "python":
            for size, small in SMALLER.items():
                block = block.replace(size, small)
            exec(compile(block, str(README), "exec", dont_inherit=True), module.__dict__)
        for line in block.splitlines() if kind == "sh" else ():
            if line.startswith("hajax "):
                run_command(line, f"run_{len(ran)}")
                ran.append(line)
    assert {line.split()[1] for line in ran} == {"train", "evaluate", "render", "plot", "list"}
    assert (tmp_path / "runs" / "spread" / "episode.gif").exists()
    assert (tmp_path / "runs" / "sweep" / "plot.png").exists()
    assert len(list((tmp_path / "runs" / "sweep").glob("*/summary.json"))) == 6
    assert all(len(match.group(1).splitlines()) <= 16 for match in BLOCK.finditer(text))  # snippets


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_python_blocks_run(page, monkeypatch, tmp_path):
    text = page.read_text(encoding="utf-8")
    blocks = python_blocks(text)
    assert len(blocks) == len(re.findall(r"^\s*```\s*python", text, re.MULTILINE)), "a block is indented or not closed"
    # A module of its own, since dataclasses and NamedTuples look up where they are defined.
    module = types.ModuleType("page_" + re.sub(r"\W", "_", page.stem))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(hajax.envs, "_registered", {})
    monkeypatch.setattr(hajax.algorithms, "_registered", {})
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, str(page), "exec", dont_inherit=True), module.__dict__)


def test_guides_notebooks_and_examples_live_on_public_names():
    """Nothing from `hajax.core`, and of environments only what `hajax.envs` offers."""
    root = README.parent
    texts = [*PAGES, *(root / "notebooks").glob("*.ipynb"), *(root / "examples").glob("*.py")]
    texts += (root / "tests" / "extensions").glob("*.py")
    for path in texts:
        found = re.findall(
            r"(?:from|import) (hajax\.(?:core|envs\.base|nn\.\w+|cli)\b[\w.]*)", path.read_text(encoding="utf-8")
        )
        assert not found, f"{path.name} imports {', '.join(found)}"


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
    links = re.findall(r"\]\(([^)#:]*)(?:#([^):]*))?\)", page.read_text(encoding="utf-8"))
    missing = [link for link, _ in links if not (page.parent / link).exists()]
    assert not missing
    for link, anchor in links:
        assert not anchor or anchor in headings(page.parent / link if link else page), f"{link}#{anchor}"


def headings(page):
    """The anchors of a page's headings: lower case, without punctuation, hyphens for spaces."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def test_the_example_of_vmapped_seeds_runs():
    example = runpy.run_path(str(README.parent / "examples" / "vmapped_seeds.py"))
    returns = np.asarray(example["main"](4_000, 2))
    assert returns.shape == (3, 2)
    assert np.all(np.isfinite(returns))
    assert len(np.unique(returns)) == 6  # every seed and every learning rate learned something else


NOTEBOOKS = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (README.parent / "notebooks").glob("*.ipynb")
}
CODE = {
    name: {cell["id"]: cell for cell in notebook["cells"] if cell["cell_type"] == "code"}
    for name, notebook in NOTEBOOKS.items()
}
# The lines of `hajax.train`.
PROGRESS = re.compile(r"compiling\n|[\d,]+ / [\d,]+ steps  .*return -?[\d.]+.*\n")
# What the notebooks' first code cells set, and the same smaller.
SIZES = {
    "quickstart": """
total_steps, num_seeds = 8_000, 2
sweep_steps, sweep_seeds = 4_000, 2
num_updates = 25
""",
    "session": """
total_steps, more_steps, num_seeds = 8_000, 12_000, 2
""",
    "theory": """
num_games, num_iterations = 6, 20
""",
}


def run_notebook(notebook):
    """What the notebook's code cells leave behind, run in order at a small size."""
    matplotlib.use("Agg")
    namespace: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plt, "show", plt.close)
        with matplotlib.rc_context():
            for name, cell in CODE[notebook].items():
                source = SIZES[notebook] if name == "sizes" else "".join(cell["source"])
                exec(compile(source, f"cell {name}", "exec", dont_inherit=True), namespace)
    return namespace


@pytest.fixture(scope="module")
def notebook_namespace():
    return run_notebook("quickstart")


def test_the_session_s_notebook_trains_continues_and_acts(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = run_notebook("session")
    happo, mappo, longer = (namespace[name] for name in ("happo", "mappo", "longer"))
    assert happo.metrics["step"].tolist() == mappo.metrics["step"].tolist() == [0, 4_000, 8_000]
    assert not np.array_equal(happo.metrics["eval_return_mean"], mappo.metrics["eval_return_mean"])
    assert longer.metrics["step"].tolist() == [0, 4_000, 8_000, 12_000]
    assert (namespace["states"].updates == 2).all()
    assert namespace["film"].stat().st_size > 10_000
    assert {name: action.shape for name, action in namespace["actions"].items()} == dict.fromkeys(
        ("agent_0", "agent_1", "agent_2"), (3,)
    )
    assert "a seed of HAPPO is better than one of MAPPO with probability" in capsys.readouterr().out


def test_the_theory_s_notebook_shows_what_it_says(capsys):
    try:
        namespace = run_notebook("theory")  # which sets float64 for good
    finally:
        jax.config.update("jax_enable_x64", False)
    assert "clip, sequential: the return decreases in 0 of 6 games" in capsys.readouterr().out
    assert namespace["sequential"].expected_return.shape == namespace["simultaneous"].gap.shape == (6, 21)
    assert namespace["decreases"].any()
    assert float(namespace["update"].temperature) == 20


def test_the_notebook_trains_seeds_that_differ(notebook_namespace):
    returns, final = notebook_namespace["returns"], notebook_namespace["final_returns"]
    assert returns.shape == (2, 2)
    assert final.shape == (2,)
    assert np.all(np.isfinite(returns))
    assert len(np.unique(returns)) == 4
    assert final[0] != final[1]
    assert list(notebook_namespace["steps"]) == [4_000, 8_000]
    assert final.min() <= notebook_namespace["low"] <= notebook_namespace["high"] <= final.max()


def test_the_notebook_sweeps_learning_rates(notebook_namespace):
    swept = notebook_namespace["swept_returns"]
    assert swept.shape == (4, 2)
    assert np.all(np.isfinite(swept))
    assert len(np.unique(swept)) == 8
    np.testing.assert_allclose(
        notebook_namespace["swept"].hyperparameters.actor_lr, np.repeat([[1e-4], [5e-4], [2e-3], [1e-2]], 2, axis=1)
    )


def test_the_notebook_learns_its_own_game(notebook_namespace):
    payoffs = notebook_namespace["payoffs"]
    assert len(payoffs) == 25
    assert payoffs[0] < 0.25  # chance is 1/12
    assert np.mean(payoffs[-5:]) > 0.9


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_the_sizes_replaced_are_those_that_the_notebook_sets(notebook):
    assert next(iter(CODE[notebook])) == "sizes"
    asked, given = {}, {}
    exec("".join(CODE[notebook]["sizes"]["source"]), asked)
    exec(SIZES[notebook], given)
    assert set(asked) == set(given)


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_the_notebook_is_committed_with_its_outputs(notebook):
    assert NOTEBOOKS[notebook]["metadata"]["kernelspec"]["name"] == "python3"
    cells = CODE[notebook]
    assert [cell["execution_count"] for cell in cells.values()] == list(range(1, len(cells) + 1))
    for name, cell in cells.items():
        source = "".join(cell["source"])
        assert len(source.splitlines()) <= 20, name
        printed = [output for output in cell["outputs"] if output.get("name") == "stdout"]
        pictures = [output for output in cell["outputs"] if "image/png" in output.get("data", {})]
        last = source.splitlines()[-1]
        values = [x for x in cell["outputs"] if x["output_type"] == "execute_result" and x not in pictures]
        progress = [x for x in cell["outputs"] if x.get("name") == "stderr" and all(map(PROGRESS.fullmatch, x["text"]))]
        assert len(printed) == ("print(" in source), name
        assert len(pictures) == ("plt.show()" in source or last == "figure"), name
        assert len(values) == (last == "actions" or last.startswith("Image(")), name
        assert len(progress) == ("hajax.train(" in source), name
        known = len(printed) + len(pictures) + len(values) + len(progress)
        assert len(cell["outputs"]) == known, f"{name} shows something else, such as a warning"
        for picture in pictures:
            assert len(base64.b64decode(picture["data"]["image/png"])) < 150_000, name


def test_the_times_of_whole_commands_are_the_measured_ones():
    text = (DOCS / "results" / "whole_commands.json").read_text(encoding="utf-8")
    table = (DOCS / "faq.md").read_text(encoding="utf-8").partition("| training | steps |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[3:6]] for line in table.splitlines()[2:]]
    measured = json.loads(text)["commands"].values()
    medians = [[row[name][0] for name in ("compile_seconds", "steps_per_second", "seconds")] for row in measured]
    speeds = [f"{float(f'{speed:.2g}'):,.0f}" for _, speed, _ in medians]
    assert rows == [
        [f"{compiling:.0f} s", speed, f"{whole:.0f} s"]
        for (compiling, _, whole), speed in zip(medians, speeds, strict=True)
    ]
