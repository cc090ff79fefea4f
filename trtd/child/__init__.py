"""What the router and the workers have in common as children of the supervisor: trampoline, settings, channel."""
