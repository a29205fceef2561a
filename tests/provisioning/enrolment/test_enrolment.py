"""Enrolment as a technician meets it: good lists, bad rows, odd images, cut-off runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from appliance.errors import EnrolmentError
from appliance.records import Image
from appliance.trust import audit
from provisioning.authority import authority
from provisioning.base import Base
from provisioning.enrolment import pictures, references, report
from provisioning.enrolment.enrolment import Outcome, Summary, enrol_images
from provisioning.enrolment.fields import REQUIRED
from tests.support import workbench
from tests.support.tables import GOOD, row, write_list


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return authority.init(tmp_path / "base")


def run(base: Base, source: Path, **more: object) -> Summary:
    """Enrol with the project's own packs."""
    packs = workbench.built_in()
    return enrol_images(base, source, packs.detector, packs.embedder, **more)  # type: ignore[arg-type]


def reasons(summary: Summary) -> dict[str, str]:
    """Why each refused identifier was refused."""
    return {o.reference_identifier: "; ".join(o.reasons) for o in summary.refused}


def portrait(number: int) -> Image:
    """A synthetic portrait's pixels."""
    return np.asarray(cv2.imread(str(workbench.portraits()[number])), np.uint8)


def test_every_missing_field_blocks_its_row_and_no_other(base: Base, tmp_path: Path) -> None:
    """Requirement 5: each of the eight fields, left out once, is named in the report of its row alone."""
    image = str(workbench.portraits()[0])
    bad = [row(f"R-{column}", image, **{column: " "}) for column in REQUIRED[1:]]
    done = run(base, write_list(tmp_path / "list.csv", [*bad, row("R-good", image)]))
    assert reasons(done) == {f"R-{column}": f"{column} is missing" for column in REQUIRED[1:]}
    assert done.accepted == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"category": "intelligence only"}, "catch-all"),
        ({"category": "persons of interest"}, "catch-all"),
        ({"category": "other"}, "catch-all"),
        ({"category": "burglars"}, "not allowed here"),
        ({"rationale": '=HYPERLINK("http://x","y")'}, "formula"),
        ({"reviewer": "@SUM(A1)"}, "formula"),
        ({"image_date": "last year"}, "image_date is no date"),
        ({"image_date": "2999-01-01"}, "lies in the future"),
        ({"image_date": "30/02/2024"}, "image_date is no date"),
        ({"expiry": "2001-01-01"}, "expiry has passed"),
        ({"under_18": "yes"}, "under 18: authorised_by is missing; under 18: risk_rationale is missing"),
        ({"under_18": "", "date_of_birth": "2015-02-28"}, "under 18: authorised_by is missing"),
        ({"under_18": "no", "date_of_birth": "2015-02-28"}, "date_of_birth says otherwise"),
        ({"reference_identifier": "John Smith"}, "must not be a name"),
        ({"image": "absent.jpg"}, "cannot be read"),
        ({"image": ""}, "image is missing"),
        ({"rationale": "x" * 3000}, "3000 characters"),
        ({"source": "a\x07b"}, "control characters"),
    ],
)
def test_unfit_rows_are_refused_with_the_reason(base: Base, tmp_path: Path, changes: dict[str, str], said: str) -> None:
    """Requirements 5 to 7. The sound row beside it is enrolled all the same."""
    image = str(workbench.portraits()[0])
    rows = [{**row("R-bad", image), **changes}, row("R-good", str(workbench.portraits()[1]))]
    done = run(base, write_list(tmp_path / "list.csv", rows))
    assert len(done.refused) == 1
    assert said in "; ".join(done.refused[0].reasons)
    assert done.accepted == 1


def test_a_minor_with_authorisation_is_enrolled(base: Base, tmp_path: Path) -> None:
    """Requirement 7."""
    extra = {"under_18": "yes", "authorised_by": "Supt B", "risk_rationale": "missing, at risk of harm"}
    done = run(base, write_list(tmp_path / "list.csv", [row("R-1", str(workbench.portraits()[0]), **extra)]))
    assert done.accepted == 1


def make_bad_images(folder: Path) -> dict[str, str]:
    """Unfit image files, and what must be said about each."""
    good = portrait(0)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("this is no image")
    whole = cv2.imencode(".jpg", good)[1].tobytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    PIL.Image.new("1", (10_000, 10_000)).save(folder / "huge.png")
    cv2.imwrite(str(folder / "plain.png"), np.full((300, 300, 3), 128, np.uint8))
    cv2.imwrite(str(folder / "two.png"), np.hstack([good, portrait(1)]))
    cv2.imwrite(str(folder / "tiny.png"), good[:8, :8])
    cv2.imwrite(str(folder / "small.png"), cv2.resize(good, None, fx=0.1, fy=0.1, interpolation=cv2.INTER_AREA))
    (folder / "folder.jpg").mkdir()
    return {
        "empty.jpg": "0 bytes", "text.jpg": "not an image", "cut.jpg": "damaged or cut short",
        "huge.png": "10000 x 10000 pixels", "plain.png": "no face found", "two.png": "2 faces found",
        "tiny.png": "too few", "small.png": "", "folder.jpg": "not a file",
    }  # fmt: skip


def test_unfit_images_are_refused_one_by_one(base: Base, tmp_path: Path) -> None:
    """0 bytes, text, cut short, 100 megapixels, no face, two faces, too small: each with its own reason."""
    wanted = make_bad_images(tmp_path)
    rows = [row(f"R-{i}", name) for i, name in enumerate(wanted)]
    shutil.copy(workbench.portraits()[2], tmp_path / "good.jpg")
    done = run(base, write_list(tmp_path / "list.csv", [*rows, row("R-good", "good.jpg")]))
    said = {o.image: "; ".join(o.reasons) for o in done.refused}
    assert set(said) == set(wanted)
    for name, text in wanted.items():
        assert text in said[name], name
    assert done.accepted == 1


def make_odd_images(folder: Path) -> list[str]:
    """The same portrait in every odd make that must work."""
    rgb = PIL.Image.fromarray(cv2.cvtColor(portrait(0), cv2.COLOR_BGR2RGB))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    rgb.rotate(90, expand=True).save(folder / "rotated.jpg", exif=exif, quality=95)
    rgb.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    grey = np.asarray(rgb.convert("L"), np.uint16) * 257
    PIL.Image.fromarray(grey).save(folder / "sixteen.png")
    PIL.Image.fromarray((grey // 16).astype(np.uint16)).save(folder / "twelve.tiff")
    rgb.convert("P", palette=PIL.Image.Palette.ADAPTIVE).save(folder / "palette.gif")
    rgb.convert("RGBA").save(folder / "alpha.png")
    rgb.convert("LA").save(folder / "grey-alpha.png")
    rgb.save(folder / "really-a-jpeg.png", format="JPEG", quality=95)
    rgb.save(folder / "web.webp", quality=95)
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".csv")


def test_odd_images_give_the_same_face(base: Base, tmp_path: Path) -> None:
    """EXIF rotation, CMYK, 16 bits, palette, alpha, wrong extension: the template is that of the plain portrait."""
    (tmp_path / "images").mkdir()
    names = make_odd_images(tmp_path / "images")
    rows = [row(f"R-{i}", f"images/{name}") for i, name in enumerate(names)]
    done = run(base, write_list(tmp_path / "list.csv", [*rows, row("R-plain", str(workbench.portraits()[0]))]))
    assert not done.refused
    with base.store() as store:
        plain = references.templates(store, "R-plain", done.models)[0].template
        for i, name in enumerate(names):
            score = float(references.templates(store, f"R-{i}", done.models)[0].template @ plain)
            assert score > 0.85, (name, score)
    warned = next(o for o in done.outcomes if o.image == "really-a-jpeg.png")
    assert "is a JPEG in spite of its name" in warned.warnings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_lists_in_other_encodings_are_read(base: Base, tmp_path: Path, encoding: str, delimiter: str) -> None:
    """A name with an accent comes out right, whatever the spreadsheet saved."""
    from provisioning.enrolment.table import rows

    path = write_list(tmp_path / "list.csv", [row("R-1", "a.jpg", name="Zoë Müller")], encoding, delimiter)
    found, _ = rows(path)
    assert found[0].values["name"] == "Zoë Müller"


def test_one_reference_may_have_several_images(base: Base, tmp_path: Path) -> None:
    """In one cell, or in rows that say the same about it."""
    first, second, third = (str(p) for p in workbench.portraits()[:3])
    done = run(base, write_list(tmp_path / "list.csv", [row("R-1", f"{first};{second}"), row("R-1", third)]))
    assert (done.accepted, done.references) == (3, 1)


def test_duplicate_identifiers_that_disagree_are_refused(base: Base, tmp_path: Path) -> None:
    """The second row names the line of the first and the field that differs; the first stays."""
    first, second = (str(p) for p in workbench.portraits()[:2])
    rows = [row("R-1", first), row("R-1", second, category="missing-at-risk"), row("R-1", first)]
    done = run(base, write_list(tmp_path / "list.csv", rows))
    said = [o.reasons[0] for o in done.refused]
    assert said[0] == "duplicate identifier: line 2 has R-1 with another category"
    assert said[1] == "the same image of the same reference as line 2"
    assert done.accepted == 1


def test_changing_a_reference_needs_to_be_said(base: Base, tmp_path: Path) -> None:
    """A list that says something else about a known identifier is refused without `update`, and logged with it."""
    image = str(workbench.portraits()[0])
    run(base, write_list(tmp_path / "a.csv", [row("R-1", image)]))
    changed = write_list(tmp_path / "b.csv", [row("R-1", image, category="missing-at-risk")])
    assert "run with --update" in reasons(run(base, changed))["R-1"]
    assert run(base, changed, update=True).accepted == 1
    acts = [e.act for e in audit.verify(base.audit.path, base.all_signers())]
    assert "alteration" in acts


def test_a_rerun_resumes(base: Base, tmp_path: Path) -> None:
    """The second run of the same list computes nothing again and reports the same."""
    rows = [row(f"R-{i}", str(p)) for i, p in enumerate(workbench.portraits()[:4])]
    path = write_list(tmp_path / "list.csv", [*rows, row("R-none", "absent.jpg")])
    first, second = run(base, path), run(base, path)
    assert (first.resumed, second.resumed) == (0, 4)
    assert [o.model_copy(update={"resumed": False}) for o in second.outcomes] == list(first.outcomes)


def test_nothing_readable_lies_in_the_store(base: Base, tmp_path: Path) -> None:
    """Names, identifiers and images are encrypted at rest: no byte of them stands in the file."""
    path = workbench.portraits()[0]
    run(base, write_list(tmp_path / "list.csv", [row("R-Secret", str(path), name="Hildegard Example")]))
    stored = b"".join(p.read_bytes() for p in base.folder.glob("store.sqlite*"))
    for secret in (b"R-Secret", b"Hildegard", b"wanted-on-warrant", path.read_bytes()[1000:1040]):
        assert secret not in stored


def test_another_key_does_not_open_the_store(base: Base, tmp_path: Path) -> None:
    run(base, write_list(tmp_path / "list.csv", [row("R-1", str(workbench.portraits()[0]))]))
    (base.folder / "store.key").write_bytes(b"\1" * 32)
    with base.store() as store, pytest.raises(EnrolmentError, match="does not open"):
        list(references.references(store))


def test_erased_references_are_gone(base: Base, tmp_path: Path) -> None:
    """Metadata, images, templates and the outcome of enrolling: enrolling again does it all again."""
    path = write_list(tmp_path / "list.csv", [row("R-1", str(workbench.portraits()[0]))])
    run(base, path)
    with base.store() as store:
        assert references.erase(store, "R-1") == 1
        assert [store.count(t) for t in ("reference", "image", "template")] == [0, 0, 0]
    again = run(base, path)
    assert (again.accepted, again.resumed) == (1, 0)


def test_the_report_shows_markup_as_text(tmp_path: Path) -> None:
    """A cell that holds HTML must not become part of the page."""
    bad = Outcome(line=2, reference_identifier="<script>x</script>", image="<b>.jpg", accepted=False, reasons=("<i>",))
    from appliance.records import Models

    summary = Summary((bad,), (), Models(detector="0" * 64, embedder="0" * 64), 1.0, 1)
    report.write(summary, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert (tmp_path / "report.html").stat().st_mode & 0o077 == 0


def test_a_folder_of_images_gives_one_reference_each(base: Base, tmp_path: Path) -> None:
    """Identifiers from file names, or from sub-folders with several images; the other fields from --set."""
    folder = tmp_path / "images"
    (folder / "R-9").mkdir(parents=True)
    for i, path in enumerate(workbench.portraits()[:2]):
        shutil.copy(path, folder / f"R-{i}.jpg")
    for i, path in enumerate(workbench.portraits()[2:4]):
        shutil.copy(path, folder / "R-9" / f"{i}.jpg")
    done = run(base, folder, defaults=GOOD)
    assert (done.references, done.accepted) == (3, 4)


def test_a_list_without_image_column_says_what_columns_there_are(base: Base, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("a,b\n1,2\n")
    with pytest.raises(EnrolmentError, match="no column 'image'"):
        run(base, tmp_path / "list.csv")


def test_a_full_disk_stops_with_advice_and_loses_nothing(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite is given a ceiling of pages, which is what a full disk looks like to it; without it, the rerun resumes."""
    rows = [row(f"R-{i}", str(p)) for i, p in enumerate(workbench.portraits())]
    path = write_list(tmp_path / "list.csv", rows)
    from provisioning.store import Store

    with monkeypatch.context() as patch:
        original = Store.__init__

        def with_ceiling(self: Store, path: Path, key: bytes) -> None:
            original(self, path, key)
            self._sql.execute("PRAGMA max_page_count = 40")

        patch.setattr(Store, "__init__", with_ceiling)
        patch.setattr("provisioning.enrolment.enrolment._COMMIT_EVERY", 2)
        with pytest.raises(EnrolmentError, match="the disk is full"):
            run(base, path)
    done = run(base, path)
    assert done.accepted == len(rows)
    assert done.resumed >= 1


def test_pictures_are_bounded_before_they_are_decoded(tmp_path: Path) -> None:
    """A file of 60 MB is refused by its size alone."""
    path = tmp_path / "big.jpg"
    with path.open("wb") as file:
        file.truncate(60_000_000)
    with pytest.raises(EnrolmentError, match="60 MB, more than 50"):
        pictures.read_bytes(path)
