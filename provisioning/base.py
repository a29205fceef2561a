"""The base folder: everything a provisioning workbench keeps, in one place that never leaves base.

identity.json signing.pem roster.json authorities.json   an authority's key folder (appliance/trust/keys.py)
ca.crt ca.key crl.pem rosters/      certificate authority; every roster ever signed
policy.toml                         what this authority allows
store.key store.sqlite              references, names, images: encrypted
issued/                             one signed record for each sealed watchlist
receipts/                           deletion receipts that came back
audit.log audit.head                the log of every act
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.dsse import Envelope as DsseEnvelope
from securesystemslib.signer import Key

from appliance.errors import KeyFileError
from appliance.limits import LIMITS
from appliance.storage.files import read_bounded
from appliance.trust import keys
from appliance.trust.audit import Audit
from provisioning import policy as policies
from provisioning.policy import Policy
from provisioning.store import Store


@dataclass(frozen=True)
class Base:
    """An opened base folder."""

    folder: Path
    keys: keys.KeyFolder
    policy: Policy
    policy_digest: str
    audit: Audit

    def store(self) -> Store:
        """The encrypted references; close it, or use it in a `with`."""
        return Store(self.folder / "store.sqlite", keys.read_private(self.folder / "store.key"))

    def all_signers(self) -> list[Key]:
        """This base's keys past and present: what was signed before a rotation is still its own record.

        Their ids come from the verified roster in force, which names every key revoked since; old rosters only
        supply the public halves, and a key's id is its digest.
        """
        roster = self.keys.roster
        ids = {*roster.revoked, *(a.signing_key().keyid for a in roster.authorities)}
        found = {self.keys.identity.signing_key().keyid: self.keys.identity.signing_key()}
        for path in sorted((self.folder / "rosters").glob("*.json")):
            envelope = DsseEnvelope.from_dict(json.loads(read_bounded(path, LIMITS.config_bytes)))
            old = keys.Roster.model_validate_json(envelope.payload)
            mine = [a.signing_key() for a in old.authorities if a.name == self.keys.identity.name]
            found |= {k.keyid: k for k in mine if k.keyid in ids}
        return list(found.values())


def open_base(folder: Path) -> Base:
    """Open a base folder. Raises KeyFileError or ConfigError with what to do."""
    if not (folder / "identity.json").exists():
        raise KeyFileError(f"{folder}: not a base folder; make one with: bluelamp-provision keys init {folder}")
    opened = keys.load(folder)
    if opened.identity.role != "authority":
        raise KeyFileError(f"{folder}: holds the keys of a {opened.identity.role}; name the base folder")
    policy, digest = policies.read(folder / "policy.toml")
    return Base(folder, opened, policy, digest, Audit(folder / "audit.log", opened.signer))
