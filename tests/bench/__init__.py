"""What `scripts/bench` and `scripts/profile` are made of: bare echoes, loads, comparisons, a plot, processor time."""
