"""Passing on a recall: an authority signed it, the unit verifies it, the control room only carries it."""

from __future__ import annotations

import time
from pathlib import Path

from appliance.errors import BluelampError, SealError
from appliance.formats import recall
from appliance.formats.recall import Recall
from appliance.limits import LIMITS
from appliance.pace import Wake
from appliance.storage.files import read_bounded
from appliance.transport import mqtt, tls
from appliance.transport.mqtt import BrokerAddress, Connection, Handlers, Message, Peer
from appliance.trust import keys
from control.receive.subscriber import SESSION_SECONDS, client_id

_ANSWER_SECONDS = 15.0


class RecallError(BluelampError):
    """The broker did not take the recall."""

    exit_code = 10


def publish(file: Path, folder: Path, broker: BrokerAddress) -> Recall:
    """Verify a recall as its unit will, and hand it to the broker, retained. Raises SealError, MqttError, RecallError.

    A recall that the unit would refuse must not be believed to be on its way, so it is refused here already.
    """
    opened, blob = keys.load(folder), read_bounded(file, LIMITS.envelope_bytes)
    signed = recall.read(blob, opened.roster.authority_keys())
    if opened.roster.unit(signed.unit) is None:
        raise SealError(f"{file}: for {signed.unit}, which is not on the roster here; bring the newest roster")
    code = _send(blob, signed, opened, broker)
    if code >= mqtt.REFUSED:
        raise RecallError(f"the broker refuses the recall: {mqtt.reason_text(code)}")
    return signed


def _send(blob: bytes, signed: Recall, opened: keys.KeyFolder, broker: BrokerAddress) -> int:
    ca, certificate, key = opened.tls
    files = tls.TlsFiles(ca=ca, certificate=certificate, key=key)
    answers: dict[int, int] = {}
    handlers = Handlers(acknowledged=lambda mid, code: answers.update({mid: code}))
    connection = Connection(Peer(broker, files, client_id(tls.common_name(files), "recall", files)), handlers, Wake())
    connection.open()
    message = Message(
        mqtt.topic(signed.unit, "recall"), blob, retain=True, expiry=SESSION_SECONDS,
        content_type="application/vnd.bluelamp.recall.v1+json",
    )  # fmt: skip
    mid, deadline = connection.publish(message), time.monotonic() + _ANSWER_SECONDS
    while mid not in answers:
        if time.monotonic() > deadline:
            raise RecallError("the broker did not answer; the recall may not have reached it: try again")
        connection.step(0.2)
    connection.close()
    return answers[mid]
