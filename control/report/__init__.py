"""The report of a deployment: how often machine and people were right, and nothing that identifies anyone."""
