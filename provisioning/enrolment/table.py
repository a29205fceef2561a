"""A folder or a CSV of references as rows. Encoding and delimiter are found, never guessed silently wrong.

A folder without `references.csv` gives one row for each image: the identifier is the file's name, or the name of
the sub-folder when the images stand in one; the other fields come from `--set field=value`.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import EnrolmentError
from provisioning.enrolment.fields import COLUMNS
from provisioning.enrolment.pictures import SUFFIXES

_BYTES = 200_000_000  # a list of 100,000 rows has about 30 MB
_ROWS = 1_000_000
_ALIASES = {
    "identifier": "reference_identifier", "id": "reference_identifier", "reference": "reference_identifier",
    "file": "image", "filename": "image", "path": "image", "images": "image", "image_file": "image",
    "dob": "date_of_birth", "expires": "expiry", "basis": "lawful_basis", "minor": "under_18",
}  # fmt: skip
_SEP = re.compile(r'"?sep=([^\w\s"]|\t)"?[ ,;]*\r?(?:\n|$)', re.IGNORECASE)  # a first line that some spreadsheets write
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass(frozen=True)
class Row:
    """One line of a list. `number` is the line a spreadsheet shows; `problem` is set where it cannot be read."""

    number: int
    values: Mapping[str, str]
    images: tuple[Path, ...]
    problem: str = ""


def rows(source: Path, defaults: Mapping[str, str] | None = None) -> tuple[list[Row], list[str]]:
    """All rows of a CSV file or a folder, and warnings about the whole. Raises EnrolmentError."""
    defaults = dict(defaults or {})
    if unknown := sorted(set(defaults) - set(COLUMNS)):
        raise EnrolmentError(f"no field called {', '.join(unknown)}; the fields are: {', '.join(COLUMNS)}")
    if source.is_dir():
        listed = source / "references.csv"
        return _from_csv(listed, defaults) if listed.is_file() else (_from_folder(source, defaults), [])
    return _from_csv(source, defaults)


def decoded(blob: bytes) -> tuple[str, str]:
    """Text and the name of the encoding it was in. Raises EnrolmentError.

    A byte order mark decides; then UTF-16 without a mark, which shows by its zeros; then UTF-8, which other
    encodings hardly ever satisfy by chance; then Windows-1252.
    """
    encodings = [e for mark, e in _BOMS if blob.startswith(mark)]
    if not encodings:
        even, odd = blob[0:4000:2].count(0), blob[1:4000:2].count(0)
        wide = "utf-16-le" if odd > even else "utf-16-be"
        encodings = [wide] if max(even, odd) > len(blob[:4000]) // 8 else ["utf-8", "cp1252"]
    for encoding in encodings:
        try:
            return blob.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    raise EnrolmentError("the list is in no known encoding; save it as 'CSV UTF-8'")


def _from_csv(path: Path, defaults: Mapping[str, str]) -> tuple[list[Row], list[str]]:
    try:
        if path.stat().st_size > _BYTES:
            raise EnrolmentError(f"{path}: more than {_BYTES // 1_000_000} MB; split the list")
        text, encoding = decoded(path.read_bytes())
    except OSError as error:
        raise EnrolmentError(f"{path}: {error.strerror}; name a CSV file or a folder of images") from error
    warnings = [f"{path.name} was read as {encoding}"] if encoding == "cp1252" else []
    said = _SEP.match(text)
    delimiter = said[1] if said else _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=False)
    if said:
        _next(reader, path)
    header = [_column(c) for c in _next(reader, path)]
    if "image" not in header:
        raise EnrolmentError(f"{path}: no column 'image' in its first line; the columns are: {', '.join(COLUMNS)}")
    twice = sorted({c for c in header if c and header.count(c) > 1})
    if twice:
        raise EnrolmentError(f"{path}: two columns called {', '.join(twice)}; keep one of each")
    if strange := [c for c in header if c and c not in COLUMNS]:
        warnings.append(f"columns not used: {', '.join(strange)}")
    return list(_csv_rows(reader, header, path, defaults)), warnings


def _csv_rows(reader: Iterator[list[str]], header: list[str], path: Path, defaults: Mapping[str, str]) -> Iterator[Row]:
    while True:
        number = reader.line_num + 1  # type: ignore[attr-defined]
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(number, {}, (), f"cannot be read ({error})")
            continue
        if not any(c.strip() for c in cells):
            continue
        if number > _ROWS:
            raise EnrolmentError(f"{path}: more than {_ROWS} lines; split the list")
        yield _row(number, cells, header, path, defaults)


def _row(number: int, cells: list[str], header: list[str], path: Path, defaults: Mapping[str, str]) -> Row:
    values = {c: v.strip(" \n") for c, v in zip(header, cells, strict=False) if c in COLUMNS}
    values = {**defaults, **{c: v for c, v in values.items() if v}}
    images = tuple(path.parent / p.strip() for p in values.pop("image", "").split(";") if p.strip())
    if len(cells) > len(header):
        return Row(
            number, values, images, f"has {len(cells)} cells, the first line has {len(header)}: a separator too many"
        )
    if any("\0" in str(p) for p in images):
        return Row(number, values, (), "its image path holds a zero byte")
    return Row(number, values, images, "" if images else "image is missing")


def _from_folder(folder: Path, defaults: Mapping[str, str]) -> list[Row]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not _of_the_system(p.relative_to(folder)))
    found = [p for p in files if p.suffix.lower() in SUFFIXES]
    if not files:
        raise EnrolmentError(f"{folder}: holds neither references.csv nor images")
    grouped: dict[str, list[Path]] = {}
    for path in found:
        grouped.setdefault(path.stem if path.parent == folder else path.parent.name, []).append(path)
    read = [Row(n, {**defaults, "reference_identifier": i}, tuple(p)) for n, (i, p) in enumerate(grouped.items(), 1)]
    others = [p for p in files if p.suffix.lower() not in SUFFIXES]
    return read + [_not_read(n, p, folder, defaults) for n, p in enumerate(others, len(read) + 1)]


def _of_the_system(path: Path) -> bool:
    """Whether an operating system left the file there: hidden, or one of Windows' own."""
    return path.name.lower() in {"thumbs.db", "desktop.ini"} or any(part.startswith(".") for part in path.parts)


def _not_read(number: int, path: Path, folder: Path, defaults: Mapping[str, str]) -> Row:
    identifier = path.stem if path.parent == folder else path.parent.name
    kind = f"files ending in {path.suffix.lower()}" if path.suffix else "files without an ending"
    problem = f"{kind} are not read as pictures; save it as JPEG or PNG, or move it out of the folder"
    return Row(number, {**defaults, "reference_identifier": identifier}, (path,), problem)


def _delimiter(text: str) -> str:
    """Of the usual four, the one the first line has most of, quoted cells left out."""
    first = text.splitlines()[0] if text.strip() else ""
    outside = "".join(part for i, part in enumerate(first.split('"')) if i % 2 == 0)
    return max(",;\t|", key=outside.count)


def _next(reader: Iterator[list[str]], path: Path) -> list[str]:
    try:
        return next(reader)
    except (StopIteration, csv.Error) as error:
        raise EnrolmentError(f"{path}: empty; its first line names the columns: {', '.join(COLUMNS)}") from error


def _column(text: str) -> str:
    name = "_".join(text.strip().lower().replace("-", " ").split())
    return _ALIASES.get(name, name)
