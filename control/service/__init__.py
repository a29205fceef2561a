"""Assembles the control room's service, and its commands."""
