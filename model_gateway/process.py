"""What every process of the gateway sets up before it serves: logs, room for its connections, garbage collection."""

from __future__ import annotations

import gc
import logging
import resource
import sys
from typing import Final

import orjson
import structlog

_log = structlog.get_logger(__name__)

_SPARE_DESCRIPTORS: Final = 256
"""For Redis, logs and libraries."""

_NEW_OBJECTS: Final = 100_000
"""More than some hundred requests under way are made of, so that only garbage, or growth, sets off a collection."""


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


def collect_garbage_seldom() -> None:
    """Keep the garbage collector's pauses out of requests: call it when everything is set up.

    While it looks through all objects nobody is answered, for a fifth of a second at some thousand connections, and by
    default it does so again and again under load. What a request is made of is freed without it, so it need only see
    to what is left by errors in libraries: some ten MB at most, before it comes.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 10, 10)
