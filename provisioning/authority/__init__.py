"""Authority keys, machine admissions and rosters."""
