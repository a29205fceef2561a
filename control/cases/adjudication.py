"""The rules by which people answer a machine's question. Pure: a case and an act come in, the next case goes out.

1 A comparison score alone never suffices: only judgements by people lead to `engage` (requirement 13).
2 Who judges has seen the pair first, and judges once. Only adjudicators and supervisors judge.
3 As many different members as the order names must say `same` (requirement 26). A supervisor's ruling counts as one of
  them: where too few say so with it, the case waits for a further supervisor. A ruling of `not-same` ends it.
4 Adjudicators are blind to each other and to the score until they have answered.
5 A stale case is not acted on; nor is a decoy, ever.
6 A slip is taken back within UNDO seconds, while nothing has followed; the ledger keeps that it was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

from pydantic import ValidationError

from appliance.errors import BluelampError
from appliance.formats.order import Retention
from appliance.records import Record
from control.records import Case, CaseFacts, Engagement, Judgement, Member, Outcome, State, Verdict

UNDO = 30.0  # seconds in which a member may take back a judgement
JUDGES = ("adjudicator", "supervisor")
OPEN: tuple[State, ...] = ("waiting", "disputed")
RecordType = TypeVar("RecordType", bound=Record)
Group = Literal["sex", "age", "ethnicity"]
Hint = Literal["unknown", "refused", "stale"]
GROUPS: dict[Group, tuple[str, ...]] = {
    "sex": ("female", "male", "other", "not stated"),
    "age": ("under 18", "18 to 24", "25 to 39", "40 to 59", "60 and over", "not stated"),
    "ethnicity": (
        "Asian",
        "Black",
        "Mixed",
        "White",
        "Other",
        "not stated",
    ),  # as the Census 2021 names them, shortened
}
"""What an officer may record after a mistake. A closed list: free text could name somebody."""


class LedgerError(BluelampError):
    """An act that was refused, in words for the member; `status` says why in one."""

    exit_code = 11

    def __init__(self, text: str, status: Hint = "refused") -> None:
        super().__init__(text)
        self.status = status


class CaseView(CaseFacts):
    """A case as one member may see it now. `hidden` is what is withheld until the member, or all, have answered."""

    decoy: bool | None  # None: not told yet
    score: float | None
    threshold: float | None
    hidden: bool
    may_judge: bool  # this member may answer now
    may_rule: bool
    may_undo_until: float | None


def judged(case: Case, member: Member, verdict: Verdict, note: str, now: float, seen: float | None) -> Case:
    """The case after a member's answer. `seen`: when the pair was first shown to this member. Raises LedgerError."""
    _may_act(case, now)
    if member.role not in JUDGES:
        raise LedgerError(f"{member.name} is {_a(member.role)}: only adjudicators and supervisors judge")
    if case.state == "disputed":
        raise LedgerError("the answers differ: a supervisor who has not judged rules on it now")
    if any(j.by == member.name for j in case.judgements):
        raise LedgerError("you have answered already; another member must give the next answer")
    answers = (*case.judgements, _judgement(member, verdict, note, now, seen))
    state = _answered(answers, case.required)
    return _moved(case, state, answers, now)


def ruled(case: Case, member: Member, verdict: Verdict, note: str, now: float, seen: float | None) -> Case:
    """The case after a supervisor's word on differing answers. Raises LedgerError."""
    _may_act(case, now)
    if member.role != "supervisor":
        raise LedgerError(f"{member.name} is {_a(member.role)}: only a supervisor rules")
    if case.state != "disputed":
        raise LedgerError("nothing is disputed here: the answers are not in yet")
    if any(j.by == member.name for j in case.judgements):
        raise LedgerError("you have answered here already; another supervisor must rule")
    if verdict == "possibly":
        raise LedgerError("a ruling is the same or not the same: without certainty, rule not the same")
    ruling = _judgement(member, verdict, note, now, seen).model_copy(update={"ruling": True})
    answers = (*case.judgements, ruling)
    if verdict == "not-same":
        return _moved(case, "dismissed", answers, now)
    return _moved(case, "engage" if _saying_same(answers) >= case.required else "disputed", answers, now)


def undone(case: Case, member: Member, now: float) -> Case:
    """The case without this member's judgement, which must be its last. Raises LedgerError."""
    until = undo_until(case, member)
    if until is None:
        last = case.judgements[-1].by if case.judgements else ""
        raise LedgerError("this was a decoy, and the answer counts" if case.decoy and last == member.name
                          else "there is nothing of yours to take back here, or something has followed it")  # fmt: skip
    if now > until:
        raise LedgerError(f"an answer can be taken back for {UNDO:.0f} s; tell a supervisor about the slip")
    state: State = "disputed" if case.judgements[-1].ruling else "waiting"
    return case.model_copy(update={"judgements": case.judgements[:-1], "state": state, "decided": None})


def undo_until(case: Case, member: Member) -> float | None:
    """Until when this member may take back a judgement; None where there is none to take back."""
    own_last = bool(case.judgements) and case.judgements[-1].by == member.name
    if not own_last or case.engagement is not None or case.state == "withdrawn" or case.erased is not None:
        return None
    return None if case.decoy and case.decided is not None else case.judgements[-1].at + UNDO


def engaged(case: Case, member: Member, engagement: Engagement, retention: Retention) -> Case:
    """The case with what followed. A confirmed alert is kept longer, as the order says. Raises LedgerError."""
    if member.role not in JUDGES:
        raise LedgerError(f"{member.name} is {_a(member.role)}: only adjudicators and supervisors record what followed")
    if case.erased is not None:
        raise LedgerError("this alert was erased; record what followed before its time is over")
    if case.state != "engage" or case.decoy:
        raise LedgerError("nobody was sent to this one, so nothing can have followed")
    check_groups(engagement.outcome, engagement.recorded)
    keep_until = case.keep_until
    if engagement.outcome == "confirmed":
        keep_until = (case.decided or engagement.at) + min(retention.confirmed_days, 30.0) * 86400.0
    return case.model_copy(update={"state": "closed", "engagement": engagement, "keep_until": keep_until})


def check_groups(outcome: Outcome, recorded: Mapping[Group, str]) -> None:
    """Groups are recorded on mistakes only, from the closed list. Raises LedgerError."""
    if recorded and outcome != "mistaken":
        raise LedgerError("groups are recorded for mistaken alerts only (requirement 22)")
    for name, value in recorded.items():
        if value not in GROUPS.get(name, ()):
            raise LedgerError(f"{name}: choose one of {', '.join(GROUPS.get(name, ()))}")


def checked(kind: type[RecordType], **fields: object) -> RecordType:
    """A record of what a member typed. Raises LedgerError where it is too long or not one of the choices."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise LedgerError(f"{'.'.join(str(p) for p in first['loc'])}: {first['msg']}") from error


def withdrawn(case: Case, now: float) -> Case | None:
    """The case withdrawn, where nobody decided it in time; else None."""
    if case.state not in OPEN or now < case.stale_after:
        return None
    return case.model_copy(update={"state": "withdrawn"})


def visible(case: Case, member: Member, now: float) -> CaseView:
    """What this member may see of it at `now` (rule 4)."""
    over = case.state not in OPEN
    answered = any(j.by == member.name for j in case.judgements)
    fields = case.model_dump()
    if not over:
        fields["decoy"] = None
        fields["judgements"] = tuple(j for j in case.judgements if j.by == member.name)
    if not (over or answered):
        fields["score"] = fields["threshold"] = None
    live = not over and now < case.stale_after and not answered
    until = undo_until(case, member)
    return CaseView(
        **fields, hidden=not (over or answered), may_judge=live and case.state == "waiting" and member.role in JUDGES,
        may_rule=live and case.state == "disputed" and member.role == "supervisor",
        may_undo_until=until if until is not None and now <= until else None,
    )  # fmt: skip


def _may_act(case: Case, now: float) -> None:
    if case.state not in (*OPEN, "withdrawn"):
        raise LedgerError("this alert was decided already")
    if case.state == "withdrawn" or now >= case.stale_after:
        raise LedgerError("too old to act on: it was withdrawn", "stale")


def _judgement(member: Member, verdict: Verdict, note: str, now: float, seen: float | None) -> Judgement:
    if seen is None:
        raise LedgerError("look at the pair first: nobody judges what was not shown to them")
    return checked(Judgement, by=member.name, verdict=verdict, at=now, seconds=max(0.0, now - seen), note=note)


def _answered(answers: tuple[Judgement, ...], required: int) -> State:
    if len(answers) < required:
        return "waiting"
    verdicts = {j.verdict for j in answers}
    if verdicts == {"same"}:
        return "engage"
    return "dismissed" if verdicts == {"not-same"} else "disputed"


def _saying_same(answers: tuple[Judgement, ...]) -> int:
    return len({j.by for j in answers if j.verdict == "same"})


def _moved(case: Case, state: State, answers: tuple[Judgement, ...], now: float) -> Case:
    """A decoy that was judged the same is closed: nobody is ever sent to one."""
    if case.decoy and state == "engage":
        state = "closed"
    decided = None if state in OPEN else now
    return case.model_copy(update={"state": state, "judgements": answers, "decided": decided})


def _a(role: str) -> str:
    return f"{'an' if role[0] == 'a' else 'a'} {role}"
