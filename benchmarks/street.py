"""End-to-end TPIR and FPIR over passes: a composed street, through cameras, seal, courier, broker, control room.

    python -m benchmarks.street --passes 300 --references 1000

Real stills of ../shared/data walk over a 1080p street; some are mated with another photograph on the watchlist. Every
alert counted has been sealed, sent over MQTT with mutual TLS, verified and opened. A pass is one person walking by:
its frames come from one still and are not independent, and a composed street is easier than a real one.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from scipy.stats import beta

from appliance.command_line import complain
from appliance.errors import BluelampError
from benchmarks.composer import Plan, compose
from demo import rehearsal
from demo.score import score
from provisioning.truth import Truth

DEPLOYMENT = "STREET-1"


def interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a rate."""
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, successes, trials - successes + 1)) if successes else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, trials - successes)) if successes < trials else 1.0
    return round(low, 6), round(high, 6)


def main() -> int:
    """Compose, enrol, scan, count; prints text, or one line of JSON with --json."""
    options = _options()
    say = Console(stderr=True).print
    plan = Plan(
        passes=options.passes, mated_share=options.mated, references=options.references, seed=options.seed,
        background=options.background, tilted_share=options.tilted,
    )  # fmt: skip
    try:
        with tempfile.TemporaryDirectory(prefix="bluelamp-street-") as temporary:
            result = _measure(plan, options, Path(temporary), say)
    except BluelampError as error:
        complain(str(error))
        return error.exit_code
    print(json.dumps(result) if options.json else _text(result))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.street", description=__doc__)
    parser.add_argument("--passes", type=int, default=300)
    parser.add_argument("--mated", type=float, default=0.2, help="share of passes whose identity is on the watchlist")
    parser.add_argument("--references", type=int, default=1000, help="size of the watchlist")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tilted", type=float, default=0.3, help="share of heads tilted by up to 45 degrees")
    parser.add_argument("--background", type=Path, help="a picture or clip to walk over; else a drawn street")
    parser.add_argument("--detector", default="lamp-detector")
    parser.add_argument("--embedder", default="lamp-embedder")
    parser.add_argument("--threshold", type=float, help="comparison score; else calibrated for --fpir")
    parser.add_argument("--fpir", type=float, default=1e-3)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _measure(plan: Plan, options: argparse.Namespace, folder: Path, say: object) -> dict[str, object]:
    assert callable(say)
    say(f"composing {plan.passes} passes")
    deployment = compose(plan)
    clip = folder / "street.mp4"
    deployment.write_clip(clip)
    say("enrolling and sealing the watchlist")
    prepared = rehearsal.prepare(folder / "deployment", options.detector, options.embedder)
    enrolled = rehearsal.enrol(prepared, deployment.write_references(folder / "references"), partial=True)
    refused = {outcome.reference_identifier for outcome in enrolled.refused}
    fpir = None if options.threshold is not None else options.fpir
    issued = rehearsal.seal_list(prepared, DEPLOYMENT, threshold=options.threshold, fpir=fpir)
    say(f"scanning {deployment.frame_count} frames, {enrolled.accepted} templates, threshold {issued.threshold:.3f}")
    outcome = rehearsal.run(prepared, clip, lambda one: None, settings="[detect]\nsmallest_face = 32\n")
    result = score(_without(deployment.truth(clip.name), refused), outcome.opened)
    non_mated = result.passes - result.mated
    return {
        **asdict(result), "references": enrolled.accepted, "refused_portraits": len(refused),
        "threshold": round(issued.threshold, 4),
        "tpir": round(result.true / max(result.mated, 1), 4), "tpir_interval": interval(result.true, result.mated),
        "fpir": round(result.false / max(non_mated, 1), 5), "fpir_interval": interval(result.false, non_mated),
        "frames": outcome.summary["frames"],
        "frames_per_second": round(outcome.summary["frames"] / outcome.summary["seconds"], 1), "seed": plan.seed,
    }  # fmt: skip


def _without(truth: Truth, refused: set[str]) -> Truth:
    """A pass whose portrait the quality gate refused is not mated: its reference is not on the list."""
    passes = tuple(
        replace(entry, reference_identifier=None) if entry.reference_identifier in refused else entry
        for entry in truth.passes
    )
    return replace(truth, passes=passes)


def _text(result: dict[str, object]) -> str:
    return (
        f"{result['passes']} passes, {result['mated']} mated, {result['references']} templates, "
        f"threshold {result['threshold']}\n"
        f"TPIR {result['tpir']} {result['tpir_interval']}   FPIR {result['fpir']} {result['fpir_interval']}   (95 %)\n"
        f"{result['frames_per_second']} frames a second; latency p50 {result['latency_p50']} s, "
        f"p99 {result['latency_p99']} s"
    )


if __name__ == "__main__":
    sys.exit(main())
