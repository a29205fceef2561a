"""A whole workbench in a temporary folder, for tests: base, officer, unit, control room, packs, references, order.

Everything is made through the same functions a technician's commands call. Only templates are random numbers: tests of
enrolment itself use real model packs.
"""

from __future__ import annotations

import datetime
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from appliance.deployment.arming import Confirmed
from appliance.deployment.files import Recognisers
from appliance.deployment.place import PositionSource
from appliance.deployment.site import Site
from appliance.formats import order
from appliance.formats import preflight as preflights
from appliance.recognition import packs
from appliance.recognition.calibration import Calibration, FalseMatch, Operating
from appliance.recognition.embed import unit
from appliance.recognition.packs import Pack
from appliance.records import Floats, Models
from appliance.trust import admission, envelope, keys
from provisioning.authority import authority
from provisioning.base import Base, open_base
from provisioning.enrolment import references
from provisioning.enrolment.fields import Reference
from provisioning.enrolment.references import Template
from provisioning.lists import cohort, issue, preflight
from provisioning.lists.issue import Issued, Thresholds, Window
from provisioning.lists.preflight import Question
from provisioning.lists.selection import Selection, select
from provisioning.orders import ordering
from tests.support.paths import ROOT

LENGTH = 64
THRESHOLD, FLOOR = 0.75, 0.6
_PACK = """format = 1
name = "toy-{role}"
role = "{role}"
version = "1"
runtime = "litert"
licence = "none"
origin = "a test"
terms = "none"
calibration = "calibration.json"
[input]
layout = "nhwc"
colour = "rgb"
mean = [0.0, 0.0, 0.0]
scale = [1.0, 1.0, 1.0]
{part}
[[files]]
path = "toy.tflite"
sha256 = "{zeros}"
width = 64
height = 64
[golden]
path = "golden.npz"
sha256 = "{zeros}"
tolerance = 0.9
"""
_EMBEDDER = "[embedder]\nwidth = 64\nheight = 64\nlength = 64\nlandmarks = [[1, 1], [9, 1], [5, 5], [2, 9], [8, 9]]"
_DETECTOR = '[detector]\ndecoder = "grid"\nstrides = [8]\nsmallest_face = 16.0'


def toy_packs(folder: Path, floor: float = FLOOR) -> Recognisers:
    """Two packs with manifests and a calibration, whose networks nobody opens."""
    for role, part in (("detector", _DETECTOR), ("embedder", _EMBEDDER)):
        (folder / role).mkdir(parents=True)
        text = _PACK.format(role=role, part=part, zeros="0" * 64)
        if role == "detector":
            text = text.replace('calibration = "calibration.json"\n', "")
        (folder / role / "pack.toml").write_text(text)
    detector, embedder = packs.load(folder / "detector"), packs.load(folder / "embedder")
    write_calibration(detector, embedder, floor)
    return Recognisers(detector, embedder)


def write_calibration(detector: Pack, embedder: Pack, floor: float) -> None:
    """A calibration record of the pair: the rate falls tenfold for each twentieth of score."""
    scores = [0.3 + i / 20 for i in range(15)]
    record = Calibration(
        format=1, embedder=embedder.digest, detector=detector.digest, made=time.time(), data="a test",
        data_sha256="0" * 64, floor=floor,
        false_matches=tuple(
            FalseMatch(score=s, fmr=10 ** (-10 * (s - 0.3)), upper=1, extrapolated=False) for s in scores
        ),
        thresholds=tuple(
            Operating(size=size, fpir=fpir, threshold=0.3 + float(np.log10(size / fpir)) / 20, tpir=0.9,
                      low=0.8, high=1,
                      extrapolated=False)
            for size in (10, 10_000) for fpir in (0.1, 0.01, 0.001, 0.0001, 0.00001)),
    )  # fmt: skip
    (embedder.folder / "calibration.json").write_text(record.model_dump_json())


def vectors(count: int, seed: int = 1, length: int = LENGTH) -> Floats:
    """Random templates (count, length), unit length."""
    return unit(np.random.default_rng(seed).normal(size=(count, length)).astype(np.float32))


def reference(number: int, **changes: object) -> Reference:
    """A sound reference."""
    said: dict[str, object] = {
        "reference_identifier": f"R-{number:05d}", "category": "wanted-on-warrant", "source": "custody image",
        "lawful_basis": "PACE s. 64A", "rationale": "a court's warrant is in force", "image_date": "2025-05-01",
        "reviewer": "Insp. A", "expiry": "2099-12-31", "name": f"Name {number}",
    }  # fmt: skip
    return Reference.model_validate({**said, **changes})


def fill(base: Base, models: Models, templates: Floats, **changes: object) -> None:
    """References with one template each, as enrolment leaves them."""
    with base.store() as store:
        references.note_models(store, models)
        for number, template in enumerate(templates):
            made = reference(number, **changes)
            references.put_reference(store, made)
            references.put_template(
                store, Template(made.reference_identifier, f"{number:064x}", 80.0, template), models
            )


@dataclass
class Workbench:
    """A base with a second authority, a unit, a control room, and references; `now` is where its clock stands."""

    root: Path
    base: Base
    officer: Path
    unit: Path
    control: Path
    packs: Recognisers
    now: float = field(default_factory=time.time)

    @property
    def models(self) -> Models:
        return self.packs.models

    @property
    def folder(self) -> keys.KeyFolder:
        """The unit's opened keys."""
        return keys.load(self.unit)

    def copy(self, root: Path) -> Workbench:
        """The same workbench at the same moment in another folder, to be changed by one test."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        return replace(opened(root), now=self.now)

    def reopen(self) -> Base:
        """The base as a fresh command sees it."""
        self.base = open_base(self.base.folder)
        return self.base

    def selection(self) -> Selection:
        """Everything enrolled."""
        return select(self.base, self.packs.detector, self.packs.embedder, on=datetime.date.today())

    def window(self) -> Window:
        """From a minute ago, for two hours."""
        return Window(self.now - 60, self.now + 7200)

    def issue(
        self, deployment: str = "D-1", out: Path | None = None, window: Window | None = None, **by: float
    ) -> Issued:
        """The list of everything enrolled, sealed to the unit."""
        return issue.issue(
            self.base, self.selection(), unit="van-1", deployment=deployment, window=window or self.window(),
            limits=Thresholds(THRESHOLD, {}, by), out=out or self.root / "list.watchlist", now=self.now,
        )  # fmt: skip

    def preflight(self, footfall: int = 1000) -> bytes:
        """The signed pre-flight of everything enrolled."""
        chosen = self.selection()
        ask = Question(THRESHOLD, 0.001, footfall)
        report = preflight.examine(
            self.base, chosen, self.packs.detector, self.packs.embedder, cohort.none(LENGTH), ask
        )
        return envelope.sign(report, preflights.KIND, self.base.keys.signer)

    def performance(self, **changes: object) -> bytes:
        """A report by group for these packs."""
        groups = [{"group": g, "tpir": 0.9, "fpir": 0.0001} for g in ("female", "male")]
        report = {
            "detector": self.models.detector,
            "embedder": self.models.embedder,
            "made": self.now,
            "groups": groups,
        }
        return json.dumps({**report, **changes}).encode()

    def details(self, **changes: object) -> ordering.Details:
        """What people say in an order."""
        path = self.root / "order.toml"
        path.write_text(ordering.TEMPLATE)
        return ordering.details(path).model_copy(update=changes)

    def ordered(self, signers: Sequence[Path] | None = None, deployment: str = "D-1", **changes: object) -> Site:
        """Issue, look over, draft, sign: the unit's folder with all of it."""
        looked, figures = self.preflight(), self.performance()
        folder = self.root / f"van-{deployment}"
        folder.mkdir(exist_ok=True)
        self.issue(deployment, folder / "list.watchlist")
        blob = ordering.draft(self.base, deployment, self.details(**changes), looked, figures, self.now)
        for signer in [self.base.folder, self.officer] if signers is None else signers:
            blob = ordering.sign(blob, keys.signer_of(signer))
        for name, content in (("order.json", blob), ("preflight.json", looked), ("report.json", figures)):
            (folder / name).write_bytes(content)
        return self.site(folder)

    def site(self, folder: Path, position: PositionSource | None = None) -> Site:
        """The files of a deployment on the unit."""
        return Site(self.unit, folder / "list.watchlist", folder / "order.json", self.root / "state", position)


def confirmed(items: Sequence[str] = order.SIGNAGE) -> dict[str, Confirmed]:
    """The signage checklist, confirmed."""
    return {item: Confirmed(item=item, at=time.time(), by="PC 1234") for item in items}


def join(base: Base, folder: Path, role: keys.MachineRole, name: str) -> None:
    """A machine asks, the base admits, the machine installs."""
    request = admission.make_request(folder, role, name, sealing_keys=4 if role == "unit" else None)
    admission.admit(folder, authority.admit(base, request.read_bytes()))


def build(root: Path, count: int = 12, quorum: int = 2) -> Workbench:
    """A workbench with `count` references and a quorum of two authorities."""
    base = authority.init(root / "base")
    join(base, root / "officer", "authority", "officer")
    join(open_base(root / "base"), root / "control", "control", "control-1")
    authority.set_quorum(open_base(root / "base"), quorum)
    join(open_base(root / "base"), root / "unit", "unit", "van-1")
    base = open_base(root / "base")
    used = toy_packs(root / "packs")
    fill(base, used.models, vectors(count))
    return opened(root)


def opened(root: Path) -> Workbench:
    """A workbench that was built in this folder."""
    used = Recognisers(packs.load(root / "packs" / "detector"), packs.load(root / "packs" / "embedder"))
    return Workbench(root, open_base(root / "base"), root / "officer", root / "unit", root / "control", used)


def built_in() -> Recognisers:
    """The project's own packs; the test is skipped in a tree without them."""
    names = [p.parent.name for p in packs.BUILT_IN.glob("*/pack.toml")]
    embedder = next((n for n in ("lamp-embedder", "open-embedder") if n in names), None)
    if embedder is None or "lamp-detector" not in names:
        pytest.skip("no built-in model packs in this tree")
    return Recognisers(packs.load("lamp-detector"), packs.load(embedder))


def portraits() -> list[Path]:
    """Synthetic portraits of the demo; the test is skipped in a tree without them."""
    found = sorted((ROOT / "demo" / "assets" / "portraits").glob("*.jpg"))
    if len(found) < 8:
        pytest.skip("no synthetic portraits in this tree: python -m demo.make")
    return found
