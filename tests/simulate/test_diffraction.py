from __future__ import annotations

import dask
import numpy as np
import pytest

import mrczdask as md


def test_the_same_counts_for_any_chunks_and_any_selection(no_compute: None) -> None:
    run = md.simulate.stills(5, (40, 50), seed=3)
    with dask.config.set(scheduler="synchronous"):
        frames = run.frames.compute()
        np.testing.assert_array_equal(
            run.frames.chunk({"shot": 5}).isel(shot=[4, 1], y=slice(7, 9)), frames[[4, 1], 7:9]
        )
        np.testing.assert_array_equal(md.simulate.stills(2, (40, 50), seed=3).frames, frames[:2])
        assert (md.simulate.stills(5, (40, 50), seed=4).frames != frames).any()


def test_counts_are_poisson_around_background_and_spots() -> None:
    run = md.simulate.stills(60, (80, 90), spots=12, strength=400, beam_center=(30.5, 60.5), seed=1)
    frames = run.frames.values.astype(float)
    hits = np.array([len(run.truth(shot)) > 0 for shot in range(60)])
    assert 15 < hits.sum() < 45
    blank = frames[~hits]
    z = (blank.mean(0) - run.background) / np.sqrt(run.background / len(blank))
    assert abs(z.mean()) < 4 / 85
    assert z.std() == pytest.approx(1, abs=0.03)
    assert np.unravel_index(run.background.argmax(), (80, 90)) == (30, 60)
    extra = sum(run.truth(shot)[:, 2].sum() for shot in range(60))
    found = (frames - run.background).sum()
    assert found == pytest.approx(extra, abs=4 * np.sqrt(frames.sum()))


def test_a_spot_is_where_it_is_said_to_be() -> None:
    run = md.simulate.stills(1, (64, 64), hit_rate=1, spots=1, strength=2e4, background=0, dtype="uint32", seed=2)
    frame = run.frames.values[0].astype(float)
    ((y, x, counts),) = run.truth(0)
    centroid = (np.indices(frame.shape) * frame).sum((1, 2)) / frame.sum()
    np.testing.assert_allclose(centroid, (y, x), atol=4 * 0.9 / np.sqrt(frame.sum()))
    assert frame.sum() == pytest.approx(counts, abs=4 * np.sqrt(counts))


@pytest.mark.parametrize(
    ("options", "said"),
    [({"hit_rate": 2}, "hit_rate"), ({"n": -1}, "n=-1"), ({"shape": (3,)}, "shape"), ({"dtype": "f4"}, "integers")],
)
def test_wrong_parameters(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        md.simulate.stills(**{"n": 1, **options})  # type: ignore[arg-type]
