"""Models that others made, served by a real daemon and compared with ONNX Runtime alone: `scripts/real-models`."""
