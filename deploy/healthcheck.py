"""A container's health check: exit code 0, or 1 with the reason.

``healthcheck.py http://...`` asks for a page; ``healthcheck.py insights`` looks whether the insights process says in
Redis that it lives and can answer.
"""

from __future__ import annotations

import asyncio
import os
import sys
import urllib.error
import urllib.request
from typing import Final

from redis.exceptions import RedisError

from model_gateway.connection import connect
from model_gateway.insights import find
from model_gateway.streams import Keys

_SECONDS: Final = 4.0


def page_problem(url: str) -> str:
    """Why a page is not there; empty when it is."""
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS):  # noqa: S310 - the URL is the compose file's
            return ""
    except urllib.error.HTTPError as error:
        return f"{error.code}: {error.read(500).decode(errors='replace')}"
    except OSError as error:
        return str(error)


async def insights_problem() -> str:
    """Why insights can't be asked for; empty when they can."""
    redis = connect(os.environ["REDIS_URL"])
    try:
        async with asyncio.timeout(_SECONDS):
            state = await find(redis, Keys())
    except (RedisError, OSError) as error:
        return f"Redis does not answer: {type(error).__name__}"
    finally:
        await redis.aclose()
    return "no insights process is alive" if state is None else state.problem


def main() -> int:
    """Check what the command line names."""
    [what] = sys.argv[1:]
    problem = asyncio.run(insights_problem()) if what == "insights" else page_problem(what)
    sys.stdout.write(f"{problem or 'healthy'}\n")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
