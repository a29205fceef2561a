"""From a decision to a sealed container: the alert record, its place in the chain, signature and seal."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from securesystemslib.signer import Signer

from appliance.identifiers import uuid7
from appliance.recognition.jpeg import jpeg
from appliance.records import Alert, Candidate, Header, Health, Models, Probe
from appliance.trust import seal

ZERO = "0" * 64
ALERT_SECONDS = 24 * 3600.0  # an alert nobody received in a day is of no use (requirements 15)
HEALTH_SECONDS = 60.0


@dataclass(frozen=True)
class ChainState:
    """Where the chain of alerts stands: its identifier, the last sequence number, SHA-256 of the last container."""

    chain: str
    sequence: int = 0
    previous: str = ZERO


@dataclass(frozen=True)
class Sender:
    """Who seals, for which deployment, to whom."""

    unit: str
    deployment: str
    signer: Signer
    recipient: X25519PublicKey
    recipient_id: str

    def seal(
        self,
        kind: str,
        identifier: str,
        plaintext: bytes,
        now: float,
        lifetime: float,
        chain: str = "",
        sequence: int = 0,
    ) -> bytes:
        """A sealed container of `kind` that expires `lifetime` seconds after `now` (UTC)."""
        header = Header.model_validate(
            {
                "kind": kind, "id": identifier, "unit": self.unit, "deployment": self.deployment, "created": now,
                "expires": now + lifetime, "sender": self.signer.public_key.keyid, "recipient": self.recipient_id,
                "chain": chain, "sequence": sequence,
            }
        )  # fmt: skip
        return seal.seal(header, plaintext, self.recipient, [self.signer])


class Sealer:
    """Seals alerts, one chain for each run of a deployment. Not thread-safe."""

    def __init__(
        self, sender: Sender, models: Models, watchlist: str, *, chips: bool = True, chain: ChainState | None = None
    ) -> None:
        self._sender, self._models, self._watchlist, self._chips = sender, models, watchlist, chips
        self._chain = chain or ChainState(uuid7())

    @property
    def chain(self) -> ChainState:
        """Where the chain stands after the last alert."""
        return self._chain

    def use_watchlist(self, digest: str) -> None:
        """Name another sealed watchlist in the alerts that follow."""
        self._watchlist = digest

    def alert(self, probe: Probe, candidate: Candidate, now: float) -> bytes:
        """Seal an alert; `now` is UTC seconds. The chain moves on."""
        chip = base64.b64encode(jpeg(probe.best.picture)).decode() if self._chips else None
        alert = Alert(
            alert_id=uuid7(now), unit=self._sender.unit, deployment=self._sender.deployment, camera=probe.camera,
            captured=probe.best.time, observed=probe.time, frame=probe.frame, decided=now,
            reference_identifier=candidate.reference_identifier, category=candidate.category,
            score=round(candidate.score, 4), threshold=candidate.threshold,
            quality=round(probe.best.quality.value, 3), interocular=round(probe.best.quality.interocular, 1),
            frames=probe.seen, track_seconds=round(probe.duration, 2), models=self._models,
            watchlist=self._watchlist, chain=self._chain.chain, sequence=self._chain.sequence + 1,
            previous=self._chain.previous, chip=chip,
        )  # fmt: skip
        plaintext = alert.model_dump_json().encode()
        sealed = self._sender.seal("alert", alert.alert_id, plaintext, now, ALERT_SECONDS, alert.chain, alert.sequence)
        self._chain = ChainState(alert.chain, alert.sequence, hashlib.sha256(sealed).hexdigest())
        return sealed

    def health(self, health: Health) -> bytes:
        """Seal a health report: counts identify nobody, but are nobody else's business either."""
        return self._sender.seal(
            "health", uuid7(health.time), health.model_dump_json().encode(), health.time, HEALTH_SECONDS
        )
