"""`bluelamp-control people`: accounts of the control room, at the machine itself. Every change is in the log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from appliance.times import utc
from appliance.trust import keys
from appliance.trust.audit import Audit
from control.people.people import ROLES, People, PeopleError
from control.records import Role

Store = Annotated[Path, typer.Option(help="The control room's store.", file_okay=False)]
Keys = Annotated[Path, typer.Option(help="The control room's key folder: it signs the log.", exists=True)]
Name = Annotated[str, typer.Argument(help="Name of the account: a-z, 0-9, dot, dash, underscore.")]
_out = Console(soft_wrap=True, highlight=False)
people_app = typer.Typer(
    help="Accounts: who may see, judge, supervise or audit. Nobody is given a password: a new account gets a one-time "
    "token, and its holder chooses the password in the browser.",
    no_args_is_help=True,
)


@dataclass(frozen=True)
class _Office:
    people: People
    audit: Audit


@people_app.command("add")
def add(
    name: Name,
    store: Store,
    keys: Keys,
    role: Annotated[str, typer.Option(help=", ".join(ROLES) + ".")] = "adjudicator",
) -> None:
    """Make an account and print its one-time token, good for 24 hours.

    Example: bluelamp-control people add j.smith --role adjudicator --store room-store --keys room
    """
    with _office(store, keys) as office:
        token = office.people.invite(name, _role(role))
        office.audit.add("alteration", f"account:{name}", f"invited as {role}")
    _say_token(name, token)


@people_app.command("list")
def show(store: Store, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Name every account, its role, and when it last signed in."""
    people = People(store)
    accounts = people.accounts()
    people.close()
    if as_json:
        print(json.dumps([account.model_dump() for account in accounts]))
        return
    table = Table("name", "role", "added (UTC)", "last signed in (UTC)", "state")
    for account in accounts:
        seen = utc(account.signed_in) if account.signed_in else "never"
        state = f"{account.sessions} session(s)" if account.ready else "has not chosen a password"
        table.add_row(account.name, account.role, utc(account.added), seen, state)
    _out.print(table)


@people_app.command("remove")
def remove(name: Name, store: Store, keys: Keys) -> None:
    """Remove an account and end its sessions. What it did stays in the ledger and in the log."""
    with _office(store, keys) as office:
        office.people.remove(name)
        office.audit.add("alteration", f"account:{name}", "removed")
    _out.print(f"{name} is removed and signed out everywhere")


@people_app.command("reset")
def reset(name: Name, store: Store, keys: Keys) -> None:
    """Void a password, end every session of the account, and print a one-time token."""
    with _office(store, keys) as office:
        token = office.people.reset(name)
        office.audit.add("alteration", f"account:{name}", "password reset")
    _say_token(name, token)


@people_app.command("setup")
def setup(store: Store) -> None:
    """Print the one-time token for the first supervisor; refused once anybody has a password."""
    people = People(store)
    token = people.setup_token()
    people.close()
    if token is None:
        raise PeopleError("set-up is done; a supervisor adds members, or use 'people add' and 'people reset'")
    _say_token("the first supervisor", token)


def mount(app: typer.Typer) -> None:
    """Put these commands under `people` of a command line."""
    app.add_typer(people_app, name="people")


def _role(text: str) -> Role:
    for role in ROLES:
        if role == text:
            return role
    raise PeopleError(f"{text}: no such role; roles are {', '.join(ROLES)}")


@contextmanager
def _office(store: Path, folder: Path) -> Iterator[_Office]:
    """The accounts, and the log in which their changes stand. The keys are opened first: no change without a line."""
    signer = keys.load(folder).signer
    people = People(store)
    try:
        yield _Office(people, Audit(store / "audit.log", signer))
    finally:
        people.close()


def _say_token(name: str, token: str) -> None:
    _out.print(f"one-time token for {name}, good for 24 hours; hand it over in person, to be typed at /welcome:")
    _out.print(f"  {token}", style="bold")
