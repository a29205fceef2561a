"""What becomes of an alert: cases and the rules of adjudication."""
