#!/usr/bin/env bash
# h5py 3.16.0 (HDF5 2.0.0): where a dataset behind links says that it is.
# 1. Behind a soft link to an external link, `dataset.file.filename` is the other file, but `dataset.name` is the name
#    of the soft link in the first file: the pair leads nowhere.
# 2. A file that is opened from a Python file object (as fsspec gives for object stores) looks for every external link
#    in that same file: where it has a dataset of that name, this one is read, without an error.
# Seen: "/soft in b.h5: there: False" and "of a path: 2, of a file object: 1".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet h5py==3.16.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import h5py

with h5py.File("b.h5", "w") as other:
    other["data"] = 2
with h5py.File("a.h5", "w") as first:
    first["data"] = 1
    first["link"] = h5py.ExternalLink("b.h5", "/data")
    first["soft"] = h5py.SoftLink("/link")
with h5py.File("a.h5") as first:
    found = first["soft"]
    there = found.name in found.file
    print(f"{found.name} in {found.file.filename}: there: {there}")
    by_path = int(first["link"][()])
with open("a.h5", "rb") as stream, h5py.File(stream, "r") as first:
    by_object = int(first["link"][()])
print(f"of a path: {by_path}, of a file object: {by_object}")
assert (there, by_path, by_object) == (False, 2, 1)
PY
