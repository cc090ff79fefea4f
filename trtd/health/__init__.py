"""HTTP for probes and Prometheus, in a child of its own: it may be flooded, starve or die, and nobody else notices."""
