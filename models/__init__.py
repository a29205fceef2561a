"""Model packs, each a folder beside this file, and ``models.training``, the recipe that made the project's own."""
