"""`bluelamp-unit check`: is everything there that scanning needs, a line each."""
