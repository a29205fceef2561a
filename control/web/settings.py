"""What the console may be told from outside: the names it answers to, and its limits."""

from __future__ import annotations

from pydantic import Field

from appliance.records import Record


class WebSettings(Record):
    """The console's settings. `secure` is False only on plain loopback, where there is no TLS."""

    hosts: tuple[str, ...] = Field(default=("localhost", "127.0.0.1"), min_length=1)  # names without a port
    secure: bool = True
    body_bytes: int = Field(default=16_384, ge=1024)
    fields: int = Field(default=40, ge=1)  # of one form
    tries_account: int = Field(default=8, ge=1)  # failed sign-ins of one account before a wait
    tries_address: int = Field(default=30, ge=1)  # failed sign-ins, and wrong tokens, of one address
    tries_seconds: float = Field(default=900.0, gt=0)  # in which they count, and how long the wait lasts
    streams: int = Field(default=100, ge=1)  # browsers that listen at once
    beat_seconds: float = Field(default=4.0, gt=0)  # between signs of life on a stream that has nothing to say
    queue: int = Field(default=40, ge=1)  # rows of a list; the rest is counted
