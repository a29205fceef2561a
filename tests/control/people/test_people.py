"""Members of staff: nobody is given a password, tokens work once, sessions end, and the file alone opens nothing."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from appliance.trust import audit
from control.people.cli import people_app
from control.people.people import FILE, Cost, People, PeopleError
from tests.support.machines import CONTROL, Machines

CHEAP = Cost(64, 1, 1)
WORDS = "four random quiet words"


class Clock:
    """Set by hand."""

    now = 1_900_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def people(tmp_path: Path, clock: Clock) -> Iterator[People]:
    made = People(tmp_path / "store", clock=clock, cost=CHEAP)
    yield made
    made.close()


def test_the_first_supervisor_begins_with_a_token_and_there_is_no_default_password(people: People) -> None:
    assert people.nobody()
    token = people.setup_token()
    assert token is not None
    member = people.accept(token.lower().replace("-", " "), WORDS, "Sue")  # as humans type
    assert (member.name, member.role) == ("sue", "supervisor")
    assert not people.nobody()
    assert people.setup_token() is None
    with pytest.raises(PeopleError, match="used up"):
        people.accept(token, WORDS, "mallory")


def test_a_new_set_up_token_voids_the_one_before(people: People) -> None:
    first, second = people.setup_token(), people.setup_token()
    assert first is not None and second is not None
    assert people.invitation(first) is None
    assert people.invitation(second) is not None


def test_an_invited_member_chooses_the_password_once_and_in_time(people: People, clock: Clock) -> None:
    token = people.invite("ann", "adjudicator")
    with pytest.raises(PeopleError, match="wrong"):
        people.sign_in("ann", WORDS)  # no password yet: no sign-in
    assert people.accept(token, WORDS, "somebody-else").name == "ann"  # the token's name counts
    assert people.sign_in("Ann ", WORDS).member.role == "adjudicator"
    late = people.invite("bob", "viewer")
    clock.now += 86401
    with pytest.raises(PeopleError, match="too old"):
        people.accept(late, WORDS)


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("short", "12 to 128"),
        ("x" * 129, "12 to 128"),
        ("ann is my name", "holds the name"),
        ("aaaaaaaabbbb", "different"),
    ],
)
def test_a_weak_password_is_refused_in_words_and_the_token_stays_good(people: People, password: str, why: str) -> None:
    token = people.invite("ann", "adjudicator")
    with pytest.raises(PeopleError, match=why):
        people.accept(token, password)
    assert people.accept(token, WORDS).name == "ann"


def test_accents_may_be_typed_either_way(people: People) -> None:
    people.add("ann", "viewer", "quatre mots très calmes")
    assert people.sign_in("ann", "quatre mots tre\u0300s calmes").token


def test_a_session_ends_when_idle_and_after_twelve_hours_however_busy(people: People, clock: Clock) -> None:
    people.add("ann", "adjudicator", WORDS)
    token = people.sign_in("ann", WORDS).token
    clock.now += 29 * 60
    assert people.resume(token) is not None
    clock.now += 29 * 60
    assert people.resume(token, active=False) is not None  # a page that asks by itself does not keep it alive
    clock.now += 2 * 60
    assert people.resume(token) is None
    busy = people.sign_in("ann", WORDS).token
    for _ in range(12 * 3):
        clock.now += 20 * 60 - 1
        assert people.resume(busy) is not None
    clock.now += 20 * 60
    assert people.resume(busy) is None


def test_reset_role_change_and_removal_end_every_session(people: People) -> None:
    people.add("sue", "supervisor", WORDS)
    people.add("ann", "adjudicator", WORDS)
    for act in (lambda: people.change_role("ann", "viewer"), lambda: people.reset("ann"), lambda: people.remove("ann")):
        tokens = [people.sign_in("ann", WORDS).token for _ in range(2)]
        act()
        assert [people.resume(token) for token in tokens] == [None, None]
        if any(account.name == "ann" and not account.ready for account in people.accounts()):
            with pytest.raises(PeopleError):
                people.sign_in("ann", WORDS)
            people.accept(people.reset("ann"), WORDS)
    with pytest.raises(PeopleError):
        people.sign_in("ann", WORDS)


def test_signing_out_ends_this_session_only(people: People) -> None:
    people.add("ann", "adjudicator", WORDS)
    here, there = people.sign_in("ann", WORDS).token, people.sign_in("ann", WORDS).token
    people.sign_out(here)
    assert people.resume(here) is None
    assert people.resume(there) is not None


def test_the_last_supervisor_stays(people: People) -> None:
    people.add("sue", "supervisor", WORDS)
    people.invite("sid", "supervisor")  # has no password yet, so does not count
    for act in (lambda: people.remove("sue"), lambda: people.change_role("sue", "viewer")):
        with pytest.raises(PeopleError, match="last supervisor"):
            act()


def test_the_file_holds_no_password_and_no_token(people: People, tmp_path: Path) -> None:
    people.add("ann", "adjudicator", WORDS)
    secrets = [people.sign_in("ann", WORDS).token, people.invite("bob", "viewer"), WORDS]
    people.close()
    blob = b"".join(p.read_bytes() for p in (tmp_path / "store").glob(f"{FILE}*"))
    for secret in secrets:
        assert secret.encode() not in blob
        assert secret.replace("-", "").encode() not in blob
    assert (tmp_path / "store" / FILE).stat().st_mode & 0o077 == 0


def test_passwords_are_argon2id_of_rfc_9106_and_dearer_hashes_replace_cheaper_ones(tmp_path: Path) -> None:
    cheap = People(tmp_path, cost=CHEAP)
    cheap.add("ann", "adjudicator", WORDS)
    cheap.close()
    dear = People(tmp_path)
    dear.sign_in("ann", WORDS)
    dear.close()
    stored = sqlite3.connect(tmp_path / FILE).execute("SELECT password FROM member").fetchone()[0]
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=1$")


def test_an_unknown_name_costs_as_much_as_a_wrong_password(tmp_path: Path) -> None:
    """Medians of interleaved tries: who measures cannot tell which names exist."""
    people = People(tmp_path, cost=Cost(8192, 2, 1))
    people.add("ann", "adjudicator", WORDS)
    times: dict[str, list[float]] = {"ann": [], "nobody-here": []}
    for _ in range(9):
        for name, taken in times.items():
            start = time.perf_counter()
            with pytest.raises(PeopleError, match="name or password is wrong"):
                people.sign_in(name, "not the password")
            taken.append(time.perf_counter() - start)
    people.close()
    known, unknown = (sorted(taken)[len(taken) // 2] for taken in times.values())
    assert 0.5 < known / unknown < 2.0


def test_many_threads_and_two_processes_files_agree(people: People, tmp_path: Path, clock: Clock) -> None:
    people.add("ann", "adjudicator", WORDS)
    other = People(tmp_path / "store", clock=clock, cost=CHEAP)
    tokens: list[str] = []
    threads = [
        threading.Thread(target=lambda p=p: tokens.append(p.sign_in("ann", WORDS).token)) for p in (people, other) * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(people.resume(token) and other.resume(token) for token in tokens)
    assert len(set(tokens)) == 8
    other.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60))
def test_no_text_is_a_token_that_was_not_given(people: People, text: str) -> None:
    people.setup_token()
    assert people.invitation(text) is None
    assert people.resume(text) is None


def test_the_command_line_makes_lists_resets_and_removes_and_every_change_is_logged(
    machines: Machines, tmp_path: Path
) -> None:
    store, keys = str(tmp_path / "store"), str(machines.folders[CONTROL])
    run = CliRunner().invoke
    assert "one-time token" in run(people_app, ["setup", "--store", store]).output
    added = run(people_app, ["add", "ann", "--role", "adjudicator", "--store", store, "--keys", keys])
    people = People(tmp_path / "store", cost=CHEAP)
    people.accept(added.output.split()[-1], WORDS)
    assert '"ann"' in run(people_app, ["list", "--store", store, "--json"]).output
    assert "adjudicator" in run(people_app, ["list", "--store", store]).output
    assert run(people_app, ["reset", "ann", "--store", store, "--keys", keys]).exit_code == 0
    assert run(people_app, ["remove", "ann", "--store", store, "--keys", keys]).exit_code == 0
    refused = run(people_app, ["remove", "ann", "--store", store, "--keys", keys])
    assert isinstance(refused.exception, PeopleError)
    people.close()
    log = audit.verify(tmp_path / "store" / "audit.log", [machines.keys(CONTROL).signer.public_key])
    assert [(e.act, e.subject, e.detail) for e in log] == [
        ("alteration", "account:ann", "invited as adjudicator"),
        ("alteration", "account:ann", "password reset"),
        ("alteration", "account:ann", "removed"),
    ]
