"""An agent without HTTP: requests go straight onto the request stream, replies come back on a stream of its own.

Start the gateway (``make up``), then run this from the same folder::

    .venv/bin/python examples/agent.py "What is a netstring?"
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from model_gateway import GatewayClient, GatewayError

DATA = Path(os.environ.get("GATEWAY_DATA_DIR") or ".gateway")


def redis_url() -> str:
    """``REDIS_URL``, else the embedded server's."""
    return os.environ.get("REDIS_URL") or (DATA / "redis.url").read_text().strip()


def agent_secret() -> str:
    """``AGENT_DEMO_SECRET``, else the one that the gateway made."""
    lines = (DATA / "secrets.env").read_text().splitlines() if "AGENT_DEMO_SECRET" not in os.environ else []
    made = dict(line.split("=", 1) for line in lines if "=" in line)
    return os.environ.get("AGENT_DEMO_SECRET") or made["AGENT_DEMO_SECRET"]


async def main(question: str) -> None:
    """Ask for a whole reply, then for a streamed one."""
    messages = [{"role": "user", "content": question}]
    async with GatewayClient(redis_url(), agent="demo", secret=agent_secret()) as client:
        reply = await client.complete(model="echo", messages=messages, max_tokens=64)
        print("whole:   ", reply["choices"][0]["message"]["content"])
        print("streamed: ", end="")
        async for chunk in client.stream(model="echo", messages=messages, max_tokens=64):
            for choice in chunk["choices"]:
                print(choice["delta"].get("content") or "", end="", flush=True)
        print()


if __name__ == "__main__":
    try:
        asyncio.run(main(" ".join(sys.argv[1:]) or "Hello, gateway!"))
    except (FileNotFoundError, KeyError) as missing:
        sys.exit(f"is the gateway running? set REDIS_URL and AGENT_DEMO_SECRET, or start it here: {missing}")
    except GatewayError as error:
        sys.exit(f"{error.code}: {error.message}")
