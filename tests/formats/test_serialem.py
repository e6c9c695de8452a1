from __future__ import annotations

import pytest

from mrczdask.formats.serialem import is_full_size, is_halved_size, says_packed, title_attrs


@pytest.mark.parametrize(
    ("title", "attrs"),
    [
        ("SerialEMCCD: Frames . ., scaled by 1.00  r/f 4", {"rotation_flip": 4}),
        ("SerialEMCCD: Frames . ., 4 bits packed  r/f 0 need 5", {"rotation_flip": 0, "rotation_flip_needed": 5}),
        ("R/F 7", {"rotation_flip": 7}),
        ("r/f 9", {}),
        ("r/f -1 need 3", {}),
        ("for/f 3 frames", {}),
        ("    Tilt axis angle = 84.8, binning = 1  spot = 5  camera = 1", {"tilt_axis_angle_deg": 84.8}),
        ("T = TiltAxisAngle = -95.", {"tilt_axis_angle_deg": -95.0}),
        ("tilt axis rotation angle=.5", {"tilt_axis_angle_deg": 0.5}),
        ("Tilt axis angle = 1e9", {"tilt_axis_angle_deg": 1.0}),
        ("Tilt axis angle = 999", {}),
        ("Tilt axis angle = unknown", {}),
        ("", {}),
    ],
)
def test_titles(title: str, attrs: dict[str, float]) -> None:
    assert title_attrs([title, "clip: a later title"]) == attrs


def test_packed_words_and_sizes() -> None:
    assert says_packed("SerialEMCCD: Dose fract. image, 4 bits packed   r/f 3")
    assert says_packed("4-bits packed")
    assert not says_packed("14 bits packed")
    for nx, ny in ((7676, 7420), (7420, 7676), (11520, 8184), (8184, 11520)):
        assert is_halved_size(nx // 2, ny)
        assert is_halved_size(nx // 2 - 2, ny + 2)
        assert is_full_size(nx, ny)
        assert not is_halved_size(nx, ny)
    for nx, ny in ((3838, 3710), (5760, 4092), (4096, 4096)):
        assert not is_halved_size(nx, ny)
        assert not is_full_size(nx, ny)
