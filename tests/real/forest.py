"""Models as scikit-learn and skl2onnx make them by default: a label, and probabilities as a sequence of maps.

They are made in a process of its own, which alone has these packages: `python tests/real/forest.py DIRECTORY`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

PACKAGES = ("scikit-learn", "skl2onnx")
ROWS_OF_A_REQUEST = 3
REQUESTS = 40


def make(directory: Path) -> list[Path]:
    """The model files, and beside them the rows to ask about, in `rows.npy`."""
    place, site = directory / "scikit-learn", directory / "site"
    if not (place / "rows.npy").exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(site)]
        subprocess.run([*pip, *PACKAGES], check=True)
        place.mkdir(parents=True, exist_ok=True)
        environ = {**os.environ, "PYTHONPATH": str(site)}
        subprocess.run([sys.executable, str(Path(__file__)), str(place)], check=True, env=environ)
    return sorted(place.glob("*.onnx"))


def write(directory: Path) -> None:
    """Train on the flowers that scikit-learn brings with it, and export without a word about options."""
    from skl2onnx import to_onnx  # type: ignore[import-not-found]  # only where this runs
    from sklearn.datasets import load_iris  # type: ignore[import-not-found]  # likewise
    from sklearn.ensemble import (  # type: ignore[import-not-found]  # likewise
        GradientBoostingRegressor,
        RandomForestClassifier,
    )
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-not-found]  # likewise
    from sklearn.pipeline import make_pipeline  # type: ignore[import-not-found]  # likewise
    from sklearn.preprocessing import StandardScaler  # type: ignore[import-not-found]  # likewise

    rows, labels = load_iris(return_X_y=True)
    rows = rows.astype(np.float32)
    models = {
        "forest": RandomForestClassifier(n_estimators=20, random_state=0),
        "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
        "boosting": GradientBoostingRegressor(n_estimators=20, random_state=0),
    }
    for name, model in models.items():
        made = to_onnx(model.fit(rows, labels), rows[:1])
        (directory / f"{name}.onnx").write_bytes(made.SerializeToString())
    np.save(directory / "rows.npy", rows)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
