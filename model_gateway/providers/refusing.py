"""The one way in which an adapter that translates refuses what its vendor's API can't do, or leaves it out."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, ClassVar

from model_gateway.dialects.refusing import is_nothing
from model_gateway.dialects.strict_json import unsupported


@dataclass(frozen=True, slots=True)
class Refusing:
    """Refuses, unless the row says otherwise. A subclass names its API.

    Attributes:
        drop_params: leave out what the API can't do, rather than refuse it.
        api: its name, for errors.
    """

    api: ClassVar[str]

    drop_params: bool = False

    def refuse(self, param: str, why: str) -> None:
        """The request has what can't be said here.

        Raises:
            GatewayError: ``unsupported_parameter``, unless such things are to be left out.
        """
        if not self.drop_params:
            raise unsupported(param, why)

    def only(self, members: Mapping[str, Any], known: Set[str], path: str) -> None:
        """Refuse members that are set and not known.

        Raises:
            GatewayError: ``unsupported_parameter``.
        """
        for name, value in members.items():
            if name not in known and not is_nothing(value):
                self.refuse(f"{path}.{name}", f"is not known to the {self.api}")
