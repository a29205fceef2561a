"""Loads the shared fixtures of every test."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.support")
pytest_plugins = ["tests.support.machines"]
