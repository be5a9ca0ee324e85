"""Functions named by their location, `module:function`: importing them, and reading their docstrings from source."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import re
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def is_place(name: Any) -> bool:
    """Whether the name has the form `module:function`."""
    return isinstance(name, str) and name.count(":") == 1


def import_function(kind: str, place: str) -> Callable[..., Any]:
    """The function at `module:function`; `kind` is what messages call it.

    Raises:
        ValueError: it cannot be imported, for whatever reason, or is not a function.
        ModuleNotFoundError: a module that it imports is not installed.
    """
    module, name = place.split(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and not f"{module}.".startswith(f"{error.name}."):
            raise  # the module exists, but a module that it imports does not
        if at := user_place(error):
            text = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
            raise ValueError(f"{kind} {place!r} can't be imported: {text} ({at})") from error
        if not isinstance(error, ImportError | AttributeError | TypeError | ValueError):
            raise
        raise ValueError(
            f"{kind} {place!r}: {error}; allowed: module:function that Python can import, "
            f"from the working directory {os.getcwd()} or from PYTHONPATH"
        ) from error
    if not callable(function):
        raise ValueError(f"{kind} {place!r} is {type(function).__name__}; allowed: a function")
    return function


def user_place(error: BaseException) -> str | None:
    """`FILE:LINE, in FUNCTION`: where code that belongs to neither hajax nor Python nor a package raised the error.

    The innermost such line, or the place of a `SyntaxError`. `None` if there is none, or if the line is a `raise` of a
    `ValueError`, whose message is meant for the user.
    """
    if isinstance(error, SyntaxError) and Path(error.filename or "").is_absolute():
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    users = [frame for frame in frames if _is_users(frame.filename)]
    if not users:
        return None
    raised = frames[-1] is users[-1] and re.search(r"(^|:\s*)raise\b", users[-1].line or "")
    if isinstance(error, ValueError) and raised:
        return None
    return f"{users[-1].filename}:{users[-1].lineno}, in {users[-1].name}"


def _is_users(file: str) -> bool:
    paths = sysconfig.get_paths()
    installed = (str(Path(__file__).parent), *(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")))
    elsewhere = {"site-packages", "dist-packages"} & set(Path(file).parts)  # of another environment
    return Path(file).is_absolute() and not (elsewhere or any(map(Path(file).is_relative_to, installed)))


def summary(place: str) -> str:
    """The first line of the docstring of a module, or of `module:function`, read from its source."""
    module, _, name = place.partition(":")
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        return ""
    tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
    nodes = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name]
    return first_line(ast.get_docstring(nodes[0] if nodes else tree))


def first_line(docstring: str | None) -> str:
    """The first line of a docstring, without its full stop."""
    return (docstring or "").strip().partition("\n")[0].removesuffix(".")


def arguments(docstring: str | None) -> dict[str, str]:
    """The descriptions of parameters in a docstring's section `Args:`, one line each."""
    section = re.search(r"^Args:\n((?:[ ].*\n?|\n(?=[ ]))*)", inspect.cleandoc(docstring or ""), re.MULTILINE)
    lines = section[1].splitlines() if section else []
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    found: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        entry = re.match(rf" {{{margin}}}(\w+(?:, \w+)*): (.*)", line)
        names = entry[1].split(", ") if entry else names
        for name in names:
            found[name] = f"{found.get(name, '')} {(entry[2] if entry else line).strip()}".strip()
    return {name: text.removesuffix(".") for name, text in found.items()}
