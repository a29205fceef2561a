"""What other systems may read: bridge, metrics, schemas. It identifies nobody."""
