"""Takes watchlists and orders from a stick or an upload folder, after their signatures were verified."""
