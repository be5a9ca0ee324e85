"""What only off-policy algorithms need."""
