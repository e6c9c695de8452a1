from __future__ import annotations

import json

import numpy as np
import pytest

import mrczdask
from mrczdask.provenance import record, records


def test_a_line_for_people_and_a_record_for_programs() -> None:
    attrs = record({"voltage_kv": 300.0}, "sum_frames")
    assert attrs["voltage_kv"] == 300.0
    assert attrs["history"] == f"mrczdask {mrczdask.__version__}: sum_frames()"
    again = record(attrs, "koma", {"radius": 3, "mask": None, "sigma": np.float32(0.5), "gain": np.ones((2, 3))})
    assert again["history"].split("\n")[1].endswith("koma(radius=3, sigma=0.5, gain='array float64 (2, 3)')")
    assert [entry["operation"] for entry in records(again)] == ["sum_frames", "koma"]
    assert records(again)[1]["parameters"] == {"radius": 3, "sigma": 0.5, "gain": "array float64 (2, 3)"}
    assert records(attrs)[0]["version"] == mrczdask.__version__
    json.loads(again["provenance"])


def test_the_input_is_not_changed() -> None:
    attrs = {"history": "by hand"}
    assert record(attrs, "koma")["history"].startswith("by hand\n")
    assert attrs == {"history": "by hand"}


@pytest.mark.parametrize("broken", [None, 5, "", "no JSON", "{}", "null"])
def test_records_of_others_do_not_stop_it(broken: object) -> None:
    assert records({"provenance": broken}) == []
    assert len(records(record({"provenance": broken}, "koma"))) == 1


def test_parameters_of_any_kind() -> None:
    kinds = {"list": [1, (2, "a")], "map": {1: np.int64(2)}, "flag": True, "object": slice(1, 2), "name": "x"}
    entry = records(record({}, "verb", kinds))[0]["parameters"]
    assert entry == {"list": [1, [2, "a"]], "map": {"1": 2}, "flag": True, "object": "slice(1, 2, None)", "name": "x"}
