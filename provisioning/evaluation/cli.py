"""`bluelamp-provision evaluate`: how often a pack errs, for whom, measured in the open."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from appliance.errors import ConfigError
from appliance.recognition import calibration, normalise, packs
from appliance.recognition.packs import Pack
from appliance.records import Floats
from provisioning.evaluation import candidate, figures, report, shared_packs, table, verification
from provisioning.evaluation import dataset as data_sets
from provisioning.evaluation.dataset import Dataset
from provisioning.evaluation.embeddings import CACHE, embed
from provisioning.evaluation.evaluate import Evaluation
from provisioning.evaluation.groups import over_mean
from provisioning.evaluation.passes import frames_of, lists, run
from provisioning.truth import read_truth

LEVELLED = (("plain", "by plain cosines"), ("moved", "with cohort normalisation"))
ASSETS = data_sets.ROOT / "demo" / "assets"

app = typer.Typer(
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="""
How often a model pack errs, and for whom: the open-set test of ISO/IEC 19795-1.

Without a subcommand it does all: report (HTML and JSON) and a candidate calibration, beside the embedder pack
(or in `--out`). `evaluate install FILE` puts a candidate to use; nothing else changes an installed calibration.

    bluelamp-provision evaluate --embedder lamp-embedder --detector lamp-detector
    bluelamp-provision evaluate --embedder mobilefacenet-arcface --detector yunet   (models of the shared folder)
    bluelamp-provision evaluate --data FOLDER     one folder an identity, or a CSV: image,identity,sex,age,ethnicity
    bluelamp-provision evaluate gains             what comparing better gains at the same models
    bluelamp-provision evaluate passes --clip street.mp4 --truth truth.json --references watchlist.csv

Without `--data` the shared data are used (`$BLUELAMP_SHARED`, or `../shared`), and without those the demo population,
which shows that the test runs and says nothing of a street. Templates are made once and kept in `.cache/evaluation`
(they are templates of faces: delete the folder with the photographs). An interrupted run goes on where it stopped.

Exit codes: 0 done, 1 failed, 2 config or usage, 3 clip, 4 model pack, 6 keys.
""",
)
Embedder = Annotated[str, typer.Option(help="Embedder pack: built-in name, folder, or a shared model's name.")]
Detector = Annotated[str, typer.Option(help="Detector pack, likewise.")]
Data = Annotated[Path | None, typer.Option(help="Folder of identity folders, or a CSV file.")]
HeldOut = Annotated[
    bool | None,
    typer.Option(
        "--held-out/--everyone",
        help="Only identities held out from this project's training (the default for built-in packs), or all.",
    ),
]
Threads = Annotated[int, typer.Option(help="Threads of the models.")]
Json = Annotated[bool, typer.Option("--json", help="Figures as JSON on standard output.")]
Out = Annotated[Path | None, typer.Option(help="Folder for the report; default: report/ beside the pack.")]
CandidateOut = Annotated[Path | None, typer.Option("--out", help="Folder for the candidate; default: the pack's.")]
SignWith = Annotated[Path | None, typer.Option("--base", help="Base folder whose authority signs the report.")]
Passed = Annotated[Path | None, typer.Option("--passes", help="What `passes --json` printed, to put into the report.")]
_err = Console(stderr=True)


def _say(text: str) -> None:
    _err.print(text, soft_wrap=True, highlight=False, markup=False)


@app.callback()
def evaluate(
    context: typer.Context,
    embedder: Embedder = "lamp-embedder",
    detector: Detector = "lamp-detector",
    data: Data = None,
    held_out: HeldOut = None,
    threads: Threads = 1,
    mirror: Annotated[bool, typer.Option(help="Also measure mirror averaging: twice the embedder's time.")] = False,
    out: Out = None,
    base: SignWith = None,
    passed: Passed = None,
    as_json: Json = False,
) -> None:
    """Hold the common options; without a subcommand, do all."""
    context.obj = {
        "embedder": embedder,
        "detector": detector,
        "data": data,
        "held_out": held_out,
        "threads": threads,
        "mirror": mirror,
    }
    if context.invoked_subcommand is None:
        test = _test(context)
        if not _measurable(test.dataset, test.templates.found):
            _say("too few identities with two stills to calibrate or report: running the passes of the demo clip")
            passes(context, as_json=as_json)
            return
        _calibrate(test, out)
        _report(test, out, base, passed, as_json)


@app.command()
def verify(
    context: typer.Context,
    pairs: Annotated[Path | None, typer.Option(help="CSV of image,image,1 or 0; without it, all pairs.")] = None,
    as_json: Json = False,
) -> None:
    """One to one: FMR, FNMR and the DET curve, over all pairs or those of a file."""
    test = _test(context)
    result = test.verification if pairs is None else _pairs(test, pairs)
    found = figures.verification(result)
    if as_json:
        print(json.dumps(found))
        return
    print(f"{found['mated']} mated, {found['non_mated']} non-mated comparisons; {found['words']}")
    for row in found["rows"]:
        print(f"FMR {row['wanted_fmr']:.0e}  threshold {row['threshold']:.4f}  FNMR {table.share(row['fnmr'])}")


@app.command()
def identify(context: typer.Context, as_json: Json = False) -> None:
    """One to many, open set: TPIR and threshold at every list size and FPIR, with ranks and DET curves."""
    test = _test(context)
    found = figures.identification(test)
    if as_json:
        print(json.dumps(found))
        return
    if not found["rows"]:
        raise ConfigError("no identity has two stills, so nobody can be found; give several stills each")
    print(f"{found['mated_searches']} mated, {found['non_mated_searches']} non-mated searches; {found['words']}")
    for row in found["rows"]:
        mark = "extrapolated" if row["extrapolated"] else "measured"
        rate = f"1 in {1 / row['wanted_fpir']:,.0f}"
        point = f"{row['size']:>6} references  FPIR {rate:>10}  threshold {row['threshold']:.4f}"
        print(f"{point}  TPIR {table.share(row['tpir'])}  {mark}")


@app.command()
def groups(
    context: typer.Context,
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="At the calibration record's threshold, not the data set's own.")
    ] = False,
    as_json: Json = False,
) -> None:
    """By sex, age band and ethnicity label, where the data set has labels; none is ever inferred."""
    test = _test(context)
    test.record = calibration.load(test.embedder) if calibrated else None
    found, level = figures.by_group(test.groups), figures.levelled(test.levelled)
    if as_json:
        print(json.dumps(found))
        return
    if not found:
        raise ConfigError("the data set has no labels; give a CSV with sex, age, ethnicity")
    for row in found:
        ratio = "{value:.2f} [{low:.2f}, {high:.2f}]".format(**row["fmr_ratio"])
        fmr, tpir = table.share(row["fmr"], 4), table.share(row["tpir"])
        print(
            f"{row['group']:<28} FMR {fmr}  {ratio} x  p {row['fmr_p']:.2g}  TPIR {tpir}  FTA {table.share(row['fta'])}"
        )
    for attribute, value in over_mean(test.groups).items():
        print(f"{attribute:<28} worst FMR over the geometric mean of its groups: {value:.2f} x")
    if level:
        words = (f"{name} {table.of_ratio(level[key]['greatest_fmr_ratio'])}" for key, name in LEVELLED)
        print(f"adults at one overall FMR, {level['fmr']:.1e}: greatest ratio " + ", ".join(words))


@app.command()
def gains(context: typer.Context, as_json: Json = False) -> None:
    """What comparing better gains at the same models, each way fitted on other identities than it is shown on.

    `--mirror` before the command also measures mirror averaging. For each pass: `python -m benchmarks.passes`.
    """
    test = _test(context)
    found, evidence = figures.gained(test), figures.evidence_of(test)
    if as_json:
        print(json.dumps({"gains": found, "evidence": evidence}))
        return
    if not found:
        raise ConfigError("too few identities for lists of this size; give more, with several stills each")
    print(table.of_gains(found))
    if evidence:
        print(f"log-likelihood ratios: the same decisions; Cllr {evidence['cllr']:.4f} bits, ", end="")
        print(f"least possible {evidence['cllr_min']:.4f}")


@app.command()
def calibrate(context: typer.Context, out: CandidateOut = None, as_json: Json = False) -> None:
    """Write calibration.candidate.json: thresholds by list size, score to FMR, the floor. `install` puts it to use."""
    record = _calibrate(_test(context), out)
    if as_json:
        print(record.model_dump_json())


@app.command()
def install(context: typer.Context, file: Annotated[Path, typer.Argument(help="A candidate calibration.")]) -> None:
    """Install a candidate as the embedder pack's calibration; the old one is kept beside it."""
    path, kept = candidate.install(_packs(context)[1], file)
    print(f"installed: {path}" + (f"; the old one is kept: {kept}" if kept else ""))


@app.command(name="report")
def write_report(
    context: typer.Context, out: Out = None, base: SignWith = None, passed: Passed = None, as_json: Json = False
) -> None:
    """Everything, as report.html and report.json; signed where --base is given."""
    _report(_test(context), out, base, passed, as_json)


@app.command()
def passes(
    context: typer.Context,
    clip: Annotated[Path, typer.Option(help="Video, or folder of numbered JPEG frames.")] = ASSETS / "street.mp4",
    truth: Annotated[Path | None, typer.Option(help="Ground truth; default: truth.json beside the clip.")] = None,
    references: Annotated[Path, typer.Option(help="CSV: reference_identifier,image.")] = ASSETS / "watchlist.csv",
    threshold: Annotated[float | None, typer.Option(help="Score; default: the calibration's thresholds.")] = None,
    note: Annotated[str, typer.Option(help="What the clip shows, for the report.")] = "",
    smallest_face: Annotated[float, typer.Option(help="Width in pixels of the smallest face sought.")] = 40.0,
    as_json: Json = False,
) -> None:
    """For each pass of somebody before a camera: a clip with ground truth through the unit's own stages."""
    detector, embedder = _packs(context)
    facts = read_truth(truth or clip.parent / "truth.json")
    enrolled = data_sets.load(references)
    listed = lists(enrolled, embed(enrolled, detector, embedder, CACHE, context.obj["threads"]), raised_by(embedder))
    if not listed:
        raise ConfigError(f"{references}: no face found in any reference image")
    results = run(frames_of(clip), facts, detector, embedder, listed, smallest_face)
    found = figures.by_pass(list(zip(listed, results, strict=True)), thresholds_for(embedder, threshold))
    found |= {"models": {"detector": detector.digest, "embedder": embedder.digest}, "clip": facts.clip, "note": note}
    print(json.dumps(found) if as_json else table.of_passes(found))


def _calibrate(test: Evaluation, out: Path | None) -> calibration.Calibration:
    record = test.calibration()
    path = candidate.write(record, out or test.embedder.folder)
    _say(f"candidate calibration, not installed: {path}; to use it: bluelamp-provision evaluate install {path}")
    return record


def _report(test: Evaluation, out: Path | None, base: Path | None, passed: Path | None, as_json: bool) -> None:
    found = figures.everything(test, _passed(passed, test))
    folder = out or test.embedder.folder / "report"
    for path in report.write(found, folder):
        _say(f"report: {path}")
    if base is not None:
        _say(f"signature: {report.sign(folder, base)}")
    if as_json:
        print(json.dumps(found))


def _passed(file: Path | None, test: Evaluation) -> dict[str, Any] | None:
    """Figures by pass, refused where they are of other packs."""
    if file is None:
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        models, _ = found["models"], found["lists"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: not what `evaluate passes --json` prints ({error}); run it again") from error
    if models != {"detector": test.detector.digest, "embedder": test.embedder.digest}:
        raise ConfigError(f"{file}: measured with other packs; run `evaluate passes --json` with these")
    return dict(found)


def _test(context: typer.Context) -> Evaluation:
    detector, embedder = _packs(context)
    held_out: bool | None = context.obj["held_out"]
    own = embedder.folder.parent == packs.BUILT_IN
    chosen = _data(context.obj["data"])
    only = own if held_out is None else held_out
    if only and context.obj["data"] is None and data_sets.shared() is not None:
        chosen = data_sets.held_out(chosen)
    return Evaluation(chosen, detector, embedder, threads=context.obj["threads"], mirror=context.obj["mirror"])


def _data(source: Path | None) -> Dataset:
    if source is not None:
        return data_sets.load(source)
    shared = data_sets.shared()
    if shared is not None:
        return data_sets.public(shared / "data")
    _say("no shared data: using the demo population")
    return data_sets.load(ASSETS / "watchlist.csv")


def _packs(context: typer.Context) -> tuple[Pack, Pack]:
    detector, embedder = (pack(context.obj[role]) for role in ("detector", "embedder"))
    detector.detector, embedder.embedder  # noqa: B018  (each must have its role: PackError now, not after an hour)
    return detector, embedder


def pack(name: str) -> Pack:
    shared = data_sets.shared()
    if name in shared_packs.WRAPPED and shared is not None:
        return packs.load(shared_packs.wrap(name, shared / "models", CACHE / "packs"))
    return packs.load(name)


def _pairs(test: Evaluation, file: Path) -> verification.Verification:
    left, right, mated = verification.read_pairs(file, [s.image for s in test.dataset.stills])
    return verification.pairs(test.templates.plain, left, right, mated)


def raised_by(embedder: Pack) -> Callable[[Floats], Floats] | None:
    """From reference templates to what the pack's calibration raises their thresholds by; None where by nothing."""
    if embedder.manifest.calibration is None or not (embedder.folder / embedder.manifest.calibration).is_file():
        return None
    record = calibration.load(embedder)
    rule, found = record.normalisation, calibration.load_cohort(embedder, record)
    if found is None:
        return None
    return lambda rows: normalise.raised(normalise.level(rows, found, rule.nearest), rule.usual, rule.reference_weight)


def thresholds_for(embedder: Pack, threshold: float | None = None) -> dict[str, float]:
    """What passes are counted at: the given threshold, else the calibration's for figures.POINTS."""
    if threshold is not None:
        return {"given": threshold}
    record = calibration.load(embedder)
    return {f"1 in {1 / f:,.0f} with {n:,} references": record.threshold_for(n, f) for n, f in figures.POINTS}


def _measurable(data: Dataset, found: np.ndarray[Any, np.dtype[np.bool_]]) -> bool:
    identities = data.identities[found & ~data.distractors]
    _, counts = np.unique(identities, return_counts=True)
    return int((counts > 1).sum()) >= 20 and len(identities) >= 100
