"""Drafts, signs and checks deployment orders; reads receipts; makes reference dossiers."""
