"""An order on the unit: arming, window, place, the files that belong to it."""
