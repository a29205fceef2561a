"""`bluelamp-provision`: the technician's workbench at base."""

from __future__ import annotations

import typer

from appliance.command_line import run_app
from provisioning.authority import keys_cli
from provisioning.enrolment import enrol_cli
from provisioning.evaluation import cli as evaluation_cli
from provisioning.lists import canary_cli, issue_cli, preflight_cli
from provisioning.orders import dossier_cli, order_cli

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="""
Who is on the list, who says so, for how long, on which unit.

In order: `keys init` makes the base, `keys admit` lets units and control rooms belong, `enrol` takes images in,
`preflight` looks a list over, `issue` seals it to a unit, `order` is what the unit obeys, `dossier` brings the
reference pictures to the control room, `receipts` proves the end.

Exit codes: 0 done, 1 failed, 2 config or usage, 4 model pack, 5 seal, order or watchlist, 6 keys, 8 enrolment.
""",
)
app.add_typer(keys_cli.app, name="keys")
app.command()(enrol_cli.enrol)
app.add_typer(enrol_cli.app, name="references")
app.command()(preflight_cli.preflight)
app.command()(issue_cli.issue)
app.command()(issue_cli.inspect)
app.add_typer(order_cli.app, name="order")
app.command()(canary_cli.canary)
app.command("dossier")(dossier_cli.make)
app.add_typer(order_cli.receipts_app, name="receipts")
app.add_typer(order_cli.audit_app, name="audit")
app.add_typer(evaluation_cli.app, name="evaluate")


def main() -> None:
    """Entry point: an expected failure is one red line and its own exit code."""
    run_app(app)


if __name__ == "__main__":
    main()
