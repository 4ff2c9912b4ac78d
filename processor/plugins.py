"""Finds plug-ins by their place in a folder, so that a new one is one file and no list to edit.

A module of the folder registers the one class that it defines with a text as `kind`. Modules
without such a class are helpers of the others; `base` holds the protocol.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any


def discover(package: str, folders: Iterable[str]) -> dict[str, Any]:
    """Classes by kind, sorted by kind; imports every module of the folder."""
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules(folders):
        if module.name == "base" or module.name.startswith("_"):
            continue
        for plugin in _plugins_in(f"{package}.{module.name}"):
            kind = plugin.kind
            assert kind not in found, f"{package}: {plugin} and {found[kind]} are both {kind!r}"
            found[kind] = plugin
    return dict(sorted(found.items()))


def _plugins_in(module_name: str) -> list[Any]:
    module = importlib.import_module(module_name)
    plugins = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and value.__module__ == module_name
        and isinstance(getattr(value, "kind", None), str)
    ]
    assert len(plugins) <= 1, f"{module_name} defines {plugins}: one plug-in a file"
    return plugins
