"""Proofs that need a real GPU with TensorRT and the plans that `TRTD_GPU_ASSETS` names; run by name only."""
