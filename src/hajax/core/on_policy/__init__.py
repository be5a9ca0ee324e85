"""What only on-policy algorithms need."""
