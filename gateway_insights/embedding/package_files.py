"""Where a data file lies that came in a wheel, without importing the wheel's package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from model_gateway.settings import ConfigError


def package_file(package: str, path: str, wheel: str) -> Path:
    """The file of an installed package.

    ``importlib.resources`` would import the package first: one of ours imports a whole SDK, the other sets up logging.

    Args:
        package: as it is imported.
        path: inside the package, with slashes.
        wheel: what to install if it is missing.

    Raises:
        ConfigError: it is not there, and what to do.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (found := Path(folder, path)).is_file():
            return found
    raise missing(f"{package}/{path}", wheel)


def missing(what: str, wheel: str) -> ConfigError:
    """Something that an embedding model needs is not installed."""
    todo = f"run `pip install {wheel}`, or set `insights.embedding` to another model or to `off`"
    return ConfigError("insights", [f"insights.embedding: {what} is missing; {todo}"])
