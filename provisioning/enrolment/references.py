"""References in the encrypted store: metadata, images as they came, templates for each pair of packs."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from appliance.errors import EnrolmentError
from appliance.records import Floats, Models
from provisioning.enrolment.fields import Reference
from provisioning.store import Store, digest

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True)
class StoredImage:
    """One accepted image. `digest` is the SHA-256 of the file as it came; `blob` those bytes."""

    reference_identifier: str
    digest: str
    name: str
    score: float
    added: float
    blob: bytes


@dataclass(frozen=True)
class Template:
    """One image's template (length,), unit length, for one pair of packs."""

    reference_identifier: str
    image: str
    score: float
    template: Floats


def put_reference(store: Store, reference: Reference) -> None:
    """Write a reference, new or altered."""
    store.put("reference", reference.reference_identifier, reference.model_dump_json().encode())


def reference(store: Store, identifier: str) -> Reference | None:
    """One reference, or None."""
    value = store.get("reference", identifier)
    return None if value is None else Reference.model_validate_json(value)


def references(store: Store) -> Iterator[Reference]:
    """Every reference, in the order of enrolment."""
    for value in store.all("reference"):
        yield Reference.model_validate_json(value)


def put_image(store: Store, image: StoredImage) -> None:
    """Keep an accepted image."""
    about = {"reference_identifier": image.reference_identifier, "digest": image.digest, "name": image.name,
             "score": image.score, "added": image.added}  # fmt: skip
    store.put("image", _image_name(image.reference_identifier, image.digest), _joined(about, image.blob),
              owner=image.reference_identifier)  # fmt: skip
    identifier = image.reference_identifier
    store.put("outcome", f"holder {image.digest}", identifier.encode(), owner=identifier)  # erased with the reference


def holder(store: Store, image_digest: str) -> str | None:
    """The reference that this very file belongs to, or None."""
    found = store.get("outcome", f"holder {image_digest}")
    return None if found is None else found.decode()


def has_image(store: Store, identifier: str, image_digest: str) -> bool:
    """Whether this very file is already an image of this reference."""
    return store.has("image", _image_name(identifier, image_digest))


def images(store: Store, identifier: str) -> Iterator[StoredImage]:
    """The images of one reference."""
    for value in store.owned("image", identifier):
        about, blob = _split(value)
        yield StoredImage(**about, blob=blob)


def put_template(store: Store, template: Template, models: Models) -> None:
    """Keep a template."""
    about = {"reference_identifier": template.reference_identifier, "image": template.image, "score": template.score}
    name = _template_name(template.reference_identifier, template.image, models)
    store.put("template", name, _joined(about, template.template.astype("<f4").tobytes()),
              owner=_template_owner(template.reference_identifier, models))  # fmt: skip


def templates(store: Store, identifier: str, models: Models) -> list[Template]:
    """The templates of one reference that these packs made."""
    found = []
    for value in store.owned("template", _template_owner(identifier, models)):
        about, blob = _split(value)
        found.append(Template(**about, template=np.frombuffer(blob, "<f4").astype(np.float32)))
    return found


def erase(store: Store, identifier: str) -> int:
    """Remove a reference, its images and all its templates. Returns how many images were removed.

    Raises EnrolmentError where there is none of that identifier.
    """
    if not store.has("reference", identifier):
        raise EnrolmentError(f"{identifier}: no such reference here")
    for image in images(store, identifier):
        for made in _models_of(store):
            store.remove("template", name=_template_name(identifier, image.digest, made))
    store.remove("outcome", owner=identifier)  # so that enrolling it again is not taken for done
    removed = store.remove("image", owner=identifier)
    store.remove("reference", name=identifier)
    return removed


def note_models(store: Store, models: Models) -> None:
    """Remember a pair of packs that made templates here, so that erasure finds them all."""
    store.put(
        "outcome", f"models {models.detector} {models.embedder}", models.model_dump_json().encode(), owner="models"
    )


def _models_of(store: Store) -> list[Models]:
    return [Models.model_validate_json(v) for v in store.owned("outcome", "models")]


def _image_name(identifier: str, image_digest: str) -> str:
    return digest(identifier.encode(), image_digest.encode())


def _template_name(identifier: str, image_digest: str, models: Models) -> str:
    return digest(identifier.encode(), image_digest.encode(), models.detector.encode(), models.embedder.encode())


def _template_owner(identifier: str, models: Models) -> str:
    return digest(identifier.encode(), models.detector.encode(), models.embedder.encode())


def _joined(about: dict[str, object], blob: bytes) -> bytes:
    text = json.dumps(about).encode()
    return _LENGTH.pack(len(text)) + text + blob


def _split(value: bytes) -> tuple[dict[str, Any], bytes]:
    (size,) = _LENGTH.unpack_from(value)
    return json.loads(value[4 : 4 + size]), value[4 + size :]
