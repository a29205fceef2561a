"""Where the repository and the shared development data lie."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("BLUELAMP_SHARED", ROOT.parent / "shared"))
