"""The shortest control room: every alert verified, opened and printed. `python docs/subscriber.py KEYS HOST:PORT`"""

import sys
import time
from pathlib import Path

from appliance.transport import tls
from appliance.transport.mqtt import BrokerAddress, Received
from appliance.trust import keys
from control.receive.inbox import Inbox, RefusedError
from control.receive.subscriber import Subscriber, client_id

folder = keys.load(Path(sys.argv[1]))
inbox = Inbox(folder)  # verifies signature, seal, freshness and chain; remembers what was seen
ca, certificate, key = folder.tls
files = tls.TlsFiles(ca=ca, certificate=certificate, key=key)


def handle(message: Received) -> None:
    """The broker forgets a message when this returns; where it raises, the message comes again."""
    if message.topic.endswith("/state"):
        return  # retained, not signed: a hint for the eye
    try:
        opened = inbox.receive(message.topic, message.payload, time.time())
    except RefusedError as refusal:
        print("refused:", refusal, file=sys.stderr)
        return
    if opened.alert is not None:
        print(opened.alert.model_dump_json(exclude={"chip"}), flush=True)
    inbox.accept(opened)


broker = BrokerAddress.parse(sys.argv[2])
session = client_id(folder.identity.name, "example", files)  # another program needs another word than "example"
Subscriber(broker, files, session, handle, status=lambda line: print(line, file=sys.stderr)).run()
