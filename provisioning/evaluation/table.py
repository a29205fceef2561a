"""Figures as lines of text, for a terminal."""

from __future__ import annotations

from typing import Any


def of_passes(found: dict[str, Any]) -> str:
    """Rates for each pass, one list after the other."""
    lines = [
        f"{found['passes']} passes, {found['mated']} mated, {found['stray_tracks']} stray tracks, "
        f"{found['references']} references"
    ]
    for part in found["lists"]:
        lines.append(f"photographs a reference, at most: {part['stills']}")
        for row in part["rows"]:
            lines.append(
                f"  {row['operating_point']}: threshold {row['threshold']:.4f}  TPIR {share(row['tpir'])}  "
                f"seen well {share(row['tpir_seen_well'])}  FPIR {share(row['fpir'], 3)} {row['words']}"
            )
        for row in (part["of_most"] or {"rows": []})["rows"]:
            most = f"those with {part['of_most']['stills']} photographs"
            lines.append(f"  {row['operating_point']}, {most}: TPIR {share(row['tpir_seen_well'])}")
        for row in part["own"]:
            mark = "extrapolated" if row["extrapolated"] else "measured"
            lines.append(
                f"  by the passes' own scores, 1 in {1 / row['wanted_fpir']:,.0f} with {row['size']:,}: threshold "
                f"{row['threshold']:.4f} ({mark})  TPIR seen well {share(row['tpir_seen_well'])}"
            )
    for row in found["gains"]:
        if "gain" in row:
            gain = f"{100 * row['gain']:+.1f} points [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
            lines.append(
                f"{row['operating_point']}: {row['stills']} photographs for one gain {gain} ({row['passes']} passes)"
            )
    return "\n".join(lines)


def of_gains(found: list[dict[str, Any]]) -> str:
    """What each way of comparing gains, in points of TPIR."""
    lines = [f"{'TPIR':>7} {'plain':>7}  {'gain, points [95 %]':<24} {'list':>7} {'FPIR':>10}  way (probes)"]
    for row in found:
        gain = f"{100 * row['gain']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
        fitted = f", {row['fitted']}" if row["fitted"] else ""
        lines.append(
            f"{row['tpir']:>7.1%} {row['plain']:>7.1%}  {gain:<24} {row['size']:>7,} {rate(row['fpir']):>10}  "
            f"{row['way']} ({row['probes']:,}{fitted})"
        )
    return "\n".join(lines)


def of_ratio(group: dict[str, Any]) -> str:
    """A group's ratio of false match rates, with its limits and name."""
    return "{value:.3g} [{low:.3g}, {high:.3g}]".format(**group["fmr_ratio"]) + f" ({group['group']})"


def share(value: dict[str, float] | None, digits: int = 1) -> str:
    """A share with its limits."""
    if value is None:
        return "none"
    return f"{value['value']:.{digits}%} [{value['low']:.{digits}%}, {value['high']:.{digits}%}]"


def rate(value: float) -> str:
    """`1 in 6,000`."""
    return f"1 in {1 / value:,.0f}"
