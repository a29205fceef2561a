"""The vision process: cameras, models and the opened watchlist. It has no network and writes nothing."""
