"""What the files of the container deployment say, read as Compose and Docker read them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.model.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
GUIDE = (ROOT / "docs" / "deploy.md").read_text()
PUBLISHED = "model-gateway"
"""The image that is built here; the services that run it run the gateway's commands."""

_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Z_]+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\})")


class NotSetError(Exception):
    """A variable that must be set is not."""


def compose() -> dict[str, Any]:
    """The compose file, before its variables are filled in."""
    return yaml.safe_load(COMPOSE_FILE.read_text())


def filled(part: Any, variables: Mapping[str, str]) -> Any:
    """A part of the compose file with its variables filled in.

    Raises:
        NotSetError: one that must be set is not.
    """
    if isinstance(part, dict):
        return {key: filled(value, variables) for key, value in part.items()}
    if isinstance(part, list):
        return [filled(value, variables) for value in part]
    if not isinstance(part, str):
        return part
    assert "$" not in _VARIABLE.sub("", part), f"not a form that is understood here: {part}"
    return _VARIABLE.sub(lambda match: _value(match, variables), part)


def _value(match: re.Match[str], variables: Mapping[str, str]) -> str:
    if match["dollar"]:
        return "$"
    value = variables.get(match["name"], "")
    if not value and match["kind"] == "?":
        raise NotSetError(match["name"])
    return value or (match["rest"] if match["kind"] == "-" else "") or ""


def named(kind: str = "") -> set[str]:
    """The variables that the compose file takes from outside; ``?``: those that must be set."""
    return {
        match["name"]
        for match in _VARIABLE.finditer(COMPOSE_FILE.read_text())
        if match["name"] and (not kind or match["kind"] == kind)
    }


def gateway_services() -> dict[str, Any]:
    """The services that run the image of this repository."""
    return {name: service for name, service in compose()["services"].items() if service["image"] == PUBLISHED}


def guide_blocks() -> list[str]:
    """The shell commands of the guide."""
    return re.findall(r"```bash\n(.*?)\n```", GUIDE, re.DOTALL)


def instructions() -> list[tuple[str, list[str]]]:
    """The Dockerfile's instructions in order: the word, and its arguments without flags."""
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found = []
    for line in lines:
        word, _, rest = line.partition(" ")
        found.append((word, rest.strip()))
    return [(word, shlex.split(rest) if word == "COPY" else [rest]) for word, rest in found]


def copied() -> list[str]:
    """What the Dockerfile copies out of the tree, as it names it."""
    copies = [arguments for word, arguments in instructions() if word == "COPY"]
    return [path for arguments in copies if not arguments[0].startswith("--from") for path in arguments[:-1]]


def reaches_docker(path: str) -> bool:
    """Whether a path passes ``.dockerignore``: of the lines that fit it or a folder above it, the last decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#") and _fits(line.removeprefix("!"), path):
            ignored = not line.startswith("!")
    return not ignored


def _fits(pattern: str, path: str) -> bool:
    places = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
    return re.fullmatch(rf"{places}(/.*)?", path) is not None
