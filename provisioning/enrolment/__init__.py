"""From photographs and tables to references: reading, quality rules, templates, report."""
