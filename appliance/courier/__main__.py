"""`python -m appliance.courier`: the courier as a process of its own."""

from __future__ import annotations

import sys

from appliance.courier.server import main

if __name__ == "__main__":
    sys.exit(main())
