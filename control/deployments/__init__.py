"""A deployment's order and reference pictures in the control room, and decoys."""
