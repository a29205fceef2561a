"""The unit on the van: opens watchlists sealed to it, seals alerts, keeps nothing else."""
