"""``python -m gateway_worker``: one worker process against ``REDIS_URL``."""

from __future__ import annotations

import sys

import uvloop

from gateway_worker.app import serve
from model_gateway.environment import Environment
from model_gateway.process import allow_connections, collect_garbage_seldom, log_to_stderr
from model_gateway.settings import ConfigError, load_config


def main() -> int:
    """Run until stopped. Returns the exit code: 2 where the environment or the config is wrong."""
    log_to_stderr()
    try:
        environment = Environment.read()
        environment.require("REDIS_URL", "HMAC_SECRET")
        config = load_config(environment.config_path)
        allow_connections(sum(row.max_concurrency for row in config.models.values()))
        collect_garbage_seldom()
        uvloop.run(serve(environment, config))
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
