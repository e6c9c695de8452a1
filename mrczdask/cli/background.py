"""Options of the background, which sparsify and peaks share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import Parameter

from mrczdask.cli.options import read_array
from mrczdask.errors import MrczdaskError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@Parameter(name="*")
@dataclass(frozen=True)
class Background:
    """How the background of diffraction frames is found."""

    bins: int = 800
    """Radial bins."""
    unit: Literal["q_A^-1", "q_nm^-1", "2th_deg", "2th_rad", "r_m", "r_mm", "pixel"] = "q_A^-1"
    """Of the radius."""
    sectors: int = 1
    """Around the beam, each with bins of its own: 8 to 16 follow a background that depends on the azimuth."""
    error_model: Literal["poisson", "azimuthal", "hybrid", "count"] = "poisson"
    """Deviation by counts, by the spread of a bin, by that to clip (hybrid), or by quantiles of few counts (count)."""
    cutoff_clip: float = 0.0
    """Pixels further from the average of their bin, in deviations, are dropped; 0: Chauvenet's criterion alone."""
    cycle: int = 5
    """Most passes of clipping."""
    noise: float = 1.0
    """Deviation of the detector, in counts."""
    mask: str | None = None
    """An image, not 0 where a pixel is bad: .npy, or any format of frames. Masks of the detector always count."""
    dark: str | None = None
    """An image of the dark current, in counts: .npy, or any format of frames."""
    flat: str | None = None
    """An image of the response of each pixel: .npy, or any format of frames."""
    dummy: float | None = None
    """Value of invalid pixels; by default what the file says."""
    delta_dummy: float | None = None
    """Values this close to the dummy are invalid too."""
    polarization: float | None = None
    """Polarization factor of the beam, to correct for."""
    solid_angle: Annotated[bool, Parameter(negative="")] = False
    """Correct for the solid angle of a pixel."""
    radial_range: Annotated[tuple[float, float] | None, Parameter(negative="")] = None
    """Only pixels of these radii are kept, or are peaks."""
    beam_centers: str | None = None
    """A .npy file of (y, x) of the beam in each frame, in pixels from the outer edge of the first: bins follow it."""

    def options(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """What `separate_background` takes, of frames (y, x) of a shape, their files read."""
        given = dict(vars(self))
        for name in ("mask", "dark", "flat"):
            given[name] = _image(given[name], name, shape)
        if given["mask"] is not None:
            given["mask"] = given["mask"] != 0
        given["beam_centers"] = None if self.beam_centers is None else read_array(self.beam_centers)
        return given


DEFAULT: Final = Background()


def _image(path: str | None, name: str, shape: tuple[int, ...]) -> NDArray[Any] | None:
    if path is None:
        return None
    if path.endswith(".npy"):
        found = read_array(path)
    else:
        from mrczdask.io.frames import open_frames

        found = open_frames(path)[0].values
    if found.shape != shape:
        raise MrczdaskError(f"{path}: the {name} has the shape {found.shape}, the frames {shape}")
    return found
