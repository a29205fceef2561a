"""Which references go on a list: not expired, of the wanted categories, with a template of exactly these packs."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from appliance.errors import EnrolmentError
from appliance.formats.listing import content_digest
from appliance.recognition.packs import Pack
from appliance.records import Floats, Models
from provisioning.base import Base
from provisioning.enrolment import pictures, references
from provisioning.enrolment.fields import Reference
from provisioning.enrolment.quality_gate import Gate
from provisioning.enrolment.references import Template
from provisioning.store import Store


@dataclass(frozen=True)
class Selection:
    """A list before it is sealed. `rows[i]` is the reference of `templates[i]`; (entries, length), unit length."""

    rows: tuple[Reference, ...]
    scores: tuple[float, ...]
    templates: Floats
    models: Models
    left_out: dict[str, str]  # reference identifier: reason

    @property
    def digest(self) -> str:
        """What identifies the content (appliance/formats/listing.py)."""
        pairs = ((r.reference_identifier, r.category) for r in self.rows)
        return content_digest(pairs, self.templates.astype("<f2").tobytes())


def select(
    base: Base,
    detector: Pack,
    embedder: Pack,
    *,
    on: datetime.date,
    categories: Collection[str] | None = None,
    identifiers: Collection[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Selection:
    """The references usable on that day. Templates that these packs have not made yet are made from the stored images.

    Raises EnrolmentError where nothing is left, or a wanted identifier or category is not there.
    """
    models = Models(detector=detector.digest, embedder=embedder.digest)
    with base.store() as store:
        every = list(references.references(store))
        wanted, left_out = _wanted(every, on, categories, identifiers)
        maker = _Maker(store, detector, embedder, base)
        rows: list[Reference] = []
        found: list[Template] = []
        for done, reference in enumerate(wanted, 1):
            made = references.templates(store, reference.reference_identifier, models) or maker.make(reference)
            if not made:
                left_out[reference.reference_identifier] = "no image of it passes the gate with these model packs"
            rows += [reference] * len(made)
            found += made
            if progress:
                progress(done, len(wanted))
    if not found:
        raise EnrolmentError("no reference is left for this list: enrol some, or check categories and expiry dates")
    vectors = np.stack([t.template for t in found]).astype(np.float32)
    return Selection(tuple(rows), tuple(t.score for t in found), vectors, models, left_out)


def _wanted(
    every: list[Reference], on: datetime.date, categories: Collection[str] | None, identifiers: Collection[str] | None
) -> tuple[list[Reference], dict[str, str]]:
    known = {r.reference_identifier for r in every}
    if missing := sorted(set(identifiers or ()) - known):
        raise EnrolmentError(f"not enrolled: {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}")
    if missing := sorted(set(categories or ()) - {r.category for r in every}):
        raise EnrolmentError(f"no reference of category {', '.join(missing)} is enrolled")
    wanted, left_out = [], {}
    for reference in every:
        if categories is not None and reference.category not in categories:
            continue
        if identifiers is not None and reference.reference_identifier not in identifiers:
            continue
        if reference.expired(on):
            left_out[reference.reference_identifier] = f"expired on {reference.expiry}"
        else:
            wanted.append(reference)
    return wanted, left_out


class _Maker:
    """Templates from stored images, for packs that came after the enrolment."""

    def __init__(self, store: Store, detector: Pack, embedder: Pack, base: Base) -> None:
        self._store, self._packs, self._base = store, (detector, embedder), base
        self._gate: Gate | None = None

    def make(self, reference: Reference) -> list[Template]:
        self._gate = self._gate or Gate(*self._packs, self._base.policy, largest=True)
        made = []
        for image in references.images(self._store, reference.reference_identifier):
            try:
                passed = self._gate.template(pictures.decode(image.blob, image.name)[0])
            except EnrolmentError:
                continue  # another image of the reference may pass; none at all is reported by the caller
            template = Template(reference.reference_identifier, image.digest, passed.score, passed.template)
            references.put_template(self._store, template, self._gate.models)
            made.append(template)
        if made:
            references.note_models(self._store, self._gate.models)
        return made
