"""PURE: what travels between our processes and to clients, as frozen types, and their exact bytes."""
