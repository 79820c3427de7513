"""Check the archives of a release: python .ci/archives.py FOLDER."""

import pathlib
import sys
import tarfile
import zipfile

LIMIT = 1_000_000  # bytes of the wheel

folder = pathlib.Path(sys.argv[1])
[wheel], [source] = folder.glob("*.whl"), folder.glob("*.tar.gz")
names = zipfile.ZipFile(wheel).namelist()
foreign = [name for name in names if not name.startswith(("convlab/", "convlab_jax-")) or "test_" in name]
assert not foreign, f"{wheel.name} holds {foreign}"
assert {"convlab/py.typed", "convlab/report/explore.html"} <= {*names}, f"{wheel.name} lacks files"
assert wheel.stat().st_size < LIMIT, f"{wheel.name} has {wheel.stat().st_size:,} bytes"
with tarfile.open(source) as archive:
    inside = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
assert {"README.md", "LICENSE", "pyproject.toml", "convlab/__init__.py"} <= inside, f"{source.name} lacks files"
print(f"{wheel.name}: {wheel.stat().st_size:,} bytes, {len(names)} files; {source.name}: {source.stat().st_size:,} bytes")
