"""The console: what control-room staff see in their browsers. No build step, nothing from outside this folder."""
