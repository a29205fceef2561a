"""The keeper process: ends a deployment and destroys its keys. It has no network and no camera."""
