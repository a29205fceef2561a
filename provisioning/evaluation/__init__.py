"""How often a model pack errs, and for whom: the open-set identification test of ISO/IEC 19795-1."""
