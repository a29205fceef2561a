"""Cases for the console's scripts: lists, one case, its two pictures, and what people answer.

Everything that leaves goes through adjudication.visible: what a member may not know yet is not sent. Each picture is
one line of the log, written before the first byte goes.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterable, Mapping
from typing import Any, cast

from starlette.responses import JSONResponse, Response

from control.cases.adjudication import GROUPS, JUDGES, CaseView, visible
from control.records import NOTE, Case, Member, Outcome, ReferencePicture, State, Verdict
from control.web import words
from control.web.guard import Console, Visit, WebError

_LISTS: tuple[tuple[str, tuple[State, ...]], ...] = (
    ("waiting", ("waiting",)),
    ("disputed", ("disputed",)),
    ("engage", ("engage",)),
    ("done", ("dismissed", "withdrawn", "closed")),
)
_ROW = {
    "alert_id", "unit", "deployment", "camera", "category", "reference_identifier", "captured", "received",
    "stale_after", "state", "required", "decided", "decoy", "hidden", "may_judge", "may_rule", "may_undo_until",
}  # fmt: skip
_DONE = 12  # rows of what is over; the log and the report have the rest


def queue(console: Console, visit: Visit) -> Response:
    """Every list and how many there are in all. `asked` of these wait for this member, the soonest to end first."""
    now, member, limit = time.time(), visit.member, console.settings.queue
    places, counts = _places(console), console.room.ledger.counts()
    lists = {}
    for name, states in _LISTS:
        found, asked = _found(console, states, member, _DONE if name == "done" else limit)
        rows = [_row(visible(case, member, now), member, places) for case in found]
        lists[name] = {"rows": rows, "total": sum(counts.get(state, 0) for state in states), "asked": asked}
    return JSONResponse({"now": now, "lists": lists, "broker": _broker(console)})


def detail(console: Console, visit: Visit) -> Response:
    """One case as this member may see it. Without a probe this is the moment it was shown."""
    case = console.room.ledger.case(visit.named("alert"))
    if not case.has_probe and may_see(case, visit.member):
        console.room.ledger.first_seen(case.alert_id, visit.member)
        case = console.room.ledger.case(case.alert_id)
    return _answer(console, visit, case)


def probe(console: Console, visit: Visit) -> Response:
    """The face the camera saw, as a JPEG; logged, and the member's stopwatch starts."""
    case = _seen(console, visit)
    picture = console.room.ledger.probe(case.alert_id)
    if picture is None:
        raise WebError(404, "there is no picture: the order keeps faces off alerts, or it was erased")
    _as_asked(visit, picture)
    console.room.audit(visit.member.name).add("consultation", f"alert:{case.alert_id}", "probe")
    console.room.ledger.first_seen(case.alert_id, visit.member)
    return Response(picture, media_type="image/jpeg")


def reference(console: Console, visit: Visit) -> Response:
    """The reference it was compared with, as a JPEG; logged."""
    case = _seen(console, visit)
    found = console.room.ledger.reference_of(case.alert_id)
    if found is None or found.picture is None:
        raise WebError(404, "the reference's picture was deleted, or never came here")
    picture = base64.b64decode(found.picture)
    _as_asked(visit, picture)
    console.room.audit(visit.member.name).add("consultation", f"alert:{case.alert_id}", "reference")
    return Response(picture, media_type="image/jpeg")


def judge(console: Console, visit: Visit) -> Response:
    """A member's answer."""
    verdict = cast(Verdict, _one_of(visit, "verdict", words.VERDICTS))
    _from_the_screen(console, visit)
    case = console.room.ledger.judge(visit.named("alert"), visit.member, verdict, _text(visit, "note"))
    return _answer(console, visit, case)


def rule(console: Console, visit: Visit) -> Response:
    """A supervisor's last word."""
    verdict = cast(Verdict, _one_of(visit, "verdict", ("same", "not-same")))
    _from_the_screen(console, visit)
    case = console.room.ledger.rule(visit.named("alert"), visit.member, verdict, _text(visit, "note"))
    return _answer(console, visit, case)


def undo(console: Console, visit: Visit) -> Response:
    """A slip is taken back."""
    return _answer(console, visit, console.room.ledger.undo(visit.named("alert"), visit.member))


def engage(console: Console, visit: Visit) -> Response:
    """What followed after officers approached."""
    outcome = cast(Outcome, _one_of(visit, "outcome", words.OUTCOMES))
    recorded = {
        str(name): _one_of(visit, f"recorded-{name}", values)
        for name, values in GROUPS.items()
        if visit.fields.get(f"recorded-{name}")
    }
    told = recorded if outcome == "mistaken" else {}
    case = console.room.ledger.engage(visit.named("alert"), visit.member, outcome, _text(visit, "followed"), told)
    return _answer(console, visit, case)


def _found(console: Console, states: tuple[State, ...], member: Member, limit: int) -> tuple[list[Case], int]:
    """A list's cases, and how many of all its cases wait for this member."""
    ledger = console.room.ledger
    if states not in (("waiting",), ("disputed",)):
        return ledger.cases(states=states, limit=limit), 0
    cases, unanswered = ledger.open_cases(states[0], member, limit)
    asks = member.role in (JUDGES if states[0] == "waiting" else ("supervisor",))
    return cases, unanswered if asks else 0


def may_see(case: Case, member: Member) -> bool:
    """Whether this member has need of the faces: who judges; a viewer once officers are sent; an auditor never."""
    if member.role == "viewer":
        return case.state == "engage" or case.engagement is not None
    return member.role in ("adjudicator", "supervisor")


def _seen(console: Console, visit: Visit) -> Case:
    case = console.room.ledger.case(visit.named("alert"))
    if not may_see(case, visit.member):
        raise WebError(403, "a viewer sees a pair once officers are sent" if visit.member.role == "viewer"
                       else "an auditor sees no faces")  # fmt: skip
    return case


def _pictures(console: Console, case: Case, found: ReferencePicture | None) -> dict[str, str]:
    """The SHA-256 of each picture of the pair, `found` being its reference; empty where there is none."""
    reference = base64.b64decode(found.picture) if found and found.picture else None
    return {"probe": _digest(console.room.ledger.probe(case.alert_id)), "reference": _digest(reference)}


def _from_the_screen(console: Console, visit: Visit) -> None:
    """An answer names the alert and both pictures that were on the screen; any other pair is refused."""
    case = console.room.ledger.case(visit.named("alert"))
    pair = {"alert": case.alert_id, **_pictures(console, case, console.room.ledger.reference_of(case.alert_id))}
    if any(visit.fields.get(name) != value for name, value in pair.items()):
        raise WebError(409, "this is not the pair that was on your screen; look at it again, then answer")
    if visit.fields.get("verdict") == "same" and not pair["reference"]:
        raise WebError(409, "there is no reference picture to compare with, so nobody can say the same")


def _as_asked(visit: Visit, picture: bytes) -> None:
    """Refuse a picture that is not the one the page names: the page answers for what it named."""
    if visit.request.query_params.get("digest", _digest(picture)) != _digest(picture):
        raise WebError(409, "this picture has changed; choose the alert once more")


def _digest(picture: bytes | None) -> str:
    return hashlib.sha256(picture).hexdigest() if picture else ""


def _answer(console: Console, visit: Visit, case: Case) -> Response:
    now, view = time.time(), visible(case, visit.member, time.time())
    reference = console.room.ledger.reference_of(case.alert_id)
    place = _places(console).get(case.deployment, "")
    whole = view.model_dump(exclude={"judgements", "engagement"}) | _row(view, visit.member, {case.deployment: place})
    whole |= {
        "now": now,
        "faces": may_see(case, visit.member),
        "pictures": _pictures(console, case, reference) if may_see(case, visit.member) else {},
        "quality_word": words.quality(case.quality),
        "warnings": words.warnings(case.quality, case.interocular, case.notes, reference, now),
        "image_date": reference.image_date if reference else "",
        "image_age": words.image_age(reference.image_date, now) if reference else "",
        "reference_quality": round(reference.quality) if reference else None,
        "has_reference": bool(reference and reference.picture),
        "history": _history(view),
    }
    return JSONResponse(whole)


def _row(view: CaseView, member: Member, places: Mapping[str, str]) -> dict[str, Any]:
    own = next((j for j in view.judgements if j.by == member.name), None)
    return {
        **view.model_dump(include=_ROW),
        "category_word": words.plain(view.category),
        "state_word": _state_word(view),
        "place": places.get(view.deployment, ""),
        "mine": own.verdict if own else None,
        "outcome": view.engagement.outcome if view.engagement else None,
    }


def _state_word(view: CaseView) -> str:
    if view.decoy:
        return "Decoy: a test pair"
    if view.engagement is not None:
        return words.OUTCOMES[view.engagement.outcome]
    return words.STATES[view.state]


def _history(view: CaseView) -> list[dict[str, Any]]:
    """What happened to it, in order: time, what, who and how."""
    lines = [(view.captured, "Seen by the camera", view.camera), (view.received, "Arrived here", _late(view))]
    if view.shown is not None:
        lines.append((view.shown, "First shown to a member", ""))
    for j in view.judgements:
        said = f"{'Ruling: ' if j.ruling else ''}{words.VERDICTS[j.verdict]}"
        lines.append((j.at, said, _joined(f"{j.by}, after {words.span(j.seconds)}", j.note)))
    if view.state == "withdrawn":
        lines.append((view.stale_after, "Withdrawn: nobody decided in time", ""))
    if (e := view.engagement) is not None:
        groups = ", ".join(f"{name}: {value}" for name, value in e.recorded.items())
        lines.append((e.at, words.OUTCOMES[e.outcome], _joined(e.by, e.followed, groups)))
    if view.erased is not None:
        lines.append((view.erased, "Erased: its key is destroyed", ""))
    return [{"at": at, "what": what, "detail": detail} for at, what, detail in sorted(lines, key=lambda n: n[0])]


def _late(view: CaseView) -> str:
    late = max(0.0, view.received - view.observed)
    return f"{f'{late * 1000:.0f} ms' if late < 10 else words.span(late)} after the frame that decided it"


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


def _broker(console: Console) -> dict[str, Any]:
    link = console.room.fleet.broker()
    said = f"No connection to the broker since {words.clock(link.since)} UTC ({link.words}). Alerts wait there."
    return {"connected": link.connected, "words": said}


def _places(console: Console) -> dict[str, str]:
    return {d.order.deployment: d.order.place.name for d in console.room.ledger.deployments()}


def _one_of(visit: Visit, name: str, allowed: Iterable[str]) -> str:
    value = visit.fields.get(name, "")
    if value not in allowed:
        raise WebError(400, f"{name} is missing or not one of: {', '.join(allowed)}")
    return value


def _text(visit: Visit, name: str) -> str:
    """What a human typed, bounded, without control characters."""
    text = "".join(c for c in visit.fields.get(name, "") if c.isprintable() or c == "\n").strip()
    if len(text) > NOTE:
        raise WebError(400, f"at most {NOTE} characters here; yours are {len(text)}")
    return text
