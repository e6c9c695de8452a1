"""Lazy, chunked electron-microscopy movies and sparse diffraction on Dask and xarray.

The public names load on first use, and the accessor `.em` is there as soon as xarray is, whichever is imported first:
importing the package itself loads no other library.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__version__ = "0.1.0.dev0"

_MODULE_OF = {
    "codecs": "mrczdask.codecs",
    "simulate": "mrczdask.simulate",
    "open_movie": "mrczdask.io.movie",
    "open_session": "mrczdask.io.session",
    "write_mrcz": "mrczdask.io.mrcz_writer",
    "open_gain": "mrczdask.io.gain",
    "write_gain": "mrczdask.io.gain",
    "open_defects": "mrczdask.io.defects",
    "write_defects": "mrczdask.io.defects",
    "frame_index": "mrczdask.io.index",
    "validate": "mrczdask.io.validate",
    "write_archive": "mrczdask.io.archive",
    "open_archive": "mrczdask.io.archive",
    "write_multiscale": "mrczdask.io.multiscale",
    "virtualize": "mrczdask.io.virtual",
    "show_versions": "mrczdask.versions",
    "sum_frames": "mrczdask.movies.sums",
    "apply_gain": "mrczdask.movies.gain",
    "fit_gamma": "mrczdask.movies.gain",
    "gamma": "mrczdask.movies.gamma",
    "orient_gain": "mrczdask.movies.orientation",
    "find_outliers": "mrczdask.movies.outliers",
    "fill_outliers": "mrczdask.movies.fill",
    "koma": "mrczdask.movies.koma",
    "KomaStream": "mrczdask.movies.koma_stream",
    "koma_radius": "mrczdask.movies.koma_choice",
    "find_high_contrast": "mrczdask.movies.koma_choice",
    "recover_integers": "mrczdask.movies.decimation",
    "restore_floats": "mrczdask.movies.decimation",
    "process_session": "mrczdask.movies.pipeline",
    "count_electrons": "mrczdask.movies.counting",
    "frame_correlation": "mrczdask.movies.correlation",
    "estimate_gain": "mrczdask.movies.blind_gain",
    "gain_quality": "mrczdask.movies.quality",
    "GainThresholds": "mrczdask.movies.quality",
    "gain_drift": "mrczdask.movies.drift",
    "GainMonitor": "mrczdask.movies.drift",
    "open_frames": "mrczdask.io.frames",
    "write_frames": "mrczdask.io.frames_writer",
    "Geometry": "mrczdask.io.geometry",
    "separate_background": "mrczdask.diffraction.background",
    "azimuthal_average": "mrczdask.diffraction.background",
    "sparsify": "mrczdask.diffraction.sparsify",
    "densify": "mrczdask.diffraction.densify",
    "compare_background": "mrczdask.diffraction.fidelity",
    "false_picks": "mrczdask.diffraction.false_picks",
    "find_bad_pixels": "mrczdask.diffraction.bad_pixels",
    "find_peaks": "mrczdask.diffraction.peaks",
    "ice_rings": "mrczdask.diffraction.peaks",
    "compare_peaks": "mrczdask.diffraction.compare_peaks",
    "PeakWatch": "mrczdask.diffraction.live",
    "veto": "mrczdask.diffraction.veto",
    "write_peaks": "mrczdask.io.peak_writer",
    "open_peaks": "mrczdask.io.peak_file",
    "link_hits": "mrczdask.io.frame_links",
    "center_frames": "mrczdask.diffraction.center",
    "loss_budget": "mrczdask.diffraction.loss",
    "pick_cutoff": "mrczdask.diffraction.loss",
    "sparse_sum": "mrczdask.diffraction.sparse_images",
    "virtual_image": "mrczdask.diffraction.sparse_images",
    "open_sparse": "mrczdask.io.sparse",
    "write_sparse": "mrczdask.io.sparse_writer",
}
"""Where each public name lives. A module maps to itself."""

__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'mrczdask' has no attribute {name!r}")
    module = importlib.import_module(_MODULE_OF[name])
    value = module if module.__name__ == f"mrczdask.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _AccessorFinder:
    """Finds xarray as the other finders do, and registers `.em` once it has been imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "xarray":
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, others), None)
        loader = None if spec is None else spec.loader
        if loader is not None:
            loader.exec_module = _then_register(loader.exec_module, loader)  # type: ignore[method-assign]
        return spec


def _then_register(exec_module: Any, loader: Any) -> Any:
    def run(module: ModuleType) -> None:
        if module.__name__ == "xarray":
            vars(loader).pop("exec_module", None)
        exec_module(module)
        if module.__name__ == "xarray":
            _register()

    return run


def _register() -> None:
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _AccessorFinder)]
    importlib.import_module("mrczdask.accessor")


if "xarray" in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _AccessorFinder())
