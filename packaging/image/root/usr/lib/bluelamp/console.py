#!/usr/bin/python3 -I
"""The field console: the only program that reads the unit's keyboard. A fixed list of commands, no shell.

Everything typed is compared with the list. Nothing typed becomes part of a command line but a person's name, which
may hold letters, digits, spaces and hyphens. Commands of the unit run as the keeper's user (see /usr/bin/bluelamp-
unit).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

UNIT = "/usr/bin/bluelamp-unit"
NAME = re.compile(r"[^\W_][\w .'-]{0,63}")
STICK = Path("/run/bluelamp/stick")
LONGEST = 200
"""Most characters of a line that are read."""


def main() -> None:
    """Read a word, run its command, again, until the service is stopped."""
    for stop in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(stop, lambda *_: None)
    greet()
    while True:
        try:
            word = input("\nbluelamp> ")[:LONGEST].strip().lower()
        except EOFError:
            return
        except UnicodeDecodeError:
            continue
        answer(word)


def greet() -> None:
    about = dict(line.split("=", 1) for line in Path("/usr/lib/os-release").read_text().splitlines() if "=" in line)
    print(f"\n{about.get('PRETTY_NAME', 'Bluelamp unit').strip(chr(34))}. Type help for the list of commands.")


def answer(word: str) -> None:
    """Run the command that `word` names."""
    if not word:
        return
    if word not in COMMANDS:
        print(f"{word!r} is no command. Type help.")
        return
    _, action = COMMANDS[word]
    if callable(action):
        action()
    else:
        run(action)


def run(command: Sequence[str]) -> int:
    """Run a program on this terminal; Ctrl-C ends it and not the console."""
    try:
        child = subprocess.Popen(command, preexec_fn=_default_signals)
        status = child.wait()
    except OSError as error:
        print(f"cannot be run: {error}")
        return 1
    print(f"(done, {status})")
    return status


def _default_signals() -> None:
    for stop in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(stop, signal.SIG_DFL)


def show_help() -> None:
    for word, (text, _) in COMMANDS.items():
        print(f"  {word:12} {text}")


def arm() -> None:
    """Ask who confirms, then walk through the checklist."""
    name = input("Your name, for the record: ")[:LONGEST].strip()
    if not NAME.fullmatch(name):
        print("Not armed: a name has letters, digits, spaces, hyphens, full stops or apostrophes.")
        return
    run([UNIT, "arm", "--by", name])


def power(action: str) -> Callable[[], None]:
    """Switch off or restart, after one question."""

    def ask() -> None:
        if input(f"{action} now? y or n: ").strip().lower() == "y":
            subprocess.run(["/usr/bin/systemctl", action], check=False)

    return ask


COMMANDS: dict[str, tuple[str, Sequence[str] | Callable[[], None]]] = {
    "help": ("this list", show_help),
    "check": ("is everything there that scanning needs", [UNIT, "check"]),
    "status": ("what the unit does at this moment", [UNIT, "status", "--once"]),
    "order": ("the deployment order, as people read it", [UNIT, "order"]),
    "arm": ("go through the signs, then scan", arm),
    "disarm": ("stop scanning, destroy the list and its key", [UNIT, "disarm"]),
    "aim": ("point the cameras: a picture without faces", [UNIT, "view", "--terminal"]),
    "fingerprint": (
        "this unit's fingerprint and the authorities it trusts",
        [UNIT, "keys", "fingerprint", "/var/lib/bluelamp/keys"],
    ),
    "version": ("the running version, the slots, the last update", ["/usr/lib/bluelamp/update.py", "--show"]),
    "update": ("install the update bundle that is on the stick", ["/usr/lib/bluelamp/update.py"]),
    "setup": ("read site.toml again from the stick (only while not armed)", ["/usr/lib/bluelamp/setup.py", "--again"]),
    "messages": (
        "the last messages of the unit's services",
        ["/usr/bin/journalctl", "--no-pager", "--quiet", "-n", "60", "-u", "bluelamp*"],
    ),
    "times": ("how long each part took to start", ["/usr/bin/systemd-analyze", "--no-pager", "blame"]),
    "off": ("switch off", power("poweroff")),
    "restart": ("restart", power("reboot")),
}

if __name__ == "__main__":
    os.environ["PATH"] = "/usr/sbin:/usr/bin"
    main()
