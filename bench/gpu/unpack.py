"""Unpacks what pack.sh packed: Node to FOLDER/bin/node, the rest into the repository. There may be no xz to call.

    python3 bench/gpu/unpack.py PACKED REPOSITORY FOLDER
"""

import lzma
import pathlib
import shutil
import sys
import tarfile

packed, repository, folder = map(pathlib.Path, sys.argv[1:])
node = folder / "bin" / "node"
node.parent.mkdir(parents=True, exist_ok=True)
with lzma.open(packed / "node.xz") as source, open(node, "wb") as target:
    shutil.copyfileobj(source, target, 1 << 20)
node.chmod(0o755)
for name in ("node_modules.tar.xz", "js.tar.xz", "prebuild.tar.xz"):
    if name == "prebuild.tar.xz" and not (packed / name).exists():
        continue  # the addon is built on the machine
    with tarfile.open(packed / name, "r:xz") as archive:
        archive.extractall(repository, filter="tar")
# Older than sources that were copied meanwhile, the program would be taken for stale, and there is no npm here to build it.
for built in (repository / "build" / "js").rglob("*"):
    built.touch()
