"""Who calls Vertex AI: an access token as it is, or a file of credentials with which tokens are fetched."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from model_gateway.providers.interface import ProviderSettings

TOKEN: Final = "VERTEX_ACCESS_TOKEN"  # noqa: S105 - a name
CREDENTIALS: Final = "GOOGLE_APPLICATION_CREDENTIALS"

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_TOKEN_URL: Final = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
_JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ASSERTION_SECONDS: Final = 3600
_MAX_FILE_BYTES: Final = 64 * 2**10

Form = Callable[[], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Account:
    """The way in.

    Attributes:
        token: an access token that is sent as it is; empty where one is fetched, or where there is none.
        token_url: where tokens are fetched; empty where none is.
        form: what is sent there.
        project: the file's own project; may be empty.
        problem: why the file can't be used; empty where it can.
    """

    token: str = field(default="", repr=False)
    token_url: str = ""
    form: Form = field(default=dict, repr=False)
    project: str = ""
    problem: str = ""

    def problems(self, name: str) -> list[str]:
        """What could only fail later, at each request.

        Args:
            name: the row's.
        """
        return [f"models.{name}: {self.problem}"] if self.problem else []


def account_of(settings: ProviderSettings) -> Account:
    """The account that a row's key stands for: a token, or the path of a file."""
    key = settings.api_key
    is_path = bool(key) and (key == settings.environment.get(CREDENTIALS) or key.endswith(".json"))
    return _from_file(Path(key)) if is_path else Account(token=key)


def _from_file(path: Path) -> Account:
    try:
        with path.open("rb") as file:
            members = orjson.loads(file.read(_MAX_FILE_BYTES))
    except OSError as error:
        return Account(problem=f"the file of {CREDENTIALS} can't be read: {error.strerror}")
    except ValueError:
        return Account(problem=f"the file of {CREDENTIALS} is not JSON")
    make = _KINDS.get(str(members.get("type"))) if isinstance(members, dict) else None
    if make is None:
        return Account(problem=f"the file of {CREDENTIALS} is none of {', '.join(_KINDS)}")
    return make(members)


def _service_account(members: Mapping[str, Any]) -> Account:
    """An assertion that its key signs (https://developers.google.com/identity/protocols/oauth2/service-account)."""
    try:
        from google.auth import crypt, jwt  # noqa: PLC0415 - only for who has such a file
    except ImportError:
        return Account(problem="a service account needs google-auth: pip install 'model-gateway[sdk]'")
    email, url = members.get("client_email"), members.get("token_uri") or _TOKEN_URL
    try:
        signer = crypt.RSASigner.from_service_account_info(members)  # type: ignore[no-untyped-call]
    except ValueError:
        signer = None
    if signer is None or not isinstance(email, str) or not isinstance(url, str):
        return Account(problem=f"the file of {CREDENTIALS} holds no private key and client_email that can be used")

    def form() -> Mapping[str, str]:
        now = int(time.time())
        claims = {"iss": email, "scope": _SCOPE, "aud": url, "iat": now, "exp": now + _ASSERTION_SECONDS}
        assertion: bytes = jwt.encode(signer, claims)  # type: ignore[no-untyped-call]
        return {"grant_type": _JWT_BEARER, "assertion": assertion.decode()}

    return Account(token_url=url, form=form, project=str(members.get("project_id") or ""))


def _user(members: Mapping[str, Any]) -> Account:
    """What ``gcloud auth application-default login`` leaves behind."""
    names = ("client_id", "client_secret", "refresh_token")
    form = {name: members.get(name) for name in names}
    if not all(isinstance(value, str) for value in form.values()):
        return Account(problem=f"the file of {CREDENTIALS} lacks one of {', '.join(names)}")
    fields = {"grant_type": "refresh_token", **{name: str(value) for name, value in form.items()}}
    project = str(members.get("quota_project_id") or "")
    return Account(token_url=str(members.get("token_uri") or _TOKEN_URL), form=lambda: fields, project=project)


_KINDS: Final[Mapping[str, Callable[[Mapping[str, Any]], Account]]] = {
    "service_account": _service_account,
    "authorized_user": _user,
}
"""By a file's ``type``."""
