"""Where the recipe finds what it may read but never ships: photographs, labels, models to learn from.

The folder is ``$BLUELAMP_SHARED``, else ``shared`` beside the repository. It holds ``data`` (photographs and labels)
and ``models`` (teacher, YuNet). Everything computed from it stays in a cache outside version control.
"""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TEACHER = Path("models/mobilefacenet-arcface/mobilefacenet_arcface.onnx")
YUNET = Path("models/yunet/yunet_n_dynamic.onnx")


class SourceError(RuntimeError):
    """A file that the recipe reads is not there; the message says where it should be."""


def shared_folder() -> Path:
    """The folder of data and models to learn from; raises SourceError where there is none."""
    folder = Path(os.environ.get("BLUELAMP_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        raise SourceError(
            f"no training data at {folder}: set BLUELAMP_SHARED to the folder that holds data/ and models/"
        )
    return folder


def cache_folder() -> Path:
    """``$BLUELAMP_TRAINING_CACHE``, else ``.cache/training`` in the repository (not under version control)."""
    folder = Path(os.environ.get("BLUELAMP_TRAINING_CACHE", REPOSITORY / ".cache" / "training"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def dlib_weights_file() -> Path:
    """The public-domain ``.dat`` file inside the installed package ``face_recognition_models``."""
    import importlib.util

    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise SourceError("dlib's weights are missing: pip install face_recognition_models==0.3.0")
    return Path(spec.submodule_search_locations[0]) / "models" / "dlib_face_recognition_resnet_model_v1.dat"
