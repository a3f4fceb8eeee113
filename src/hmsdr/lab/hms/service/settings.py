"""What a service is told by its environment, checked once at the start. Reads a mapping and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hmsdr.errors import RefusedError
from hmsdr.lab.hms.entities import of_service
from hmsdr.lab.hms.service.primary import candidates
from hmsdr.lab.layout import SERVICES, Endpoint

PORT = 8080
"""Every service listens on this port of its pod's own address."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One pod's settings. ``databases`` and ``redis`` hold names, which are resolved again and again.

    The database should be at the first (``DATABASE_HOST``); ``DATABASE_HOSTS``, if there is one, names all that may be the primary.
    """

    service: str
    region: str
    pod: str
    listen: Endpoint
    databases: tuple[Endpoint, ...]
    database_name: str
    database_user: str
    redis: Endpoint
    dns: Endpoint

    @property
    def prefix(self) -> str:
        """First part of every public path."""
        return f"/{self.service}-service"


def read(environ: Mapping[str, str]) -> Settings:
    """The settings in `environ`.

    Raises:
        RefusedError: a variable is missing or wrong; the text names it.
    """

    def text(name: str) -> str:
        value = environ.get(name, "")
        if not value:
            raise RefusedError(f"reading {name}", "it is not set", "Set it in the deployment's env")
        return value

    def port(name: str, value: str) -> int:
        if not value.isdecimal() or not 0 < int(value) < 1 << 16:
            raise RefusedError(f"reading {name}", f"{value!r} is not a port", "Give a number from 1 to 65535")
        return int(value)

    service = text("HMS_SERVICE")
    if not of_service(service):
        raise RefusedError(
            "reading HMS_SERVICE", f"there is no service {service!r}", f"Known: {', '.join(SERVICES)}"
        )
    dns_host, _, dns_port = text("HMSDR_LAB_DNS").rpartition(":")
    return Settings(
        service=service,
        region=text("HMS_REGION"),
        pod=text("POD_NAME"),
        listen=Endpoint(text("POD_IP"), PORT),
        databases=candidates(
            Endpoint(text("DATABASE_HOST"), port("DATABASE_PORT", text("DATABASE_PORT"))),
            [host.strip() for host in environ.get("DATABASE_HOSTS", "").split(",") if host.strip()],
        ),
        database_name=text("DATABASE_NAME"),
        database_user=text("DATABASE_USER"),
        redis=Endpoint(text("REDIS_HOST"), port("REDIS_PORT", text("REDIS_PORT"))),
        dns=Endpoint(dns_host, port("HMSDR_LAB_DNS", dns_port)),
    )
