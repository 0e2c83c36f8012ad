"""Plain processes in the containers' places: the compose file's commands, variables and health checks."""

from __future__ import annotations

import asyncio
import secrets
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway_cli.embedded import _binary
from gateway_cli.exec_with_parent import bound_to_this_process
from tests.deploy.deployment import PUBLISHED, ROOT, compose, filled, named
from tests.processes import free_port


class Containers:
    """Processes in the containers' places.

    Attributes:
        addresses: what stands in the compose file, and what stands for it here.
    """

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder = folder
        self.binaries = binaries
        self.secrets = {name: secrets.token_hex(32) for name in named("?")}
        self.ports = {name: free_port() for name in ("redis", "8081", "8088", "9100")}
        self.addresses = {
            "@redis:6379": f"@127.0.0.1:{self.ports['redis']}",
            "/usr/local/etc/redis/redis.conf": str(folder / "redis.conf"),
            "/etc/model-gateway": str(ROOT / "config"),
            "/var/lib/model-gateway": str(folder / "ledger"),
            "/opt/model-gateway/healthcheck.py": str(ROOT / "deploy" / "healthcheck.py"),
            "0.0.0.0": "127.0.0.1",
            **{name: str(port) for name, port in self.ports.items() if name.isdigit()},
        }
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "redis-server").symlink_to(_binary())  # of the embedded server: it reads the same
        own = f"\nport {self.ports['redis']}\nbind 127.0.0.1\ndir {folder}\n"
        (folder / "redis.conf").write_text((ROOT / "deploy" / "redis.conf").read_text() + own)

    def service(self, name: str) -> dict[str, Any]:
        """A service with its variables filled in and its addresses changed."""
        return self._here(filled(compose()["services"][name], self.secrets))

    def _here(self, part: Any) -> Any:
        if isinstance(part, dict):
            return {key: self._here(value) for key, value in part.items()}
        if isinstance(part, list):
            return [self._here(value) for value in part]
        for there, here in self.addresses.items() if isinstance(part, str) else ():
            part = part.replace(there, here)
        return part

    def variables(self, service: Mapping[str, Any]) -> dict[str, str]:
        """What a container finds in its environment."""
        given = self.secrets if "env_file" in service else {}
        return {"PATH": f"{self.binaries}:{self.folder}:/usr/bin:/bin", **given, **service["environment"]}

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """``docker compose run``: the service's own command, or another."""
        service = self.service(name)
        return subprocess.run(
            ["/usr/bin/env", PUBLISHED, *(command or service["command"])],
            env=self.variables(service),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, name: str) -> None:
        """Start a service; it ends with this process."""
        service = self.service(name)
        entrypoint = (PUBLISHED,) if service["image"] == PUBLISHED else ()
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                bound_to_this_process(("/usr/bin/env", *entrypoint, *service["command"])),
                env=self.variables(service),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def healthy(self, name: str) -> bool:
        """What the service's health check says."""
        assert self.running[name].poll() is None, (self.folder / f"{name}.log").read_text()
        service = self.service(name)
        check = await asyncio.create_subprocess_exec(
            *service["healthcheck"]["test"][1:], env=self.variables(service), stdout=subprocess.DEVNULL
        )
        return await check.wait() == 0

    async def stop(self, name: str) -> int:
        """``docker compose stop``; the exit code."""
        self.running[name].send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.running[name].wait, 30)

    def kill(self) -> None:
        """End what still runs."""
        for process in self.running.values():
            process.kill()
            process.wait(30)
