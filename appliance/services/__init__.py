"""Starts and supervises the unit's processes under one command."""
