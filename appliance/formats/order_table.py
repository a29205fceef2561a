"""Prints what an order says, as a table for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def print_order(rows: list[tuple[str, str]]) -> None:
    """An order's rows as a table."""
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, text)
    Console(soft_wrap=True, highlight=False).print(table)
