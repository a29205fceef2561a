"""Members of staff: accounts, roles, passwords, sessions."""
