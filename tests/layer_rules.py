"""The rules every module of the package keeps, read from its syntax tree: layers, opening, printing, kernels, size."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "mrczdask"

MODULE_LINES = 400
FUNCTION_LINES = 50

# From the ground up; a module imports from its own part and from lower levels, never from a neighbour.
LEVELS = (
    {"schema", "errors", "provenance"},
    {"formats", "kernels"},
    {"codecs", "execution"},
    {"io"},
    {"movies", "diffraction", "simulate"},
    {"plotting", "report", "versions", "testing"},
    {"accessor"},
    {"cli"},
)
LEVEL_OF = {part: level for level, parts in enumerate(LEVELS) for part in parts}

# Parts that may use less than what lies below them.
ONLY = {"simulate": {"schema", "errors", "provenance", "kernels"}}

GRAPH_LIBRARIES = {"dask", "distributed", "xarray", "zarr"}
BANNED_LIBRARIES = {
    "formats": GRAPH_LIBRARIES | {"fsspec"},
    "kernels": GRAPH_LIBRARIES | {"fsspec"},
    "codecs": {"dask", "distributed", "xarray", "fsspec"},
}
HDF5_LIBRARIES = {"h5py", "hdf5plugin"}

FILE_METHODS = {"read_bytes", "read_text", "write_bytes", "write_text"}

# They change the process for everyone in it: other libraries, other threads, the user's own code.
GLOBAL_SETTERS = {"set_nthreads", "set_num_threads", "set_releasegil", "set_blocksize", "set_compressor", "seterr"}
GLOBAL_ATTRIBUTES = {"use_threads", "nthreads"}
SCOPED_SETTERS = {"dask.config.set", "xr.set_options", "xarray.set_options", "zarr.config.set"}
RANDOM_CONSTRUCTORS = {"default_rng", "Generator", "SeedSequence", "Philox", "PCG64", "BitGenerator"}


MODULES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """Return `mrczdask.io.movie` for .../mrczdask/io/movie.py."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def violations(source: str, module: str, homes: dict[str, str]) -> list[str]:
    """Return what `module` breaks, one line each; `homes` maps public names of the package to their modules."""
    tree = ast.parse(source)
    part = module.partition(".")[2].partition(".")[0]
    found = [
        *_import_faults(tree, part, homes),
        *_library_faults(tree, part),
        *_file_faults(tree, part),
        *_print_faults(tree, part),
        *_kernel_faults(tree),
        *_global_faults(tree),
        *_size_faults(source, tree),
    ]
    return [f"{module}:{line}: {text}" for line, text in sorted(found)]


Fault = tuple[int, str]


def imports(tree: ast.AST, homes: dict[str, str]) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of every import wherever it stands, and of `md.name` where `md` is the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name != "mrczdask")
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "." * node.level
        elif isinstance(node, ast.ImportFrom) and node.module == "mrczdask":
            names = (alias.name for alias in node.names if alias.name != "__version__")
            yield from ((node.lineno, homes.get(name, f"mrczdask.{name}")) for name in names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
    package = _aliases(tree, "mrczdask")
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    for node in attributes:
        if isinstance(node.value, ast.Name) and node.value.id in package and node.attr != "__version__":
            yield node.lineno, homes.get(node.attr, f"mrczdask.{node.attr}")


def circle(sources: dict[str, str]) -> list[str]:
    """Return modules that import each other in a circle, wherever the imports stand; none where there is no circle."""
    needs = {name: set(_modules(ast.parse(source), sources)) - {name} for name, source in sources.items()}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _modules(tree: ast.AST, known: Container[str]) -> Iterator[str]:
    """Yield those of the known modules that are imported; a package only for what is no module in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else f"{node.module}" for name in inside)


def _aliases(tree: ast.AST, package: str) -> set[str]:
    names = (alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names)
    return {alias.asname or alias.name for alias in names if alias.name == package}


def _import_faults(tree: ast.AST, part: str, homes: dict[str, str]) -> Iterator[Fault]:
    if part and part not in LEVEL_OF:
        yield 1, f"`{part}` belongs to no layer: give it one in tests/layer_rules.py"
        return
    for line, target in imports(tree, homes):
        if target.startswith("."):
            yield line, "relative import: name the module from `mrczdask` on"
        if not target.startswith("mrczdask."):
            continue
        other = target.split(".")[1]
        if not part or other == part:
            continue
        allowed = ONLY.get(part, {name for name, level in LEVEL_OF.items() if level < LEVEL_OF[part]})
        siblings = LEVELS[0] if part in LEVELS[0] else set()
        if other not in allowed | siblings:
            yield line, f"`{part}` may not import `{other}`: imports go down only"


def _library_faults(tree: ast.AST, part: str) -> Iterator[Fault]:
    banned = BANNED_LIBRARIES.get(part, set()) | (set() if part == "io" else HDF5_LIBRARIES)
    for line, target in imports(tree, {}):
        library = target.split(".")[0]
        if library in banned:
            yield line, f"`{part}` may not import {library}"


def _file_faults(tree: ast.AST, part: str) -> Iterator[Fault]:
    if part in {"io", "cli"}:
        return
    for call in _calls(tree):
        name = _dotted(call.func)
        if name in {"open", "os.open", "io.open"} or name.split(".")[-1] in FILE_METHODS:
            yield call.lineno, f"`{name}`: only io opens files"


def _print_faults(tree: ast.AST, part: str) -> Iterator[Fault]:
    if part != "cli":
        yield from ((call.lineno, "`print`: only cli prints") for call in _calls(tree) if _dotted(call.func) == "print")


def _kernel_faults(tree: ast.AST) -> Iterator[Fault]:
    for call in _calls(tree):
        if any(word.arg == "parallel" and _is_true(word.value) for word in call.keywords):
            yield call.lineno, "`parallel=True`: parallelism is dask's alone"
        if _dotted(call.func).split(".")[-1] in {"njit", "jit", "vectorize", "guvectorize"}:
            words = {word.arg for word in call.keywords if _is_true(word.value)}
            inlined = any(word.arg in ("inline", None) for word in call.keywords)  # None: options handed on
            if not (inlined or words >= {"nogil", "cache"}):
                yield call.lineno, "a kernel needs nogil=True, cache=True"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "numba" and "njit" in {one.name for one in node.names}:
            yield node.lineno, "kernels take njit from kernels.compiling: it works where no cache can be written"
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    for decorator in (decorator for function in functions for decorator in function.decorator_list):
        if _dotted(decorator).split(".")[-1] in {"njit", "jit"}:
            yield decorator.lineno, "a kernel needs nogil=True, cache=True"


def _global_faults(tree: ast.AST) -> Iterator[Fault]:
    scoped = {id(item.context_expr) for node in ast.walk(tree) if isinstance(node, ast.With) for item in node.items}
    for call in _calls(tree):
        name = _dotted(call.func)
        if name.split(".")[-1] in GLOBAL_SETTERS or (name in SCOPED_SETTERS and id(call) not in scoped):
            yield call.lineno, f"`{name}` changes the whole process"
        if name.startswith(("np.random.", "numpy.random.")) and name.split(".")[-1] not in RANDOM_CONSTRUCTORS:
            yield call.lineno, f"`{name}` draws from the global generator"
    assigned = (target for node in ast.walk(tree) if isinstance(node, ast.Assign) for target in node.targets)
    for target in assigned:
        if isinstance(target, ast.Attribute) and target.attr in GLOBAL_ATTRIBUTES and _dotted(target.value) != "self":
            yield target.lineno, f"`{_dotted(target)} =` changes the whole process"


def _size_faults(source: str, tree: ast.AST) -> Iterator[Fault]:
    lines = len(source.splitlines())
    if lines > MODULE_LINES:
        yield 1, f"{lines} lines: a module has {MODULE_LINES} at most"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = code_lines(node)
            if lines > FUNCTION_LINES:
                yield node.lineno, f"`{node.name}` has {lines} lines: a function has {FUNCTION_LINES} at most"


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of the body of a function, less its docstring: parameters one a line are no logic."""
    body = function.body[ast.get_docstring(function, clean=False) is not None :]
    return (function.end_lineno or function.lineno) - body[0].lineno + 1 if body else 0


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _dotted(node: ast.AST) -> str:
    """Return `a.b.c` of an attribute chain; what is not a name in it becomes `?`."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def _is_true(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is True
