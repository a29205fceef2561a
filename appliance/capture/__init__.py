"""Cameras and clips: where frames come from. Only vision and the aiming view open one."""
