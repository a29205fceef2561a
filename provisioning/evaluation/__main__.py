"""`python -m provisioning.evaluation`: the same as `bluelamp-provision evaluate`."""

from appliance.console import run_app
from provisioning.evaluation.cli import app

run_app(app)
