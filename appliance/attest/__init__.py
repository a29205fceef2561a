"""Proof of non-retention: run canary faces through the real processes, search for what is left, sign what was found."""
