"""The rules of adjudication: a score alone never suffices, two means two, a stale alert and a decoy lead to nobody."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.formats.order import Retention
from control.cases import adjudication
from control.cases.adjudication import GROUPS, LedgerError
from control.records import NOTE, Case, Engagement, Member, Verdict
from tests.support.controlroom import ANN, BOB, CY, EYE, NOON, SID, SUE, VIC

STAFF = (ANN, BOB, CY, SUE, SID, EYE, VIC)
VERDICTS: tuple[Verdict, ...] = ("not-same", "possibly", "same")


def case(required: int = 1, **changes: object) -> Case:
    """An alert that just arrived."""
    made = Case(
        alert_id="a-1", decoy=False, unit="van-1", deployment="d-1", camera="front", category="test",
        reference_identifier="R-1", captured=NOON, observed=NOON, received=NOON, shown=None, stale_after=NOON + 600,
        keep_until=NOON + 86400, erased=None, score=0.7, threshold=0.5, quality=0.8, interocular=40, frames=9,
        track_seconds=1, has_probe=True, state="waiting", required=required,
    )  # fmt: skip
    return made.model_copy(update=changes)


def judge(before: Case, member: Member, verdict: Verdict, now: float = NOON) -> Case:
    return adjudication.judged(before, member, verdict, "", now, NOON)


def rule(before: Case, member: Member, verdict: Verdict, now: float = NOON) -> Case:
    return adjudication.ruled(before, member, verdict, "", now, NOON)


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        (["same"], "engage"), (["not-same"], "dismissed"), (["possibly"], "disputed"),
        (["same", "same"], "engage"), (["not-same", "not-same"], "dismissed"), (["same", "not-same"], "disputed"),
        (["not-same", "same"], "disputed"), (["same", "possibly"], "disputed"), (["possibly", "same"], "disputed"),
        (["possibly", "possibly"], "disputed"), (["not-same", "possibly"], "disputed"),
        (["possibly", "not-same"], "disputed"),
    ],
)  # fmt: skip
def test_what_answers_lead_to(answers: list[Verdict], state: str) -> None:
    now = case(len(answers))
    for number, answer in enumerate(answers):
        assert now.state == "waiting"
        now = judge(now, (ANN, BOB)[number], answer)
    assert now.state == state
    assert (now.decided is None) == (state == "disputed")


@pytest.mark.parametrize(
    ("answers", "rulings", "state"),
    [
        (["possibly"], ["same"], "engage"), (["possibly"], ["not-same"], "dismissed"),
        (["same", "not-same"], ["same"], "engage"), (["same", "possibly"], ["not-same"], "dismissed"),
        (["possibly", "not-same"], ["same"], "disputed"), (["possibly", "possibly"], ["same", "same"], "engage"),
        (["not-same", "possibly"], ["same", "not-same"], "dismissed"),
    ],
)  # fmt: skip
def test_a_ruling_of_the_same_needs_as_many_as_the_order_says(
    answers: list[Verdict], rulings: list[Verdict], state: str
) -> None:
    now = case(len(answers))
    for member, answer in zip((ANN, BOB), answers, strict=False):
        now = judge(now, member, answer)
    for member, ruling in zip((SUE, SID), rulings, strict=False):
        now = rule(now, member, ruling)
    assert now.state == state


ACT = st.tuples(
    st.sampled_from(["judge", "rule", "undo", "tick", "engage", "wait"]),
    st.sampled_from(STAFF), st.sampled_from(VERDICTS), st.floats(0, 400),
)  # fmt: skip


@given(acts=st.lists(ACT, max_size=14), required=st.sampled_from([1, 2]), decoy=st.booleans())
@settings(max_examples=400, deadline=None)
def test_no_order_of_acts_engages_without_enough_members_who_said_same(
    acts: list[tuple[str, Member, Verdict, float]], required: int, decoy: bool
) -> None:
    """A score alone never suffices, and two means two (requirements 13 and 26)."""
    now, at = case(required, decoy=decoy), NOON
    for kind, member, verdict, seconds in acts:
        before = now
        at += seconds if kind == "wait" else 0.1
        try:
            now = perform(now, kind, member, verdict, at)
        except LedgerError:
            continue
        said_same = {j.by for j in now.judgements if j.verdict == "same"}
        if now.state == "engage":
            assert len(said_same) >= required
            assert not decoy
            assert before.state == "engage" or at < now.stale_after, "nothing stale is acted on"
        assert len({j.by for j in now.judgements}) == len(now.judgements), "nobody answers twice"
        assert all(j.by in {"ann", "bob", "cy", "sue", "sid"} for j in now.judgements)
        assert now.engagement is None or not decoy


def perform(before: Case, kind: str, member: Member, verdict: Verdict, at: float) -> Case:
    acts: dict[str, Callable[[], Case]] = {
        "judge": lambda: judge(before, member, verdict, at), "rule": lambda: rule(before, member, verdict, at),
        "undo": lambda: adjudication.undone(before, member, at), "wait": lambda: before,
        "tick": lambda: adjudication.withdrawn(before, at) or before,
        "engage": lambda: adjudication.engaged(
            before, member, Engagement(by=member.name, outcome="mistaken", at=at), Retention()
        ),
    }  # fmt: skip
    return acts[kind]()


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: judge(case(), VIC, "same"), "vic is a viewer"),
        (lambda: judge(case(), EYE, "same"), "eye is an auditor"),
        (lambda: judge(judge(case(2), ANN, "same"), ANN, "same"), "answered already"),
        (lambda: judge(judge(case(), ANN, "same"), BOB, "same"), "decided already"),
        (lambda: judge(judge(case(), ANN, "possibly"), BOB, "same"), "a supervisor"),
        (lambda: adjudication.judged(case(), ANN, "same", "", NOON, None), "look at the pair first"),
        (lambda: judge(case(), ANN, "same", NOON + 600), "too old"),
        (lambda: judge(case(state="withdrawn"), ANN, "same"), "too old"),
        (lambda: adjudication.judged(case(), ANN, "same", "x" * (NOTE + 1), NOON, NOON), "at most 500"),
        (lambda: adjudication.judged(case(), ANN, "surely", "", NOON, NOON), "verdict"),  # type: ignore[arg-type]
        (lambda: rule(case(), SUE, "same"), "nothing is disputed"),
        (lambda: rule(judge(case(), ANN, "possibly"), BOB, "same"), "only a supervisor"),
        (lambda: rule(judge(case(), SUE, "possibly"), SUE, "same"), "another supervisor"),
        (lambda: rule(judge(case(), ANN, "possibly"), SUE, "possibly"), "without certainty"),
        (lambda: rule(judge(case(), ANN, "possibly"), SUE, "same", NOON + 600), "too old"),
        (lambda: adjudication.undone(case(), ANN, NOON), "nothing of yours"),
        (lambda: adjudication.undone(judge(case(), ANN, "same"), BOB, NOON), "nothing of yours"),
        (lambda: adjudication.undone(judge(judge(case(2), ANN, "same"), BOB, "same"), ANN, NOON), "has followed"),
        (lambda: adjudication.undone(judge(case(), ANN, "same"), ANN, NOON + 30.1), "for 30 s"),
        (lambda: adjudication.undone(judge(case(decoy=True), ANN, "same"), ANN, NOON), "decoy"),
    ],
)
def test_what_is_refused_is_refused_in_words(act: Callable[[], Case], words: str) -> None:
    with pytest.raises(LedgerError, match=words):
        act()


def test_nobody_is_sent_to_what_was_not_judged_the_same() -> None:
    told = Engagement(by="ann", outcome="confirmed", at=NOON)
    for before in (case(), judge(case(), ANN, "not-same"), judge(case(), ANN, "possibly"), judge(case(2), ANN, "same"),
                   judge(case(decoy=True), ANN, "same")):  # fmt: skip
        with pytest.raises(LedgerError, match="nobody was sent"):
            adjudication.engaged(before, ANN, told, Retention())


def test_groups_are_recorded_on_mistakes_only_and_from_a_closed_list() -> None:
    """As officers recorded them, never inferred (requirement 22)."""
    adjudication.check_groups("mistaken", {"sex": "female", "age": "25 to 39", "ethnicity": "Black"})
    with pytest.raises(LedgerError, match="mistaken alerts only"):
        adjudication.check_groups("confirmed", {"sex": "female"})
    with pytest.raises(LedgerError, match="choose one of"):
        adjudication.check_groups("mistaken", {"age": "17, lives at Test Street 1"})
    assert all("not stated" in values for values in GROUPS.values())


def seen_by(before: Case, member: Member, now: float = NOON) -> tuple[bool, int, bool | None]:
    """Whether the score is shown, how many answers are, and what is told of its being a decoy."""
    view = adjudication.visible(before, member, now)
    assert view.hidden == (view.score is None) == (view.threshold is None)
    return view.score is not None, len(view.judgements), view.decoy


@pytest.mark.parametrize("decoy", [False, True])
def test_members_are_blind_to_score_decoy_and_each_other_until_they_answered(decoy: bool) -> None:
    waiting = case(2, decoy=decoy)
    assert {seen_by(waiting, member) for member in STAFF} == {(False, 0, None)}
    half = judge(waiting, ANN, "same")
    assert seen_by(half, ANN) == (True, 1, None)
    assert {seen_by(half, member) for member in STAFF if member is not ANN} == {(False, 0, None)}
    disputed = judge(half, BOB, "not-same")
    assert seen_by(disputed, BOB) == (True, 1, None)
    assert {seen_by(disputed, member) for member in (SUE, SID, CY, EYE, VIC)} == {(False, 0, None)}
    over = rule(disputed, SUE, "not-same")
    assert {seen_by(over, member) for member in STAFF} == {(True, 3, decoy)}


def test_a_view_says_what_its_member_may_do_now() -> None:
    def may(before: Case, member: Member, now: float = NOON) -> tuple[bool, bool, bool]:
        view = adjudication.visible(before, member, now)
        return view.may_judge, view.may_rule, view.may_undo_until is not None

    assert may(case(), ANN) == (True, False, False)
    assert may(case(), VIC) == (False, False, False)
    assert may(case(), ANN, NOON + 600) == (False, False, False)
    disputed = judge(case(), ANN, "possibly")
    assert may(disputed, ANN) == (False, False, True)
    assert may(disputed, ANN, NOON + 31) == (False, False, False)
    assert may(disputed, SUE) == (False, True, False)
    assert may(disputed, BOB) == (False, False, False)


def test_after_undo_a_case_stands_where_it_stood() -> None:
    disputed = judge(judge(case(2), ANN, "same"), BOB, "not-same")
    assert adjudication.undone(disputed, BOB, NOON + 5) == judge(case(2), ANN, "same")
    assert adjudication.undone(rule(disputed, SUE, "same"), SUE, NOON + 5) == disputed
