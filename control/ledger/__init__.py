"""The control room's encrypted store, and how its records are erased."""
