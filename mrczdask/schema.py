"""Names of dimensions, coordinates, attributes and units, in one place."""

from __future__ import annotations

from typing import Final

MOVIE: Final = "movie"
FRAME: Final = "frame"
SHOT: Final = "shot"
Y: Final = "y"
X: Final = "x"

IMAGES: Final = "images"
"""Name of the pixels of a movie, a session and diffraction frames."""

MOVIE_DIMS: Final = (FRAME, Y, X)
SESSION_DIMS: Final = (MOVIE, FRAME, Y, X)

# Coordinates along `frame`
TIME: Final = "time"
DOSE: Final = "dose"
TILT: Final = "tilt"

# Coordinates along `movie`
ACQUIRED: Final = "acquired"
DOSE_RATE: Final = "dose_rate"
GAIN_REFERENCE: Final = "gain_reference"
N_FRAMES: Final = "n_frames"
UTC_OFFSET: Final = "utc_offset"
URL: Final = "url"

UNITS: Final = {
    TIME: "s",
    DOSE: "e/angstrom^2",
    TILT: "deg",
    DOSE_RATE: "e/pixel/s",
    UTC_OFFSET: "min",
}
"""Units written to the attribute `units` of a coordinate."""

# Attributes of the pixels
PIXEL_SIZE: Final = "pixel_size_angstrom"
VOLTAGE: Final = "voltage_kv"
SPHERICAL_ABERRATION: Final = "spherical_aberration_mm"
COUNTS_PER_ELECTRON: Final = "counts_per_electron"
ORIGIN: Final = "origin"
ROTATION_FLIP: Final = "rotation_flip"
"""How the camera software turned the frames: quarter turns counter-clockwise, 4 more for left and right exchanged
before. Of a session also a coordinate along `movie`."""
METADATA: Final = "metadata"
CONVENTION: Final = "convention"
HISTORY: Final = "history"
PROVENANCE: Final = "provenance"

# Encoding keys
MRC_HEADER: Final = "mrc_header"
EER: Final = "eer"
"""How an EER movie was rendered: upsampling, frames_per_fraction, camera_frames."""
PREFERRED_CHUNKS: Final = "preferred_chunks"
NOTES: Final = "notes"
"""What of the metadata could not be read, and why: a tuple of sentences."""
