"""A header out of its bounds is refused at the socket, and one that lies in an old outbox stops nobody."""

from __future__ import annotations

import socket

import pytest

from appliance.courier.outbox import Outbox
from appliance.limits import LIMITS
from appliance.sockets import link
from appliance.sockets.link import Greeting, Hello, Reply
from appliance.trust import seal
from control.broker.broker import Broker
from tests.support.couriers import Listener, Settings, courier_in_thread, linked
from tests.support.machines import DEPLOYMENT, AlertMaker, Machines, eventually


def resealed(maker: AlertMaker, **changes: object) -> bytes:
    """An alert under another header."""
    header = seal.take_apart(maker.alert(), LIMITS.envelope_bytes).header.model_copy(update=changes)
    return seal.seal(header, b"{}", maker.recipient.public(), [maker.folder.signer])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"created": 4e11, "expires": 4e11 + 60}, "created"),
        ({"created": -1.0}, "created"),
        ({"expires": 4e11}, "expires"),
        ({"expires": 1.0}, "expires before"),
        ({"sequence": 2**63}, "sequence"),
        ({"id": "a\x00b"}, "id is not plain"),
        ({"chain": "a\x00b"}, "chain is not plain"),
    ],
)
def test_a_header_out_of_bounds_is_refused_with_its_reason_and_the_next_is_stored(
    shared_broker: Broker, settings: Settings, maker: AlertMaker, changes: dict[str, object], words: str
) -> None:
    chosen = settings(shared_broker.address)
    bad, good = resealed(maker, **changes), maker.alert()
    with courier_in_thread(chosen):
        eventually(lambda: link.answers(chosen.socket))
        replies = []
        for container in (bad, good):
            with socket.socket(socket.AF_UNIX) as stream:
                stream.settimeout(10)
                stream.connect(str(chosen.socket))
                link.write_record(stream, Hello(deployment=DEPLOYMENT))
                link.read_record(stream, Greeting)
                link.write_frame(stream, container)
                replies.append(link.read_record(stream, Reply))
    assert replies[0].refused and words in replies[0].error
    assert replies[1].stored


def test_a_poisoned_row_goes_aside_and_the_rest_is_delivered(
    machines: Machines, broker: Broker, settings: Settings, maker: AlertMaker
) -> None:
    chosen = settings(broker.address)
    poisoned = resealed(maker, created=4e11, expires=4e11 + 86400)
    outbox = Outbox(chosen.outbox)
    outbox.put(poisoned, seal.take_apart(poisoned, LIMITS.envelope_bytes).header)
    outbox.close()
    with Listener(machines, broker.address) as listener, courier_in_thread(chosen) as said, linked(chosen) as vision:
        for _ in range(5):
            vision.send(maker.alert(), "alert")
        eventually(lambda: len(listener.sequences) == 5)
        assert any("cannot be sent" in line for line in said)
    outbox = Outbox(chosen.outbox)
    assert outbox.depth() == 0
    ((_, reason),) = outbox.dead_letters()
    assert "created" in reason
    outbox.close()
