"""Makes the documentation site, for `make docs`.

    python docs/site/make_site.py build

writes build/pages, build/site.yml and the site, build/site. The pages are those of docs/, and those of made_pages.py:
the front page from README.md, a page per notebook, per algorithm and per public name, and tables of environments and
presets. Links that leave docs/ lead to those pages, or to one with the text of the file. A dead link is an error.
"""

from __future__ import annotations

import argparse
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from made_pages import AT_ROOT, DOCS, ROOT, TABLES, generated, notebooks, ours, themes

LINK = re.compile(r"(\]\(|<img src=\")([^)#\s:\"]+)((?:#[^)\s]*)?[)\"])")
NAMED = re.compile(r"(?P<link><a\b.*?</a>)|<code>(?:hajax\.(\w+)|docs/([\w/-]+)\.md)</code>", re.DOTALL)
FENCE = re.compile(r"^(```.*?^```[^\S\n]*$)", re.DOTALL | re.MULTILINE)
LANGUAGES = {".py": "python", ".yaml": "yaml", ".cff": "yaml", ".toml": "toml"}


def configuration() -> str:
    """site.yml with its paths and the whole navigation."""
    config = yaml.safe_load((Path(__file__).parent / "site.yml").read_text(encoding="utf-8"))
    found = {
        "notebooks/*": [f"notebooks/{path.stem}.md" for path in notebooks()],
        "algorithms/*": ["algorithms/index.md", *(f"algorithms/{name}.md" for name in ours("algo"))],
        "reference/*": [
            "reference/index.md",
            {"Environments and presets": f"reference/{TABLES}.md"},
            *({theme: [f"reference/{name}.md" for name in names]} for theme, names in themes()),
        ],
    }

    def completed(items: Iterable[Any]) -> list[Any]:
        items = [{k: completed(v) for k, v in x.items()} if _is_section(x) else x for x in items]
        return [y for x in items for y in (found.get(x, [x]) if isinstance(x, str) else [x])]

    paths = {"docs_dir": "pages", "site_dir": "site"}
    return yaml.safe_dump(config | paths | {"nav": completed(config["nav"])}, sort_keys=False, allow_unicode=True)


def _is_section(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(next(iter(item.values())), list)


def write_pages(folder: Path) -> None:
    """Writes every page, and copies the files to which they link."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(
        DOCS, folder, ignore=shutil.ignore_patterns("*.py", "site.yml", "*.md", "__pycache__", "checkpoints")
    )
    pages = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in DOCS.glob("**/*.md")}
    pages |= dict(generated())
    linked = {target for uri, text in pages.items() if not is_made_here(uri) for target in links(uri, text)}
    pages |= {site_uri(path): source_page(path) for path in linked if site_uri(path).startswith("source/")}
    for uri, text in pages.items():
        path = folder / uri
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if is_made_here(uri) else with_site_links(uri, text), encoding="utf-8")


def is_made_here(uri: str) -> bool:
    """Whether the links of a page are the site's from the beginning."""
    return uri.startswith(("source/", "reference/", "algorithms/"))


def with_site_links(uri: str, text: str) -> str:
    """A page with its links leading to pages of the site."""
    here = posixpath.dirname(uri) or "."

    def relink(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(repository_path(uri)), match[2]))
        return match[1] + posixpath.relpath(site_uri(target), here) + match[3]

    parts = FENCE.split(text)  # with the blocks of code at odd indices
    parts[::2] = [LINK.sub(relink, part) for part in parts[::2]]
    return "".join(parts)


def repository_path(uri: str) -> str:
    """Where the text of a page is in the repository."""
    at_root = {page: name for name, page in AT_ROOT.items()}
    if uri in at_root:
        return at_root[uri]
    return f"{uri[:-3]}.ipynb" if uri.startswith("notebooks/") else f"docs/{uri}"


def site_uri(path: str) -> str:
    """The page or file of the site for a file of the repository."""
    folder, _, name = path.partition("/")
    if path in AT_ROOT:
        return AT_ROOT[path]
    if folder == "docs":
        return name
    return f"{path[:-6]}.md" if folder == "notebooks" else f"source/{path}.md"


def links(uri: str, text: str) -> Iterator[str]:
    """The files of the repository to which a page links."""
    for part in FENCE.split(text)[::2]:
        for match in LINK.finditer(part):
            yield posixpath.normpath(posixpath.join(posixpath.dirname(repository_path(uri)), match[2]))


def source_page(path: str) -> str:
    """A file of the repository as a page."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return f"# {path}\n\n````{LANGUAGES.get(Path(path).suffix, 'text')}\n{text}````\n"


def link_names(site: Path) -> None:
    """Makes links of the public names and pages that are named in the text, docstrings included."""
    for path in site.glob("**/*.html"):

        def linked(match: re.Match[str], here: Path = path) -> str:
            if match["link"]:  # it is one already
                return match[0]
            page = site / (f"reference/{match[2]}.html" if match[2] else f"{match[3]}.html")
            if not page.exists() or page == here:
                return match[0]
            return f'<a href="{posixpath.relpath(page.as_posix(), here.parent.as_posix())}">{match[0]}</a>'

        text = path.read_text(encoding="utf-8")
        start, article, end = text.partition("<article")
        path.write_text(start + article + NAMED.sub(linked, end), encoding="utf-8")


class Anchors(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name in ("id", "name") and value:
                self.ids.add(value)


def dead_links(site: Path) -> list[str]:
    """The links that lead nowhere, each with its page. Those to elsewhere are not followed."""
    pages = {path: Anchors(path.read_text(encoding="utf-8")) for path in site.glob("**/*.html")}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc or path.name == "404.html":
                continue
            target = path if not url.path else Path(posixpath.normpath(path.parent / unquote(url.path)))
            found = target.is_file() and (not url.fragment or unquote(url.fragment) in pages[target].ids)
            if not found:
                dead.append(f"{path.relative_to(site)}: {link}")
    return dead


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where pages/, site.yml and site/ are written")
    folder = parser.parse_args().folder.resolve()
    write_pages(folder / "pages")
    (folder / "site.yml").write_text(configuration(), encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", folder / "site.yml"], check=True
    )
    link_names(folder / "site")
    if dead := dead_links(folder / "site"):
        raise SystemExit("\n".join(["links that lead nowhere:", *dead]))
    print(f"the documentation: {folder / 'site' / 'index.html'}")


if __name__ == "__main__":
    main()
