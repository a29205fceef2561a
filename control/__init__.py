"""The control room: subscribes, verifies, opens, and lets people decide."""
