"""Ends the armed deployment: erases its key and files, and writes the receipt."""

from __future__ import annotations

import os

from appliance.deployment.site import Site, read_armed
from appliance.formats.receipt import Reason, Receipt
from appliance.keeper import erasure
from appliance.keeper.erasure import Ending
from appliance.trust import keys


def finish(
    site: Site, folder: keys.KeyFolder, reason: Reason, counts: dict[str, int] | None = None
) -> tuple[Receipt, bytes]:
    """End the armed deployment: erase, and return the receipt and its sealed form for the courier.

    Raises OrderError where nothing is armed. A run that was cut off is finished by calling it again.
    """
    record = read_armed(site, folder)
    later = sorted(site.watchlist.parent.glob(f"{site.watchlist.name}.next*"))
    ending = Ending(
        deployment=record.deployment, sealing_key=record.sealing_key, files=(site.watchlist, *later),
        watchlist=record.watchlist, order=record.order, entries=record.entries, state=site.state,
    )  # fmt: skip
    if os.access(site.recall.parent, os.W_OK):  # where it is the courier's, its next recall replaces it
        site.recall.unlink(missing_ok=True)
    return erasure.erase(folder, ending, reason, site.audit(folder), counts)
