"""Who is searched among whom: references and probes chosen from a data set, by a hash, the same on every machine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from appliance.recognition.embed import unit
from appliance.records import Floats
from provisioning.evaluation import identification
from provisioning.evaluation.dataset import Dataset
from provisioning.evaluation.embeddings import Templates
from provisioning.evaluation.identification import Numbers, Trials

ADULT = 18


@dataclass(frozen=True)
class Population:
    """Rows of the data set: reference stills (one identity's stand together), and every still that is a probe.

    `enrolled` marks probes that are references themselves: they make non-mated searches only.
    """

    references: tuple[Numbers, ...]  # rows of each reference's stills
    owners: Numbers  # (m,) identity of each reference
    probes: Numbers  # (n,) rows
    probe_owners: Numbers  # (n,) identity of each probe
    enrolled: npt.NDArray[np.bool_]  # (n,)

    def search(self, templates: Templates) -> Trials:
        """Search all probes among all references, as a unit does; a reference's stills are fused into one template."""
        return self.among(self.reference_templates(templates), templates.plain[self.probes])

    def reference_templates(self, templates: Templates) -> Floats:
        """(m, length) one template a reference, its stills fused."""
        return fused(templates.plain, self.references)

    def among(
        self, references: Floats, probes: Floats, shift: Floats | None = None, keep: int = identification.KEPT
    ) -> Trials:
        """Search (n, length) probe templates among (m, length) reference templates, in this population's order.

        `shift` (m,) is added to each reference's scores.
        """
        found = identification.search(probes, self.probe_owners, references, self.owners, keep, shift)
        return replace(found, mated=np.where(self.enrolled, np.float32(np.nan), found.mated))


def choose(dataset: Dataset, found: npt.NDArray[np.bool_], stills: int = 1, alike: int | None = None) -> Population:
    """Enrol up to `stills` stills of every identity in which a face was found; every other one is a mated probe.

    Distractors (adults, and those of no stated age) are references only. With `alike`, only identities of more than
    `alike` stills have mated probes, and none of the first `alike` is one: so that populations with 1 to `alike`
    stills a reference are measured on the same probes.
    """
    order = np.array([hashlib.sha256(d.encode()).hexdigest() for d in dataset.digests])
    named = np.nonzero(~dataset.distractors)[0]
    groups = _by_identity(dataset.identities, named[np.argsort(order[named])])
    references, held = [], np.zeros(len(dataset.stills), bool)
    for rows in groups:
        usable = rows[found[rows]]
        if not len(usable):
            continue
        many = len(rows) > (alike or stills)
        taken = usable[: stills if many else 1]
        references.append(taken)
        kept_back = usable[:alike] if many else rows
        held[taken if alike is None else kept_back] = True
    extra = [np.array([i]) for i in np.nonzero(dataset.distractors & found & _adult(dataset))[0]]
    references += extra
    owners = np.array([dataset.identities[rows[0]] for rows in references], np.int64)
    return Population(tuple(references), owners, named, dataset.identities[named], held[named])


def fused(templates: Floats, rows: tuple[Numbers, ...]) -> Floats:
    """One template a reference: the mean of its stills' templates, unit length. (m, length)."""
    places = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    total = np.zeros((len(rows), templates.shape[1]), np.float32)
    np.add.at(total, places, templates[np.concatenate(rows)])
    return unit(total)


def _by_identity(identities: Numbers, rows: Numbers) -> list[Numbers]:
    order = np.argsort(identities[rows], kind="stable")
    owners = identities[rows][order]
    return np.split(rows[order], np.nonzero(np.diff(owners))[0] + 1) if len(rows) else []


def _adult(dataset: Dataset) -> npt.NDArray[np.bool_]:
    return np.array([s.age is None or s.age >= ADULT for s in dataset.stills], bool)
