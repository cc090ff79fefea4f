"""The units under a real systemd, which boots in namespaces of its own; run by name: `scripts/systemd`."""
