"""Walk through an HDF5 or zarr store in a process of its own, which a damaged file may crash or hang without harm.

    python -P probe.py hdf5 DATA.h5ad        (started by `guard.py`; imports nothing of lucidcell)

The HDF5 library itself dies, or never returns, on about one in four hundred files with a few flipped bytes. Each
element's name is printed before the element is touched, so that whoever started the process knows where it ended.
Names, attributes, storage and links are all read; of the values, every string and every array up to 16 MiB, since
larger arrays of numbers go through the same code with the same description.

Output: one JSON value a line, a string for an element, {"fault": sentence} before leaving with status 1.
"""

from __future__ import annotations

import json
import sys
from typing import Any

READ_WHOLE = 16 * 2**20  # bytes
BOMB = 2**30  # bytes
BOMB_RATIO = 1100  # deflate cannot pack more than 1032 to 1
MAX_DEPTH = 64


class Fault(Exception):
    """Something in the file that must not be followed or cannot be right."""


def visit(element: str) -> None:
    print(json.dumps(element or "/"), flush=True)


def limit_resources(cpu_seconds: int, memory_bytes: int) -> None:
    """Let the system end this process when it runs away (POSIX only)."""
    try:
        import resource
    except ImportError:
        return
    for kind, limit in ((resource.RLIMIT_CPU, cpu_seconds), (resource.RLIMIT_AS, memory_bytes)):
        hard = resource.getrlimit(kind)[1]
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(kind, (limit, hard))


def walk_hdf5(group: Any, name: str, depth: int = 0) -> None:
    """Read names, attributes, links and (small) values below an HDF5 group."""
    import h5py

    visit(name)
    read_attributes(group)
    if depth > MAX_DEPTH:
        raise Fault(f"its groups are nested more than {MAX_DEPTH} deep")
    for key in group:
        below = f"{name}/{key}" if name else key
        visit(below)
        if isinstance(group.get(key, getlink=True), h5py.ExternalLink):
            raise Fault("it is a link to another file, which lucidcell does not follow")
        child = group[key]
        if isinstance(child, h5py.Group):
            walk_hdf5(child, below, depth + 1)
        elif isinstance(child, h5py.Dataset):
            read_attributes(child)
            probe_dataset(child)
    check_table(group, name)


def read_attributes(obj: Any) -> None:
    for key in obj.attrs:
        obj.attrs[key]


def check_table(group: Any, name: str) -> None:
    """A column that is a group without a declared encoding would be read as missing values, silently."""
    import h5py

    if group.attrs.get("encoding-type") != "dataframe" or group.attrs.get("encoding-version") != "0.2.0":
        return
    for key in group:
        if isinstance(group[key], h5py.Group) and "encoding-type" not in group[key].attrs:
            visit(f"{name}/{key}")
            raise Fault("it does not say how it is encoded (attribute 'encoding-type' is missing)")


def probe_dataset(data: Any) -> None:
    import h5py

    if data.external or (data.is_virtual and any(source.file_name != "." for source in data.virtual_sources())):
        raise Fault("its values lie in another file, which lucidcell does not follow")
    if data.shape is None or data.size == 0:
        return
    stored = data.id.get_storage_size()
    if data.nbytes > BOMB and data.nbytes > BOMB_RATIO * max(stored, 1):
        raise Fault(f"it claims {data.nbytes:,} bytes while the file stores {stored:,} for it")
    plan = data.id.get_create_plist()
    if not all(h5py.h5z.filter_avail(plan.get_filter(i)[0]) for i in range(plan.get_nfilters())):
        return  # compressed by a plug-in that the starting process may have loaded
    is_text = h5py.check_vlen_dtype(data.dtype) is not None or h5py.check_string_dtype(data.dtype) is not None
    if is_text or data.nbytes <= READ_WHOLE:
        data[()]
        return
    if data.chunks is not None:
        n_chunks = data.id.get_num_chunks()
        if n_chunks:
            data.id.get_chunk_info(n_chunks - 1)  # walks the whole chunk index
    data[(0,) * data.ndim]
    data[tuple(n - 1 for n in data.shape)]


def walk_zarr(group: Any, name: str, depth: int = 0) -> None:
    """Read names, attributes and (small) values below a zarr group."""
    import zarr

    visit(name)
    dict(group.attrs)
    if depth > MAX_DEPTH:
        raise Fault(f"its groups are nested more than {MAX_DEPTH} deep")
    for key in sorted(group.keys()):
        below = f"{name}/{key}" if name else key
        visit(below)
        child = group[key]
        if isinstance(child, zarr.Group):
            walk_zarr(child, below, depth + 1)
            continue
        dict(child.attrs)
        stored = child.nchunks_initialized
        if child.nbytes > BOMB and not stored:
            raise Fault(f"it claims {child.nbytes:,} bytes while nothing is stored for it")
        if key in ("data", "indptr") and "indices" in group and stored < child.nchunks and child.size:
            raise Fault(f"{child.nchunks - stored} of its {child.nchunks} chunks are missing")
        if child.dtype.kind in "OTSU" or child.nbytes <= READ_WHOLE:
            child[...]


def main(kind: str, path: str, cpu_seconds: str, memory_bytes: str) -> int:
    try:
        if kind == "hdf5":
            import h5py
        else:
            import zarr
    except ImportError:
        return 3
    limit_resources(int(cpu_seconds), int(memory_bytes))
    visit("")
    try:
        if kind == "hdf5":
            with h5py.File(path, "r") as file:
                walk_hdf5(file, "")
        else:
            walk_zarr(zarr.open_group(path, mode="r"), "")
    except Exception as error:  # noqa: BLE001 - every fault is reported, whatever its kind
        sentence = str(error) if isinstance(error, Fault) else f"{type(error).__name__}: {error}"
        print(json.dumps({"fault": sentence}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
