"""The aiming view: a live picture without faces on the unit's own screen, and words about why faces are unusable."""
