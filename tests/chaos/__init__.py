"""The long proofs: the real daemon under kills, hangs, drains, floods, hostile input and reloads, while callers check.

One module per subject, each with a `run` that returns a `Report`; `scripts/chaos` runs them by name and prints the
figures. `stage` sets up the daemon with real models, `load` asks it, `history` judges what came back.
"""
