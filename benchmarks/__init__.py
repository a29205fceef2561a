"""Measurements of the whole unit and of its parts; each prints the figures the README quotes."""
