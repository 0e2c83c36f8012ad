"""What every process of the gateway sets up before it serves: logs, and room for its connections."""

from __future__ import annotations

import logging
import resource
import sys
from typing import Final

import orjson
import structlog

_log = structlog.get_logger(__name__)

_SPARE_DESCRIPTORS: Final = 256
"""For Redis, logs and libraries."""


def log_to_stderr(level: int = logging.INFO) -> None:
    """One JSON object a line, to stderr; libraries speak only of what is wrong. Never a secret or a prompt."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    # It quotes the offered subprotocols, and one of them may be a token.
    logging.getLogger("aiohttp.websocket").setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )


def allow_connections(count: int) -> None:
    """Raise the process's own bound on open files to what ``count`` connections need; many systems start at 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + _SPARE_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        _log.warning("process.few_descriptors", hard_limit=hard, needed=needed, todo="raise `ulimit -Hn`")
        needed = hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
