"""The demonstration: a drawn street, passers-by who do not exist, and a watchlist for it."""
