"""The documentation site: it builds, every page is reached, and a link that leads nowhere is found."""

import re
import subprocess
import sys
from pathlib import Path

import made_pages
import make_site
import pytest
import yaml

import hajax

pytestmark = pytest.mark.evidence
ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "docs" / "site"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documentation")
    run = subprocess.run([sys.executable, SITE / "make_site.py", folder], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == f"the documentation: {folder / 'site' / 'index.html'}"
    return folder / "site"


def text(path):
    return path.read_text(encoding="utf-8")


def test_every_public_name_algorithm_guide_and_notebook_has_a_page(made):
    wanted = {f"reference/{name}" for name in hajax.__all__ if name != "__version__"}
    wanted |= {f"algorithms/{name}" for name in hajax.list_algorithms()} | {"index", "results/index", "404"}
    wanted |= {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    wanted |= {str(path.relative_to(ROOT / "docs").with_suffix("")) for path in (ROOT / "docs").glob("**/*.md")}
    wanted -= {"results/README"}
    assert wanted <= {str(path.relative_to(made).with_suffix("")) for path in made.glob("**/*.html")}


def test_every_page_is_in_the_navigation(made):
    def leaves(items):
        for item in items:
            if isinstance(item, str):
                yield item
            else:
                for value in item.values():
                    yield from leaves([value] if isinstance(value, str) else value)

    config = yaml.safe_load(text(made.parent / "site.yml"))
    written = {str(path.relative_to(made.parent / "pages")) for path in (made.parent / "pages").glob("**/*.md")}
    assert set(leaves(config["nav"])) == {page for page in written if not page.startswith("source/")}


def test_pages_have_what_they_are_for(made):
    reference = text(made / "reference" / "train.html")
    assert "Trains all seeds in one program" in reference
    assert "eval_episodes" in reference
    happo = text(made / "algorithms" / "happo.html")
    assert "maximizes the clipped surrogate" in happo
    assert '<a href="../reference/haml.html"><code>hajax.haml</code></a>' in happo
    assert '<a href="../results/guards.html"><code>docs/results/guards.md</code></a>' in happo
    assert "algo.truncation" in happo
    assert "../results/3m/happo/config.yaml" in happo
    assert "entropy_coef" in text(made / "reference" / "settings.html")
    batch = text(made / "reference" / "OnPolicyBatch.html")
    assert "final_observation" in batch
    assert "[T, E, N, O], padded with zeros" in batch
    assert "Actions <code>[…, N, D]</code> in native units" in text(made / "reference" / "Algorithm.html")
    assert "<code>runs/&lt;env&gt;_&lt;algo&gt;_&lt;time&gt;</code>" in text(made / "settings.html")
    assert "HARL" in text(made / "reference" / f"{made_pages.TABLES}.html")
    assert "data:image/png;base64" in text(made / "notebooks" / "quickstart.html")


def test_pages_load_nothing_from_elsewhere(made):
    for path in made.glob("**/*.html"):
        page = text(path)
        assert not re.findall(r"""<(?:script|img|link|iframe)\b[^>]*(?:src|href)=["']?(?:https?:)?//""", page), path
        assert not re.findall(r"<a\b[^>]*>(?:(?!</a>).)*<a\b", page, re.DOTALL), path  # no link in a link
    for path in made.glob("**/*.css"):
        assert "url(http" not in text(path)


def test_dead_links_are_found(tmp_path):
    (tmp_path / "a.html").write_text('<h1 id="here"></h1><a href="b.html#there"></a><a href="#here"></a>')
    (tmp_path / "b.html").write_text(
        '<h1 id="there"></h1><a href="https://arxiv.org/abs/2109.11251"></a><img src="c.png">'
    )
    assert make_site.dead_links(tmp_path) == ["b.html: c.png"]
    (tmp_path / "c.png").touch()
    assert make_site.dead_links(tmp_path) == []
    (tmp_path / "a.html").write_text('<a href="b.html#gone"></a><a href="../b.html"></a><a href="d.html"></a>')
    assert make_site.dead_links(tmp_path) == ["a.html: b.html#gone", "a.html: ../b.html", "a.html: d.html"]


def test_links_of_pages_lead_to_pages_of_the_site():
    links = make_site.with_site_links
    assert links("index.md", "[g](docs/glossary.md#team)") == "[g](glossary.md#team)"
    assert links("results/smax.md", "[m](../../src/hajax/spec.py)") == "[m](../source/src/hajax/spec.py.md)"
    assert links("python.md", "[n](../notebooks/session.ipynb)") == "[n](notebooks/session.md)"
    assert links("python.md", "```\n[n](x.py)\n```\n") == "```\n[n](x.py)\n```\n"
    assert links("python.md", "[p](https://arxiv.org/abs/1)") == "[p](https://arxiv.org/abs/1)"
