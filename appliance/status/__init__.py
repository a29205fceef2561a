"""Tells from outside what a unit is doing."""
