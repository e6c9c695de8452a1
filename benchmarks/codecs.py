"""The codecs for counting detectors and cameras: size against entropy and peers, speed, and what the loss costs.

Sizes are those of whole streams, headers and tables included. Real data are looked for where MRCZDASK_TEST_DATA says.
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numcodecs
import numpy as np
import pcodec
from numba import njit
from numcodecs import blosc
from numpy.typing import NDArray
from pcodec import ChunkConfig, standalone

import mrczdask as md
from benchmarks.common import Table, arguments, interleaved, report
from mrczdask.simulate import poisson_entropy, readout_entropy

Pixels = NDArray[Any]
CAMERA = {"counts_per_electron": 2.1, "offset": 100.0, "read_noise": 1.6}
RANDOM_SCAN = "ROI_Random_Scan_movie.mrc"
JPEG_PIXELS = 1 << 20
"""JPEG sizes are those of the first images up to this many pixels, at least one: JPEG XL takes 1 s for them."""
CHUNKS, SPINS, THREAD_ROUNDS = 16, 5_000_000, 5
"""Chunks of a run of threads: with two, waking the second thread is a good part of what is timed."""


@dataclass(frozen=True)
class Peer:
    """An encoder and its decoder."""

    encode: Callable[[Pixels], Any]
    decode: Callable[[Any], Any]


def zstd(level: int) -> Peer:
    """Blosc with bitshuffle, one thread."""
    codec = numcodecs.Blosc("zstd", level, numcodecs.Blosc.BITSHUFFLE)
    return Peer(codec.encode, codec.decode)


def jpeg_ls() -> Peer:
    """Every image a stream of its own."""
    return Peer(
        lambda pixels: [imagecodecs.jpegls_encode(image) for image in _images(pixels)],
        lambda streams: [imagecodecs.jpegls_decode(stream) for stream in streams],
    )


def _images(pixels: Pixels) -> Pixels:
    return pixels.reshape(-1, *pixels.shape[-2:])


def bits(pixels: Pixels, encode: Callable[[Pixels], Any]) -> float:
    """Bits a pixel."""
    stream = encode(pixels)
    streams = stream if isinstance(stream, list) else [stream]
    return 8 * sum(len(each) for each in streams) / pixels.size


def jpeg_bits(pixels: Pixels, encode: Callable[[Pixels], bytes]) -> float | None:
    """Bits a pixel of images coded one by one; None for types JPEG has not."""
    if pixels.dtype.kind != "u" or pixels.itemsize > 2:
        return None
    some = _images(pixels)[: max(JPEG_PIXELS // (pixels.shape[-1] * pixels.shape[-2]), 1)]
    return bits(some, lambda images: [encode(image) for image in images])


COLUMNS = ("bound", "PixelHistogram", "B3D", "zstd-1", "zstd-5", "zstd-9", "JPEG-LS", "JPEG XL-7", "pcodec")


def sizes(pixels: Pixels, bound: float | None) -> list[float | None]:
    """One row of bits a pixel, in the order of COLUMNS."""
    wide = pixels.astype(np.promote_types(pixels.dtype, np.uint16)).reshape(-1)
    return [
        bound,
        bits(pixels, md.codecs.PixelHistogram().encode_array),
        bits(pixels, md.codecs.B3D().encode_array),
        *(bits(pixels, zstd(level).encode) for level in (1, 5, 9)),
        jpeg_bits(pixels, imagecodecs.jpegls_encode),
        jpeg_bits(pixels, lambda image: imagecodecs.jpegxl_encode(image, lossless=True, effort=7, numthreads=1)),
        bits(wide, lambda flat: standalone.simple_compress(flat, ChunkConfig())),
    ]


@dataclass(frozen=True)
class Simulated:
    """A data set, the bits a pixel that no codec of independent pixels beats, and the codec made for it."""

    name: str
    pixels: Pixels
    bound: float


def simulated(quick: bool) -> list[Simulated]:
    """Scans, counting movies and fluorescence."""
    scan, side = ((4, 16), 64) if quick else ((16, 32), 128)
    out = []
    for electrons in (1e3, 1e4, 1e5):
        data = md.simulate.stem(scan, (side, side), electrons_per_pattern=electrons, dtype="uint8")
        bound = float(poisson_entropy(data.means.values).mean())
        out.append(Simulated(f"4D-STEM, {electrons:.0e} e/pattern, uint8", data.counts.values, bound))
        if electrons == 1e4:
            out.append(Simulated("the same, uint16", data.counts.values.astype(np.uint16), bound))
    shape = (2, 256, 256) if quick else (8, 1024, 1024)
    for mean in (0.25, 1.0, 4.0):
        frames = md.simulate.poisson(shape, mean).values
        out.append(Simulated(f"counting movie, {mean} e/pixel, uint8", frames, float(poisson_entropy(mean))))
    cells = md.simulate.fluorescence((1, 256, 256) if quick else (8, 512, 512))
    bound = float(readout_entropy(cells.means, cells.readout).mean())
    out.append(Simulated("fluorescence, uint16", cells.images.values, bound))
    return out


def size_table(data: Sequence[Simulated]) -> Table:
    """Simulated data with known means."""
    note = (
        "Bits a pixel, headers included. Bound: entropy of independent pixels with the true means. In brackets: above "
        "the bound. The fluorescence images share their means, which PixelHistogram finds and B3D does not look for."
    )
    table = Table("Size of simulated data", ("data", *COLUMNS), note)
    for each in data:
        row = sizes(each.pixels, each.bound)
        ours = [f"{size:.3f} ({size / each.bound - 1:+.1%})" for size in row[1:3] if size is not None]
        table.add(each.name, f"{each.bound:.3f}", *ours, *row[3:])
    return table


def real_table(data: Sequence[tuple[str, Pixels]]) -> Table:
    """Real data, and simulations of others."""
    note = "Bits a pixel, headers included. The smallest of a row is not always ours. Nothing here is a counting movie."
    table = Table("Size of real data, and of simulations made by other programs", ("data", *COLUMNS[1:]), note)
    for name, pixels in data:
        table.add(f"{name}, {'x'.join(map(str, pixels.shape))} {pixels.dtype}", *sizes(pixels, None)[1:])
    return table


def speed_table(data: Sequence[Simulated], repeats: int) -> Table:
    """One thread, each codec by turns with the peer it is measured by."""
    note = "One thread. In brackets: times as fast as the peer, the median of the ratios of each round."
    table = Table("Speed", ("data", "codec", "peer", "encode MB/s", "decode MB/s", "peer encode", "peer decode"), note)
    for each in data:
        fluorescence = each.name.startswith("fluorescence")
        codec = md.codecs.B3D() if fluorescence else md.codecs.PixelHistogram()
        peer = jpeg_ls() if fluorescence else zstd(1)
        ours, theirs = codec.encode_array(each.pixels), peer.encode(each.pixels)
        times = interleaved(
            {
                "encode": lambda codec=codec, each=each: codec.encode_array(each.pixels),
                "peer encode": lambda peer=peer, each=each: peer.encode(each.pixels),
                "decode": lambda codec=codec, ours=ours: codec.decode_array(ours),
                "peer decode": lambda peer=peer, theirs=theirs: peer.decode(theirs),
            },
            repeats=repeats,
            warmups=2,
        )
        rates = {name: each.pixels.nbytes / 1e6 / seconds for name, seconds in times.medians.items()}
        cells = [f"{rates[do]:.0f} ({times.times_faster(do, than=f'peer {do}'):.2f})" for do in ("encode", "decode")]
        names = (type(codec).__name__, "JPEG-LS" if fluorescence else "Blosc zstd-1")
        table.add(each.name, *names, *cells, rates["peer encode"], rates["peer decode"])
    return table


@njit(nogil=True, cache=True)
def _spin(count: int) -> Any:
    """Work of a processor alone, without memory or Python: what a second thread can gain at most."""
    x = np.uint64(88172645463325252)
    for _ in range(count):
        x ^= x << np.uint64(13)
        x ^= x >> np.uint64(7)
        x ^= x << np.uint64(17)
    return x


def thread_table(data: Sequence[Simulated], repeats: int) -> Table:
    """Chunks one after the other, and two at a time."""
    rounds = THREAD_ROUNDS * repeats
    note = (
        f"Times as fast, {CHUNKS} chunks in each run: the fastest runs of {rounds} rounds, because whatever else runs "
        "takes the second core now and then. The first row is a loop in registers alone: what this machine gives at "
        "most."
    )
    table = Table("Two threads against one", ("data", "codec", "encode", "decode"), note)
    with ThreadPoolExecutor(2) as pool:

        def gain(work: Callable[[Any], Any], part: Any) -> float:
            parts = [part] * CHUNKS
            runs = {"one": lambda: [*map(work, parts)], "two": lambda: [*pool.map(work, parts)]}
            seconds = interleaved(runs, repeats=rounds, warmups=1).seconds
            return min(seconds["one"]) / min(seconds["two"])

        most = gain(_spin, SPINS)
        table.add("none", "integers in a loop", most, most)
        for each in data[:1] + data[-1:]:
            codec = md.codecs.B3D() if each is data[-1] else md.codecs.PixelHistogram()
            gains = gain(codec.encode_array, each.pixels), gain(codec.decode_array, codec.encode_array(each.pixels))
            table.add(each.name, type(codec).__name__, *gains)
    return table


def loss_table(quick: bool) -> Table:
    """The localisation experiment of the paper."""
    frames = 4 if quick else 100
    truth = md.simulate.localisation(frames, (10, 10), photons=500, background=10)
    images = truth.images.values
    limit = md.simulate.cramer_rao_bound(truth.positions, truth.readout, photons=500, background=10)

    def error(decoded: Pixels) -> float:
        fits = md.simulate.localise(decoded, truth.positions, truth.readout)
        return float(np.sqrt(((fits - truth.positions) ** 2).mean() / (limit**2).mean()))

    note = (
        f"{frames} frames of 100 spots of 500 photons on 10 e/pixel, sigma 1 pixel; camera of 2.1 counts per electron, "
        "offset 100, read noise 1.6 e. Error: root mean square over the Cramer-Rao bound. The paper: 5.0 x against "
        "2.7 x lossless at q = 1, error + 4 %."
    )
    columns = (
        "form",
        "q",
        "times smaller than uint16",
        "times smaller than lossless",
        "error / bound",
        "error / lossless",
    )
    table = Table("Localisation of single molecules after lossy compression", columns, note)
    lossless, plain = len(md.codecs.B3D().encode_array(images)), error(images)
    table.add("lossless", 0.0, images.nbytes / lossless, 1.0, plain, 1.0)
    forms = {"strict": {}, "stabilised": {"bound": "stabilised"}}
    forms["stabilised, predict first"] = {"bound": "stabilised", "order": "predict-first"}
    for form, settings in forms.items():
        for q in (0.5, 1.0, 2.0, 4.0):
            codec = md.codecs.B3D(quantisation=q, **CAMERA, **settings)
            stream = codec.encode_array(images)
            now = error(codec.decode_array(stream))
            table.add(form, q, images.nbytes / len(stream), lossless / len(stream), now, now / plain)
    return table


def real_data(folder: Path) -> list[tuple[str, Pixels]]:
    """Chunks of what the folder of test data holds."""
    import fabio
    import h5py
    import hdf5plugin  # noqa: F401 (registers the filters of the detector's files)

    with h5py.File(folder / "real" / "stem" / "test_00_master.h5") as file:
        arina = np.asarray(file["entry/data/data_000001"][:])
    with h5py.File(folder / "simulated" / "abtem_4dstem.h5") as file:
        abtem = np.asarray(file["4DSTEM/data"])
    with h5py.File(folder / "simulated" / "bragg_stills.h5") as file:
        stills = np.asarray(file["entry/data/data"][:4])
    haadf, movie = (md.open_movie(folder / "real" / "mrc" / name).values for name in ("HAADFscan.mrc", RANDOM_SCAN))
    pilatus = [
        fabio.open(path).data for path in sorted((folder / "real" / "diffraction").glob("thau_3_2_000[135].cbf.bz2"))
    ]
    return [
        ("DECTRIS ARINA 4D-STEM", arina),
        ("NanoMegas precession diffraction", nanomegas(folder / "real" / "stem" / "test1.blo")),
        ("Pilatus3 6M stills", np.stack(pilatus)),
        ("Velox HAADF", haadf),
        ("Direct Electron movie", movie),
        ("multislice 4D-STEM (simulated)", abtem),
        ("Bragg stills (simulated)", stills),
    ]


def nanomegas(path: Path) -> Pixels:
    """Patterns of a .blo file: sizes at bytes 20, 24 and 26 of its head, six bytes before each pattern."""
    raw = path.read_bytes()
    (start,) = struct.unpack_from("<I", raw, 12)
    side, _, nx, ny = struct.unpack_from("<4H", raw, 20)
    each = np.frombuffer(raw, np.uint8, nx * ny * (side * side + 6), start).reshape(ny, nx, -1)
    return each[..., 6:].reshape(ny, nx, side, side).copy()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure sizes, speeds and losses."""
    options: argparse.Namespace = arguments(__doc__, argv)
    blosc.set_nthreads(1)
    blosc.use_threads = False
    data = simulated(options.quick)
    tables = [size_table(data), speed_table(data, options.repeats), thread_table(data, options.repeats)]
    tables.append(loss_table(options.quick))
    folder = os.environ.get("MRCZDASK_TEST_DATA")
    if folder:
        tables.append(real_table(real_data(Path(folder))))
    return report("codecs", f"Codecs for counting detectors (pcodec {pcodec.__version__})", tables, options)


if __name__ == "__main__":
    sys.exit(main())
