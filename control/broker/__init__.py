"""Runs mosquitto with the configuration the project ships."""
