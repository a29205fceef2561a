"""The signed and sealed documents that the three packages exchange."""
