"""Secrets taken out of texts before anything is stored, hashed or embedded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from model_gateway.settings import ConfigError

REDACTED: Final = "[redacted]"

_SHAPES: Final = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    r"\bsk-[A-Za-z0-9_\-]{16,}",  # OpenAI, Anthropic, OpenRouter, DeepSeek
    r"\b(?:gsk_|xai-|hf_|glpat-|r8_)[A-Za-z0-9_\-]{16,}",  # Groq, xAI, Hugging Face, GitLab, Replicate
    r"\bAIza[A-Za-z0-9_\-]{30,}",  # Google
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",  # AWS
    r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,})",
    r"\bxox[abeoprs]-[A-Za-z0-9\-]{10,}",  # Slack
    r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
    r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}",  # JSON web tokens
)
_ANNOUNCED: Final = r"password|passwd|pwd|(?:api|secret|access)[_\-]?key|(?:access|auth)[_\-]?token|secret|token"
_AFTER: Final = (
    r"(?i:\bbearer )(?P<bearer>[A-Za-z0-9._~+/=\-]{16,})",
    r"://[^\s/:@]{0,256}:(?P<login>[^\s/@]{1,256})(?=@)",
    (
        rf"(?i:(?<![a-z0-9])(?:{_ANNOUNCED})[\"']?\s{{0,8}}[=:]\s{{0,8}}[\"']?)"
        r"(?P<value>(?=[^\s\"',;]{0,64}\d)[^\s\"',;]{6,})"
    ),
)
"""What follows a word that announces it: the word stays."""

_NAMES: Final = re.compile(r"(KEY|SECRET|TOKEN|PASSWORD)(_PREVIOUS)?\Z")
_LEAST_SECRET: Final = 8
"""Shorter values of variables are words that stand in texts by chance."""


class Redaction:
    """Takes secrets out: what looks like one, what the settings name, and those that this process knows itself."""

    def __init__(self, patterns: Iterable[str] = (), secrets: Iterable[str] = ()) -> None:
        """``patterns`` are regular expressions; what they match goes. ``secrets`` go wherever they stand.

        Raises:
            ConfigError: a pattern that is none.
        """
        known = sorted({re.escape(secret) for secret in secrets if len(secret) >= _LEAST_SECRET}, key=len, reverse=True)
        self._own = re.compile("|".join((*known, *_SHAPES, *_AFTER)))
        self._further = _compiled(list(patterns))

    def __call__(self, text: str) -> str:
        """The text without its secrets."""
        text = self._own.sub(_without, text)
        for pattern in self._further:
            text = pattern.sub(REDACTED, text)
        return text


def secrets_of(variables: Mapping[str, str]) -> list[str]:
    """The values of variables whose names say that they are secret."""
    return [value for name, value in variables.items() if _NAMES.search(name)]


def _without(match: re.Match[str]) -> str:
    """The match without its secret part: all of it, or the named group."""
    group = match.lastgroup
    if group is None:
        return REDACTED
    start, end = match.span(group)
    return match.string[match.start() : start] + REDACTED + match.string[end : match.end()]


def _compiled(patterns: list[str]) -> list[re.Pattern[str]]:
    found, problems = [], []
    for index, pattern in enumerate(patterns):
        try:
            found.append(re.compile(pattern))
        except re.error as error:
            problems.append(f"insights.redact.{index}: not a regular expression: {error}")
    if problems:
        raise ConfigError("insights", problems)
    return found
