"""The documentation is whole: what can be set, go wrong or happen stands in it, and its examples are right."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from model_gateway.envelope import SIGNED_FIELDS, Envelope, front_door_secret, signed_text
from model_gateway.environment import weak
from model_gateway.errors import KINDS
from model_gateway.settings import GatewayConfig
from model_gateway.signing import verify_reply, verify_stream

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
README = (ROOT / "README.md").read_text()
PROTOCOL = (ROOT / "docs/protocol.md").read_text()
EXAMPLE_SECRET = "an-example-secret-that-must-be-replaced-0000"


def found(pattern: str, *folders: str) -> set[str]:
    """What a pattern's group matches in the code of some packages."""
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".lua")]
    return {name for path in files for name in re.findall(pattern, path.read_text())}


def settings(section: type[BaseModel] = GatewayConfig, prefix: str = "") -> set[str]:
    """Every setting's path, such as ``models.<name>.max_tokens``; lists of rows are told by their names alone."""
    paths: set[str] = set()
    for name, field in section.model_fields.items():
        kind, path = _section(field.annotation), prefix + name
        if kind is None:
            paths.add(path)
        else:
            paths |= settings(kind, f"{path}." if kind is field.annotation else f"{path}.<name>.")
    return paths


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, alone or by name."""
    kinds = [annotation, *get_args(annotation)] if get_origin(annotation) is not list else []
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def fenced(language: str) -> list[str]:
    """The fenced blocks of the protocol's page in one language."""
    return re.findall(rf"```{language}\n(.*?)\n```", PROTOCOL, re.DOTALL)


def test_every_variable_is_in_the_readme():
    read = r"""(?:variables\.get|environ\.get|number)\(\s*"([A-Z_]+)\""""
    names = found(read, "model_gateway", "gateway_api", "gateway_worker", "gateway_cli")
    assert {"REDIS_URL", "GATEWAY_PORT", "GATEWAY_URL", "GATEWAY_APPENDFSYNC"} <= names
    assert [name for name in sorted(names) if f"`{name}`" not in README] == []


def test_every_setting_is_in_the_configuration_page():
    page = (ROOT / "docs/configuration.md").read_text()
    paths = settings()
    assert {"models.<name>.max_tokens", "retention.events.bytes", "agents.<name>.secret_env"} <= paths
    assert [path for path in sorted(paths) if f"`{path}`" not in page] == []


def test_every_error_code_is_in_the_errors_page_with_its_status_and_type():
    page = (ROOT / "docs/errors.md").read_text()
    rows = {row.split("|")[1].strip(): row.split("|") for row in page.splitlines() if row.startswith("| `")}
    assert {f"`{code}`" for code in KINDS} == rows.keys()
    for code, kind in KINDS.items():
        _, _, status, type_, *_ = rows[f"`{code}`"]
        assert (int(status.strip()[:3]), type_.strip()) == (kind.status, kind.type), code


def test_every_event_type_is_in_the_events_page():
    page = (ROOT / "docs/events.md").read_text()
    named = r"""['"](model\.(?:request|streaming|budget|deployment)\.[a-z]+)['"]"""
    types = found(named, "model_gateway", "gateway_worker")
    assert len(types) >= 10
    assert [name for name in sorted(types) if f"`{name}`" not in page] == []


def test_every_metric_is_in_the_readme():
    names = found(r'"((?:titan|gateway)_[a-z_]+)"', "gateway_api", "gateway_worker")
    names -= {"gateway_worker", "gateway_api"}  # packages
    assert {"titan_cost_usd_total", "gateway_worker_slots"} <= names
    assert [name for name in sorted(names) if name not in README] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_local_links_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if "://" not in link]
    for target, _, anchor in (link.partition("#") for link in links):
        place = (page.parent / target) if target else page
        assert place.exists(), target
        assert not anchor or anchor in _anchors(place), f"{target}#{anchor}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_protocols_worked_example_is_signed_as_it_says():
    [fields] = (json.loads(block) for block in fenced("json"))
    envelope = Envelope(
        fields["from"],
        fields["principal"],
        fields["id"],
        fields["op"],
        fields["model"],
        int(fields["ts"]),
        fields["body"].encode(),
    )
    made = {
        name: value.decode() if isinstance(value, bytes) else value
        for name, value in envelope.fields(EXAMPLE_SECRET).items()
    }
    assert made == fields
    assert list(made) == list(fields)
    assert fenced("text")[0].encode() == signed_text([fields[name].encode() for name in SIGNED_FIELDS])


def test_the_protocols_signed_replies_verify_and_belong_to_its_example():
    [fields] = (json.loads(block) for block in fenced("json"))
    request = {"request_id": fields["id"], "request_body": fields["body"].encode()}
    _, whole, chunks = fenced("text")
    assert verify_reply(whole, EXAMPLE_SECRET, **request)
    assert verify_stream(chunks.splitlines(), EXAMPLE_SECRET, **request)


def test_the_example_secret_is_refused_and_derives_as_the_protocol_says():
    assert weak("HMAC_SECRET", EXAMPLE_SECRET)
    assert front_door_secret(EXAMPLE_SECRET) in PROTOCOL
