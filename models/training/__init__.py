"""The recipe of the project's own model packs: data, training, export, measurement.

Nothing here runs on a unit. ``python -m models.training --help`` lists the steps.
"""
