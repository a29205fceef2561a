"""Local sockets between the unit's processes."""
