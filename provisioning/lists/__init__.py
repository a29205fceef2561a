"""Selects references, checks a list before it is issued, and seals it to units."""
