"""Passwords at the cost that the service really uses: people who sign in together never block each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_TOGETHER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from control.people.passwords import Cost
from control.people.people import People

people = People(Path(sys.argv[1]), cost=Cost(lanes=int(sys.argv[2])))
people.add("sue", "supervisor", "four random quiet words")
people.close()
people = People(Path(sys.argv[1]))
with ThreadPoolExecutor(4) as threads:
    sessions = list(threads.map(lambda _: people.sign_in("sue", "four random quiet words"), range(4)))
print(len({session.token for session in sessions}))
"""


@pytest.mark.parametrize("lanes", [1, 4], ids=["as made now", "as made before, with four lanes"])
def test_four_sign_ins_at_the_same_moment_all_succeed_at_the_real_cost(tmp_path: Path, lanes: int) -> None:
    command = [sys.executable, "-c", _TOGETHER, str(tmp_path / "store"), str(lanes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=45, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "4"), done.stderr
