"""`make demo`: the main job on built-in data, from a street clip to alerts opened in the control room.

Every part is the real one: keys, certificates, a sealed watchlist, the built-in model packs, vision and courier as
two processes, mosquitto with mutual TLS, and a control-room subscriber. The people in the clip do not exist.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from appliance.command_line import complain
from appliance.errors import BluelampError
from control.receive.inbox import Opened
from demo import rehearsal
from demo.score import Score, score
from provisioning.truth import read_truth

ASSETS = Path(__file__).parent / "assets"
DEPLOYMENT = "DEMO-1"
SETTINGS = "[detect]\nsmallest_face = 36\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when every part did its part, whatever the recogniser found."""
    options = _options(arguments)
    console = Console(stderr=options.json, soft_wrap=False)
    try:
        with tempfile.TemporaryDirectory(prefix="bluelamp-demo-") as temporary:
            folder = (options.keep or Path(temporary)).resolve()
            while True:
                result, outcome = _once(folder, options, console)
                _print(result, outcome, options.json, console)
                if not options.stay:
                    return 0
                folder = Path(tempfile.mkdtemp(dir=temporary))
    except BluelampError as error:
        complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.run", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON on stdout; all else goes to stderr")
    parser.add_argument("--stay", action="store_true", help="start over when the clip has ended, until Ctrl-C")
    parser.add_argument("--keep", type=Path, help="keep keys, lists and config in this folder, to look at them")
    parser.add_argument("--pace", choices=("fast", "real"), default="real", help="real (default): as a camera would")
    parser.add_argument("--detector", default="lamp-detector", help="pack name or folder")
    parser.add_argument("--embedder", default="lamp-embedder", help="pack name or folder")
    parser.add_argument("--threshold", type=float, help="comparison score; else calibrated for --fpir")
    parser.add_argument("--fpir", type=float, default=1e-3, help="false-positive rate the threshold is taken for")
    return parser.parse_args(arguments)


def _once(folder: Path, options: argparse.Namespace, console: Console) -> tuple[Score, rehearsal.Outcome]:
    console.print(f"[b]1[/] the base makes keys and certificates; unit and control room are admitted: {folder}")
    prepared = rehearsal.prepare(folder, options.detector, options.embedder)
    console.print("[b]2[/] references are enrolled and the watchlist is sealed to the unit, for two hours")
    count = rehearsal.enrol(prepared, ASSETS / "watchlist.csv").accepted
    fpir = None if options.threshold is not None else options.fpir
    issued = rehearsal.seal_list(prepared, DEPLOYMENT, threshold=options.threshold, fpir=fpir)
    console.print(f"  {count} templates, threshold {issued.threshold:.3f}, SHA-256 {issued.sha256[:16]}...")
    console.print("[b]3[/] broker, control room and unit start; the street begins")
    table = _table()
    with Live(table, console=console, refresh_per_second=8):
        outcome = rehearsal.run(
            prepared, ASSETS / "street.mp4", lambda one: _add(table, one), pace=options.pace, settings=SETTINGS
        )
    return score(read_truth(ASSETS / "truth.json"), outcome.opened), outcome


def _table() -> Table:
    table = Table(title="Control room: alerts, verified and opened. A machine asks, a human decides.")
    for column in ("frame", "camera", "reference identifier", "category"):
        table.add_column(column)
    for column in ("score", "threshold", "quality", "ms from frame to here"):
        table.add_column(column, justify="right")
    return table


def _add(table: Table, one: Opened) -> None:
    alert = one.alert
    assert alert is not None
    table.add_row(
        str(alert.frame), alert.camera, alert.reference_identifier, alert.category, f"{alert.score:.3f}",
        f"{alert.threshold:.3f}", f"{alert.quality:.2f}", f"{(one.received - alert.observed) * 1e3:.0f}",
    )  # fmt: skip


def _print(result: Score, outcome: rehearsal.Outcome, as_json: bool, console: Console) -> None:
    rate = round(outcome.summary["frames"] / max(outcome.summary["seconds"], 1e-9), 1)
    if as_json:
        more = {"frames": outcome.summary["frames"], "dropped": outcome.summary["dropped"], "frames_per_second": rate}
        print(json.dumps({**asdict(result), **more, "refused": outcome.refused}))
        return
    console.print(
        f"{result.passes} people passed, {result.mated} of them on the watchlist: [b]{result.true} found[/], "
        f"{result.missed} missed, {result.false} false alerts; {rate} frames a second, "
        f"{outcome.summary['dropped']} dropped. The faces of the other {result.passes - result.mated} left no trace."
    )


if __name__ == "__main__":
    sys.exit(main())
