"""An address to listen on: parsed, judged, bound."""

from __future__ import annotations

import ipaddress
import socket

from pydantic import Field

from appliance.errors import ConfigError
from appliance.records import Record


class Listen(Record):
    """Host and port; port 0 takes a free one."""

    host: str = Field(min_length=1)
    port: int = Field(ge=0, le=65535)

    @classmethod
    def parse(cls, text: str) -> Listen:
        """From HOST:PORT. Raises ConfigError."""
        host, _, port = text.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ConfigError(f"{text!r}: write ADDRESS:PORT, for example 127.0.0.1:8443")
        return cls(host=host.strip("[]"), port=int(port))

    def is_loopback(self) -> bool:
        """Whether only this machine can reach it. A name counts by every address it stands for."""
        try:
            found = {info[4][0] for info in socket.getaddrinfo(self.host, self.port)}
        except OSError as error:
            raise ConfigError(f"{self}: no such address here ({error.strerror})") from error
        return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found)

    def bind(self) -> socket.socket:
        """A listening socket. Raises ConfigError where the address is in use or not this machine's."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            return socket.create_server((self.host, self.port), family=family, backlog=128)
        except OSError as error:
            raise ConfigError(f"{self}: cannot listen there ({error.strerror}); choose another address") from error

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
