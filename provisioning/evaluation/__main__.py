"""`python -m provisioning.evaluation`: the same as `bluelamp-provision evaluate`."""

from appliance.command_line import run_app
from provisioning.evaluation.cli import app

run_app(app)
