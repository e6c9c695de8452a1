"""The command `doctor`: versions, and a warm cache of compiled kernels."""

from __future__ import annotations

from mrczdask.cli import OK
from mrczdask.cli.output import print_table


def doctor() -> int:
    """Show the versions in use and compile the kernels, so that the first call of a verb is fast."""
    import time

    from mrczdask.versions import versions, warm_up

    begin = time.perf_counter()
    warm_up()
    print_table(("package", "version"), versions().items())
    print(f"kernels compiled in {time.perf_counter() - begin:.1f} s")
    return OK
