"""The technician's workbench at base: keys, enrolment, sealed watchlists, evaluation."""
