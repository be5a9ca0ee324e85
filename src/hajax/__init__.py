"""hajax: heterogeneous-agent reinforcement learning as pure JAX functions.

The public names are those of `__init__.pyi`. Each is imported on first use, so that `import hajax` costs nothing beyond
itself.
"""

import ast as _ast
from importlib import import_module as _import_module
from pathlib import Path as _Path
from typing import Any as _Any

__version__ = "0.2.0"

_HOME_OF = {
    alias.name: node.module
    for node in _ast.parse(_Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(node, _ast.ImportFrom) and node.module is not None
    for alias in node.names
}
__all__ = sorted(["__version__", *_HOME_OF])


def __getattr__(name: str) -> _Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'hajax' has no attribute {name!r}")
    home = _HOME_OF[name]
    value = _import_module(f"hajax.{name}") if home == "hajax" else getattr(_import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
