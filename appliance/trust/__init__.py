"""Who may do what: keys, admissions, signatures, sealed containers, the audit log. Shared by all three packages."""
