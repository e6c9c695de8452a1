from __future__ import annotations

import pytest

from mrczdask.execution.progress import track


def test_silent(capsys: pytest.CaptureFixture[str]) -> None:
    for nothing in (None, False):
        with track(nothing, 3, "sums") as advance:  # type: ignore[arg-type]
            advance()
    assert capsys.readouterr() == ("", "")


def test_callable_is_told_of_every_region() -> None:
    said: list[tuple[int, int, str]] = []
    with track(lambda *args: said.append(args), 2, "sums") as advance:
        assert said == [(0, 2, "sums")]
        advance()
        advance()
    assert said == [(0, 2, "sums"), (1, 2, "sums"), (2, 2, "sums")]


def test_bar_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with track(True, 2, "sums") as advance:
        advance()
        advance()
    out, err = capsys.readouterr()
    assert out == ""
    assert "sums" in err
    assert "2/2" in err


def test_bar_is_closed_on_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        with track(True, 2, "sums") as advance:
            advance()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "1/2" in capsys.readouterr().err
