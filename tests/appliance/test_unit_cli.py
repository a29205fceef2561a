"""Whatever is wrong at start is one clear line that says what to do, and a status of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.formats import watchlist
from appliance.records import Models
from appliance.trust import keys
from demo import rehearsal
from demo.run import ASSETS

Change = Callable[[Path], None]


def unit(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the unit's command line."""
    command = [sys.executable, "-m", "appliance.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> rehearsal.Rehearsal:
    """A unit with a sealed watchlist, and a config that names a broker that is away."""
    folder = tmp_path_factory.mktemp("unit")
    made = rehearsal.prepare(folder)
    rehearsal.enrol(made, ASSETS / "watchlist.csv")
    rehearsal.seal_list(made, "D-1", fpir=1e-3)
    text = unit("config", "--camera", str((ASSETS / "street.mp4").resolve()), "--broker", "127.0.0.1:9").stdout
    (folder / "unit" / "unit.toml").write_text(text)
    return made


@pytest.fixture
def config(prepared: rehearsal.Rehearsal, tmp_path: Path) -> Path:
    """A copy of the unit's folder, to be damaged."""
    import shutil

    shutil.copytree(prepared.folder / "unit", tmp_path / "unit", ignore=shutil.ignore_patterns("state"))
    return tmp_path / "unit" / "unit.toml"


def misspell(config: Path) -> None:
    config.write_text(config.read_text().replace("smallest_face", "smalest_face"))


def no_camera(config: Path) -> None:
    lines = [
        f'source = "{config.parent}/gone.mp4"' if x.startswith("source") else x for x in config.read_text().split("\n")
    ]
    config.write_text("\n".join(lines))


def not_a_video(config: Path) -> None:
    no_camera(config)
    (config.parent / "gone.mp4").write_bytes(b"not a video" * 500)


def truncated_list(config: Path) -> None:
    path = config.parent / "watchlist.blw"
    path.write_bytes(path.read_bytes()[:-100])


def no_list(config: Path) -> None:
    (config.parent / "watchlist.blw").unlink()


def open_key(config: Path) -> None:
    (config.parent / "keys" / "signing.pem").chmod(0o644)


def other_embedder(config: Path) -> None:
    config.write_text(config.read_text().replace('embedder = "lamp-embedder"', 'embedder = "open-embedder"'))


def swapped_packs(config: Path) -> None:
    config.write_text(config.read_text().replace('detector = "lamp-detector"', 'detector = "lamp-embedder"'))


def wrong_certificate(config: Path) -> None:
    (config.parent / "keys" / "tls.crt").write_text("not a certificate")


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (misspell, 2, "did you mean 'smallest_face'?"),
        (no_camera, 3, "no such file or camera"),
        (not_a_video, 3, "not a video this machine can decode"),
        (truncated_list, 5, "cut short"),
        (no_list, 5, "bring the list"),
        (open_key, 6, "chmod 600"),
        (other_embedder, 5, "made with another embedder pack"),
        (swapped_packs, 4, "swap the two in the config"),
        (wrong_certificate, 6, "certificate"),
    ],
)
def test_each_mistake_is_one_line_with_its_own_exit_code(config: Path, damage: Change, code: int, words: str) -> None:
    damage(config)
    done = unit("run", "--config", str(config))
    assert words in done.stderr
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_a_clock_before_the_window_is_told_and_nothing_is_captured(prepared: rehearsal.Rehearsal, config: Path) -> None:
    """The list begins tomorrow: the unit says so and refuses."""
    folder = keys.load(config.parent / "keys")
    from appliance.trust.seal import open_sealed, take_apart

    blob = (config.parent / "watchlist.blw").read_bytes()
    sealed = take_apart(blob, len(blob))
    manifest, templates, _ = watchlist.parse_plaintext(open_sealed(sealed, folder.sealing))
    tomorrow = time.time() + 86400
    later = manifest.model_copy(update={"not_before": tomorrow, "not_after": tomorrow + 3600})
    key = next(k for k in folder.identity.sealing if k.id == sealed.header.recipient)
    again = watchlist.make(later, templates, "later", key.public(), key.id, [prepared.base.keys.signer])
    (config.parent / "watchlist.blw").write_bytes(again)
    done = unit("run", "--config", str(config))
    assert done.returncode == 5
    assert "wait, or set the clock if it is wrong" in done.stderr


def test_check_tells_everything_in_a_line_each(config: Path) -> None:
    """The broker is away, which stops nothing, and everything else is there."""
    done = unit("check", "--config", str(config))
    assert done.returncode == 0
    lines = {line.split()[1]: line for line in done.stdout.splitlines() if line.strip()}
    assert lines["broker"].startswith("look")
    assert all(line.startswith("ok") for name, line in lines.items() if name != "broker"), done.stdout


def test_a_broker_that_is_away_costs_no_alert(config: Path) -> None:
    """The clip is scanned with nobody to talk to: the alerts wait in the outbox, and the run says 0."""
    import sqlite3

    text = config.read_text().replace("smallest_face = 40", "smallest_face = 36")
    config.write_text(text)
    done = unit("run", "--config", str(config), "--json")
    assert done.returncode == 0, done.stderr
    import json

    alerts = json.loads(done.stdout)["alerts"]
    assert alerts >= 3
    with sqlite3.connect(config.parent / "state" / "outbox.sqlite") as outbox:
        assert outbox.execute("select count(*) from envelopes").fetchone()[0] == alerts


def test_help_teaches_and_usage_errors_exit_with_2() -> None:
    done = unit("--help")
    assert done.returncode == 0
    assert "First use" in done.stdout
    assert unit("run", "--no-such-option").returncode == 2


def test_models_are_listed_as_json() -> None:
    import json

    rows = json.loads(unit("models", "list", "--json").stdout)
    assert {"lamp-detector", "lamp-embedder", "open-embedder", "yunet", "sface"} <= {row["name"] for row in rows}


def test_models_are_for_this_pair() -> None:
    with pytest.raises(ValueError, match="String should match pattern"):
        Models(detector="x", embedder="y")
