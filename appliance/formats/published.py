"""Figures that others published of live facial recognition, to put a measurement beside. None was measured here."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.rates import Share, share, upper

REVIEW = (8, 42)  # alerts verifiably right, of alerts judged: independent review of the London trials, 2019
LONDON = (10, 3_147_436)  # false alerts, of faces seen: London, September 2024 to September 2025


@dataclass(frozen=True)
class Published:
    """What was said, of what, by whom. Rates are None where the source gives none."""

    source: str
    test: str
    tpir: float | None
    fpir: float | None
    references: int | None
    note: str


def figures() -> tuple[Published, ...]:
    """Oldest first."""
    review, alerts = share(*REVIEW), share(*LONDON)
    none = upper(0, 2_500_000, 0.05)
    return (
        Published(
            "Metropolitan Police, January 2020", "claim at the launch", 0.70, 1e-3, None, "no method was published"
        ),
        Published(
            "Independent review of the London trials, 2019",
            "alerts in streets, judged afterwards",
            None,
            None,
            None,
            f"8 of 42 alerts were verifiably right: {_percent(review)}. A share of alerts, not of faces",
        ),
        Published(
            "National Physical Laboratory, 2023",
            "volunteers in streets, NeoFace V4, threshold 0.60",
            0.89,
            1 / 6000,
            10_000,
            "1 in 60,000 with 1,000 references; no significant difference between groups at 0.60, one at 0.58",
        ),
        Published(
            "London, September 2024 to September 2025",
            "203 deployments, 3,147,436 faces",
            None,
            alerts.share,
            None,
            f"10 false of 2,077 alerts, 8 of them of Black people; 962 arrests. 1 in {1 / alerts.share:,.0f} faces "
            f"[1 in {1 / alerts.high:,.0f}, 1 in {1 / alerts.low:,.0f}]",
        ),
        Published(
            "South Wales, 2023 to 2024",
            "over 2.5 million faces, threshold 0.64",
            None,
            0.0,
            None,
            f"none false: at most 1 in {1 / none:,.0f} at 95 %",
        ),
    )


def _percent(found: Share) -> str:
    return f"{found.share:.0%} [{found.low:.0%}, {found.high:.0%}]"
