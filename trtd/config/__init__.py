"""The configuration: frozen, versioned models (`model`), how they are read and where each value came from (`load`)."""
