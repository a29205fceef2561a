"""What the console lets nobody do: every header, cookie, role and limit, asked through its real routes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Mount, Route

from appliance.trust import audit
from control.people.people import Cost, People
from control.web import routes, shield
from control.web.brake import Brake
from tests.support.consoleroom import HOST, PASSWORD, STAFF, Console, Visitor
from tests.support.machines import CONTROL, Machines

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>'\"{{7*7}}"


@pytest.fixture
def console(machines: Machines, tmp_path: Path) -> Iterator[Console]:
    made = Console(tmp_path / "store", machines)
    made.ordered()
    yield made
    made.close()


@pytest.fixture(scope="module")
def quiet(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """For tests that change nothing."""
    made = Console(tmp_path_factory.mktemp("quiet") / "store", machines)
    made.ordered()
    yield made
    made.close()


def see(visitor: Visitor, alert: str) -> None:
    """Look at the pair, as a page does before anybody can answer."""
    assert visitor.get(f"/api/cases/{alert}/probe").status_code == 200


@pytest.mark.parametrize("path", ["/sign-in", "/alerts", "/static/base.css", "/nowhere", "/api/queue", "/api/cases/x"])
def test_every_answer_has_every_header(quiet: Console, path: str) -> None:
    for visitor in (quiet.visitor(), quiet.visitor("sue")):
        answer = visitor.get(path)
        for name, value in shield.HEADERS.items():
            assert answer.headers[name] == value, (path, name)
        assert answer.headers["strict-transport-security"]
        assert answer.headers["cache-control"] == ("no-cache" if path.startswith("/static/") else "no-store")
    policy = shield.HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy and "http" not in policy and "*" not in policy


def test_pages_hold_nothing_inline_and_nothing_from_elsewhere(quiet: Console) -> None:
    alert = quiet.alert()
    pages = {"sue": ["/alerts", f"/alerts/{alert}", "/rulings", "/fleet", "/members", "/about"], "eye": ["/log"]}
    texts = [quiet.visitor(name).get(path).text for name, paths in pages.items() for path in paths]
    texts.append(quiet.visitor().get("/sign-in").text)
    for text in texts:
        assert re.findall(r"<script(?![^>]*\bsrc=\"/static/)", text) == []
        assert re.findall(r"\son[a-z]+=|\sstyle=|javascript:", text) == []
        assert re.findall(r"(?:src|href|action)=\"(?!/|#)", text) == []
    folder = Path(shield.__file__).parent / "static"
    for file in (*folder.glob("*.js"), *folder.glob("*.css")):
        source = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|eval\(|document\.write", source), (
            file.name
        )


def test_the_cookie_is_bound_to_host_path_and_tls_and_no_script_reads_it(quiet: Console) -> None:
    visitor = quiet.visitor()
    answer = visitor.sign_in("ann")
    cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith("__Host-bluelamp="))
    for word in ("Secure", "HttpOnly", "SameSite=strict", "Path=/"):
        assert word in cookie
    assert "Domain" not in cookie and "Expires" not in cookie and "Max-Age" not in cookie


def test_signing_out_ends_the_session_and_clears_the_browser(console: Console) -> None:
    visitor = console.visitor("ann")
    token = visitor.client.cookies["__Host-bluelamp"]
    answer = visitor.post("/sign-out")
    assert answer.headers["clear-site-data"] == '"cache", "cookies"'
    visitor.client.cookies.set("__Host-bluelamp", token, domain=HOST)
    assert visitor.get("/alerts").status_code == 303


def test_every_sign_in_makes_another_session_and_one_that_was_planted_is_worth_nothing(console: Console) -> None:
    visitor = console.visitor()
    visitor.client.cookies.set("__Host-bluelamp", "planted", domain=HOST)
    visitor.sign_in("ann")
    first = visitor.client.cookies.get("__Host-bluelamp", domain=HOST)
    assert first != "planted"
    assert console.room.people.resume("planted") is None


def test_the_route_table_is_all_there_is(quiet: Console) -> None:
    app: Any = quiet.visitor().client.app
    served = {(r.path, m) for r in app.routes if isinstance(r, Route) for m in (r.methods or ()) if m != "HEAD"}
    assert served == {(line.path, line.method) for line in routes.ROUTES}
    assert [r.path for r in app.routes if isinstance(r, Mount)] == ["/static"]
    anybody = {(line.method, line.path) for line in routes.ROUTES if not line.roles}
    assert anybody == {(m, p) for m in ("GET", "POST") for p in ("/sign-in", "/welcome")}
    assert all("auditor" not in line.roles for line in routes.ROUTES if line.path.endswith(("/probe", "/reference")))
    assert all(line.method == "GET" or set(line.roles) <= {"adjudicator", "supervisor"} or line.path in
               ("/sign-in", "/sign-out", "/welcome", "/api/stay") for line in routes.ROUTES)  # fmt: skip


def test_every_line_of_the_table_is_enforced_for_every_role_and_for_nobody(console: Console) -> None:
    alert = console.alert()
    visitors = {"": console.visitor(), **{role: console.visitor(name) for name, role in STAFF.items()}}
    for line in routes.ROUTES:
        if not line.roles or line.path in ("/events", "/sign-out"):  # one has no end, the other ends the session
            continue
        path = line.path.format(alert=alert, name="nobody-of-that-name")
        for role, visitor in visitors.items():
            answer = visitor.get(path) if line.method == "GET" else visitor.post(path)
            if not role:
                page = line.method == "GET" and not line.api
                assert answer.status_code == (303 if page else 401), (line, role)
            elif role not in line.roles:
                assert answer.status_code == 403, (line, role)
            else:
                assert answer.status_code not in (401, 403) or "a viewer sees" in answer.text, (line, role, answer.text)
    assert visitors[""].get("/events").status_code == 401


def test_an_auditor_sees_no_face_and_a_viewer_only_after_officers_are_sent(console: Console) -> None:
    alert = console.alert()
    ann, vic, eye = (console.visitor(name) for name in ("ann", "vic", "eye"))
    for side in ("probe", "reference"):
        assert eye.get(f"/api/cases/{alert}/{side}").status_code == 403
        assert vic.get(f"/api/cases/{alert}/{side}").status_code == 403
    see(ann, alert)
    assert ann.post(f"/api/cases/{alert}/judge", {"verdict": "same"}).json()["state"] == "engage"
    for side in ("probe", "reference"):
        assert eye.get(f"/api/cases/{alert}/{side}").status_code == 403
        assert vic.get(f"/api/cases/{alert}/{side}").headers["content-type"] == "image/jpeg"


def test_every_view_of_a_face_is_a_line_of_the_log_with_a_name(console: Console) -> None:
    alert = console.alert()
    ann, eye = console.visitor("ann"), console.visitor("eye")
    for side in ("probe", "reference", "probe"):
        ann.get(f"/api/cases/{alert}/{side}")
    eye.get(f"/api/cases/{alert}/probe")  # refused: no view, no line
    ann.get(f"/api/cases/{alert}")
    log = audit.verify(console.store / "audit.log", [console.room.signer.public_key])
    assert [(e.by, e.act, e.subject, e.detail) for e in log] == [
        ("ann", "consultation", f"alert:{alert}", side) for side in ("probe", "reference", "probe")
    ]
    assert "3 entries: every link of the chain" in eye.get("/log").text
    path = console.store / "audit.log"
    path.write_bytes(path.read_bytes().replace(b'"by":"ann"', b'"by":"bob"', 1))
    assert "The log does not verify" in eye.get("/log").text


def test_the_score_and_the_other_answer_do_not_leave_before_ones_own(machines: Machines, tmp_path: Path) -> None:
    console = Console(tmp_path / "two", machines)
    console.ordered(adjudicators=2)
    alert = console.alert(score=0.7321)
    ann, bob, sue = (console.visitor(name) for name in ("ann", "bob", "sue"))
    for visitor in (ann, bob, sue):
        see(visitor, alert)
    ann.post(f"/api/cases/{alert}/judge", {"verdict": "possibly", "note": "a secret remark"})
    for visitor in (bob, sue):
        shown = visitor.get(f"/api/cases/{alert}").json()
        assert (shown["score"], shown["threshold"], shown["hidden"], shown["mine"]) == (None, None, True, None)
        for path in (f"/api/cases/{alert}", "/api/queue", f"/alerts/{alert}"):
            text = visitor.get(path).text.replace('data-verdict="possibly"', "")
            assert "0.7321" not in text and "a secret remark" not in text and '"possibly"' not in text, path
    assert "0.7321" in ann.get(f"/api/cases/{alert}").text
    console.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"x_csrf_token": "0" * 64}, {"x_csrf_token": ""}, {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"}, {"origin": "https://elsewhere.test"}, {"origin": "null"}, {"origin": f"http://{HOST}"},
    ],
)  # fmt: skip
def test_a_forged_request_changes_nothing(quiet: Console, headers: dict[str, str]) -> None:
    alert = quiet.alert()
    ann = quiet.visitor("ann")
    see(ann, alert)
    answer = ann.post(f"/api/cases/{alert}/judge", {"verdict": "same"}, **headers)
    assert answer.status_code == 403
    assert quiet.room.ledger.case(alert).state == "waiting"


def test_a_token_of_another_session_does_not_count(quiet: Console) -> None:
    alert = quiet.alert()
    ann, bob = quiet.visitor("ann"), quiet.visitor("bob")
    see(ann, alert)
    assert ann.post(f"/api/cases/{alert}/judge", {"verdict": "same"}, x_csrf_token=bob.token()).status_code == 403


def test_nobody_can_be_signed_in_by_another_page(quiet: Console) -> None:
    visitor = quiet.visitor()
    visitor.get("/sign-in")
    fields = {"name": "ann", "password": PASSWORD}
    assert visitor.post("/sign-in", fields, origin="https://elsewhere.test").status_code == 403
    visitor.client.cookies.clear()
    assert visitor.post("/sign-in", fields, x_csrf_token="0" * 64).status_code == 403


def test_pictures_and_data_are_not_for_other_sites(quiet: Console) -> None:
    alert = quiet.alert()
    ann = quiet.visitor("ann")
    for path in (f"/api/cases/{alert}/probe", "/api/queue", "/alerts"):
        assert ann.get(path, **{"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}).status_code == 403
    typed = ann.get("/alerts", **{"sec-fetch-site": "none", "sec-fetch-mode": "navigate"})
    assert typed.status_code == 200


@pytest.mark.parametrize("host", ["evil.test", f"{HOST}.evil.test", "", f"evil.test:443@{HOST}", "127.0.0.1"])
def test_it_answers_to_its_own_name_only(quiet: Console, host: str) -> None:
    answer = quiet.visitor().get("/sign-in", host=host)
    assert answer.status_code == 421
    assert "under the name" in answer.text
    assert answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/....//app.py", "/static/%00",
        "/static//etc/passwd", "/static/", "/static/../../records.py", "/alerts/../../people.sqlite",
        "/api/cases/..%2f..%2fx/probe",
    ],
)  # fmt: skip
def test_no_path_leads_out(quiet: Console, path: str) -> None:
    answer = quiet.visitor("ann").get(path)
    assert answer.status_code in (404, 405, 400)
    assert b"import" not in answer.content and b"root:" not in answer.content


def test_what_is_too_large_or_no_form_is_refused_before_it_is_read(quiet: Console) -> None:
    ann = quiet.visitor("ann")
    big = ann.post("/api/stay", {"note": "x" * 20_000})
    assert big.status_code == 413
    assert ann.post("/api/stay", {f"f{i}": "x" for i in range(41)}).status_code == 400
    manners = {"origin": f"https://{HOST}", "sec-fetch-site": "same-origin", "x-csrf-token": ann.token()}
    form = {**manners, "content-type": "application/x-www-form-urlencoded"}
    assert ann.client.post("/api/stay", content=b"a=%ff", headers=form).status_code == 400
    assert ann.client.post("/api/stay", content=b"a=1&a=2", headers=form).status_code == 400
    assert ann.client.post("/api/stay", json={}, headers=manners).status_code == 415
    assert ann.client.post("/api/stay", content=iter([b"a=1"]), headers=form).status_code == 411


def test_a_script_in_a_note_or_a_name_stays_text(console: Console) -> None:
    alert = console.alert(camera="<b>front</b>", category="<i>x</i>")
    ann, sue = console.visitor("ann"), console.visitor("sue")
    see(ann, alert)
    answer = ann.post(f"/api/cases/{alert}/judge", {"verdict": "same", "note": SCRIPT})
    assert answer.headers["content-type"] == "application/json"
    assert SCRIPT in answer.json()["history"][-1]["detail"]
    ann.post(f"/api/cases/{alert}/engage", {"outcome": "confirmed", "followed": SCRIPT})
    refused = sue.post("/members", {"name": SCRIPT, "role": "viewer"})
    assert refused.status_code == 409
    wrong = console.visitor().post("/sign-in", {"name": SCRIPT, "password": "x", "next": "//evil.test"})
    for page in (refused, wrong, sue.get(f"/alerts/{alert}"), sue.get("/fleet")):
        assert "<script>alert" not in page.text and "<img src=x" not in page.text
    assert "&lt;script&gt;" in wrong.text and "evil.test" not in wrong.text


@pytest.mark.parametrize(
    "onward", ["//evil.test", "https://evil.test", "/\\evil.test", "/%2f/evil", "javascript:x", "/a//b?c"]
)
def test_signing_in_leads_on_to_our_own_pages_only(quiet: Console, onward: str) -> None:
    fields = {"name": "ann", "password": PASSWORD, "next": onward}
    assert quiet.visitor().post("/sign-in", fields).headers["location"] in ("/", "/a//b")


def test_guessing_is_slowed_by_account_and_by_address_and_the_right_password_waits_too(console: Console) -> None:
    visitor = console.visitor(tries_account=3, tries_address=6)
    for _ in range(3):
        assert visitor.sign_in("ann", "wrong wrong wrong").status_code == 401
    refused = visitor.sign_in("ann")
    assert refused.status_code == 429
    assert "wait 15 min" in refused.text
    assert visitor.sign_in("bob").status_code == 303  # another account is not locked out by it
    other = console.visitor(tries_account=3, tries_address=6)
    for number in range(6):
        assert other.sign_in(f"guess-{number}", "wrong wrong wrong").status_code == 401
    assert other.sign_in("sue").status_code == 429


def test_wrong_tokens_count_as_guesses(console: Console) -> None:
    visitor = console.visitor(tries_address=2)
    fields = {"token": "AAAA-BBBB", "password": PASSWORD, "again": PASSWORD}
    assert [visitor.post("/welcome", fields).status_code for _ in range(3)] == [409, 409, 429]


def test_a_brake_forgets_in_time_and_cannot_be_filled() -> None:
    now = [0.0]
    brake = Brake(2, 60.0, clock=lambda: now[0])
    brake.failed("a")
    now[0] = 50
    brake.failed("a")
    assert brake.wait("a") == 10
    now[0] = 61
    assert brake.wait("a") == 0
    for number in range(20_000):
        brake.failed(str(number))
    assert len(brake._failures) == 10_000


def test_set_up_needs_the_token_and_gives_the_first_supervisor(machines: Machines, tmp_path: Path) -> None:
    console = Console(tmp_path / "fresh", machines, staffed=False)
    visitor = console.visitor()
    assert visitor.get("/sign-in").headers["location"] == "/welcome"
    assert "no default password" in visitor.get("/welcome").text
    token = console.room.people.setup_token() or ""
    fields = {"name": "sue", "password": PASSWORD, "again": PASSWORD}
    assert visitor.post("/welcome", {**fields, "token": "AAAA"}).status_code == 409
    assert "differ" in visitor.post("/welcome", {**fields, "token": token, "again": "x"}).text
    assert visitor.post("/welcome", {**fields, "token": token}).headers["location"] == "/sign-in"
    assert visitor.post("/welcome", {**fields, "token": token, "name": "mallory"}).status_code == 409
    assert visitor.sign_in("sue").status_code == 303
    invited = visitor.post("/members", {"name": "new.one", "role": "viewer"})
    shown = re.search(r'class="secret mono">([A-Z0-9-]+)<', invited.text)
    assert shown is not None
    assert console.room.people.accept(shown[1], PASSWORD).role == "viewer"
    log = audit.verify(console.store / "audit.log", [machines.keys(CONTROL).signer.public_key])
    assert [(e.by, e.subject) for e in log] == [("sue", "account:sue"), ("sue", "account:new.one")]
    console.close()


def test_an_idle_session_ends_although_its_page_keeps_asking(console: Console, tmp_path: Path) -> None:
    now = [time.time()]
    people = People(tmp_path / "clocked", clock=lambda: now[0], cost=Cost(64, 1, 1))
    people.add("ann", "adjudicator", PASSWORD)
    console.room = replace(console.room, people=people)
    ann = console.visitor("ann")
    statuses = []
    for _ in range(10):
        now[0] += 200
        statuses.append(ann.get("/api/queue").status_code)
    assert statuses == [200] * 9 + [401]
    assert ann.get("/alerts").status_code == 303
    people.close()


def test_refusals_are_words_that_say_what_to_do(console: Console) -> None:
    alert = console.alert()
    ann, bob = console.visitor("ann"), console.visitor("bob")
    unseen = bob.post(f"/api/cases/{alert}/judge", {"verdict": "same"})
    assert (unseen.status_code, unseen.json()["error"]) == (
        409,
        "look at the pair first: nobody judges what was not shown to them",
    )
    see(ann, alert)
    assert "verdict is missing" in ann.post(f"/api/cases/{alert}/judge", {}).json()["error"]
    assert (
        "500 characters"
        in ann.post(f"/api/cases/{alert}/judge", {"verdict": "same", "note": "x" * 501}).json()["error"]
    )
    ann.post(f"/api/cases/{alert}/judge", {"verdict": "not-same"})
    assert "decided already" in ann.post(f"/api/cases/{alert}/judge", {"verdict": "same"}).json()["error"]
    old = console.alert()
    see(ann, old)
    console.desk.now += 601
    late = ann.post(f"/api/cases/{old}/judge", {"verdict": "same"})
    assert (late.status_code, late.json()["stale"]) == (410, True)
    assert "too old to act on" in late.json()["error"]
    assert ann.get("/api/cases/no-such-alert").status_code == 404
    missing = ann.get("/alerts/no-such-alert")
    assert missing.status_code == 404 and "To the console" in missing.text


def test_the_order_may_keep_faces_off_alerts_and_a_reference_may_be_gone(console: Console) -> None:
    alert = console.alert(chip=None, reference_identifier="R-9")
    ann = console.visitor("ann")
    shown = ann.get(f"/api/cases/{alert}").json()
    assert (shown["has_probe"], shown["has_reference"]) == (False, False)
    assert any("reference picture is not here" in words for words in shown["warnings"])
    for side in ("probe", "reference"):
        assert ann.get(f"/api/cases/{alert}/{side}").status_code == 404
    assert ann.post(f"/api/cases/{alert}/judge", {"verdict": "not-same"}).status_code == 200


def test_groups_are_recorded_on_mistakes_only_and_from_the_closed_list(console: Console) -> None:
    ann = console.visitor("ann")
    alert = console.alert()
    see(ann, alert)
    ann.post(f"/api/cases/{alert}/judge", {"verdict": "same"})
    odd = ann.post(f"/api/cases/{alert}/engage", {"outcome": "mistaken", "recorded-sex": "something else"})
    assert odd.status_code == 400
    told = {"outcome": "mistaken", "recorded-sex": "female", "recorded-age": "", "followed": "apology"}
    assert ann.post(f"/api/cases/{alert}/engage", told).json()["state"] == "closed"
    engagement = console.room.ledger.case(alert).engagement
    assert engagement is not None and engagement.recorded == {"sex": "female"}


def test_the_queue_shows_first_what_ends_soonest_and_waits_for_this_member_and_counts_the_rest(
    machines: Machines, tmp_path: Path
) -> None:
    console = Console(tmp_path / "two", machines)
    console.ordered(adjudicators=2)
    alerts = [console.alert() for _ in range(7)]
    ann = console.visitor("ann", queue=3)
    first = ann.get("/api/queue").json()["lists"]["waiting"]
    assert ([row["alert_id"] for row in first["rows"]], first["total"], first["asked"]) == (alerts[:3], 7, 7)
    for alert in alerts[:2] + alerts[4:]:
        see(ann, alert)
        assert ann.post(f"/api/cases/{alert}/judge", {"verdict": "same"}).status_code == 200
    then = ann.get("/api/queue").json()["lists"]["waiting"]
    assert ([row["alert_id"] for row in then["rows"]][:2], then["total"], then["asked"]) == (alerts[2:4], 7, 2)
    assert console.visitor("vic").get("/api/queue").json()["lists"]["waiting"]["asked"] == 0
    console.close()


@pytest.mark.parametrize("name", ["alert", "probe", "reference"])
def test_an_answer_to_another_pair_than_the_one_on_the_screen_is_refused(console: Console, name: str) -> None:
    ann, alert = console.visitor("ann"), console.alert()
    other = console.alert(chip=None, reference_identifier="R-2")
    see(ann, alert)
    before = ann.on_screen(other)[name]
    refused = ann.post(f"/api/cases/{alert}/judge", {"verdict": "not-same", name: before})
    assert (refused.status_code, "not the pair" in refused.json()["error"]) == (409, True)
    assert console.room.ledger.case(alert).judgements == ()
    assert ann.post(f"/api/cases/{alert}/judge", {"verdict": "not-same"}).status_code == 200


def test_a_picture_other_than_the_one_the_page_names_is_not_served(console: Console) -> None:
    ann, alert = console.visitor("ann"), console.alert()
    for side in ("probe", "reference"):
        named = ann.on_screen(alert)[side]
        assert ann.get(f"/api/cases/{alert}/{side}?digest={named}").status_code == 200
        assert ann.get(f"/api/cases/{alert}/{side}?digest={'0' * 64}").status_code == 409


def test_nobody_says_the_same_without_a_reference_picture(console: Console) -> None:
    alert = console.alert(reference_identifier="R-9")
    ann = console.visitor("ann")
    ann.get(f"/api/cases/{alert}/probe")
    refused = ann.post(f"/api/cases/{alert}/judge", {"verdict": "same"})
    assert (refused.status_code, "no reference picture" in refused.json()["error"]) == (409, True)
    assert ann.post(f"/api/cases/{alert}/judge", {"verdict": "possibly"}).status_code == 200
    sue = console.visitor("sue")
    sue.get(f"/api/cases/{alert}/probe")
    assert sue.post(f"/api/cases/{alert}/rule", {"verdict": "same"}).status_code == 409


def test_who_was_reset_signs_in_at_once_although_the_account_was_braked(console: Console) -> None:
    ann = console.visitor()
    while ann.sign_in("ann", "a wrong password").status_code == 401:
        pass
    token = console.room.people.reset("ann")
    fresh = {"token": token, "password": PASSWORD, "again": PASSWORD}
    assert ann.post("/welcome", fresh).status_code == 303
    assert ann.sign_in("ann").status_code == 303
