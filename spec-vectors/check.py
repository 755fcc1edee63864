"""Checks each file of vectors against its schema, and their numbers in the README.

Run python3 spec-vectors/check.py.
Needs Python 3.11, and jsonschema from PyPI.
"""

import json
import sys
import tomllib
from pathlib import Path

from jsonschema import Draft202012Validator

folder = Path(__file__).parent


def schema(name):
    return Draft202012Validator(json.loads((folder / name).read_text(encoding="utf-8")))


validator = schema("schema.json")
count = wrong = 0
kinds = {}
for path in sorted(folder.glob("v*/*.toml")):
    file = tomllib.loads(path.read_text(encoding="utf-8"))
    count += len(file["vector"])
    kind = kinds.setdefault(path.parent.name, [0, 0])
    kind[0] += sum("packet" in vector for vector in file["vector"])
    kind[1] += sum("error" in vector for vector in file["vector"])
    for error in validator.iter_errors(file):
        wrong += 1
        print(f"{path}: {error.json_path}: {error.message[:200]}")
validator = schema("schema-sn.json")
for path in sorted(folder.glob("sn-v*/*.toml")):
    file = tomllib.loads(path.read_text(encoding="utf-8"))
    count += len(file["vector"])
    for error in validator.iter_errors(file):
        wrong += 1
        print(f"{path}: {error.json_path}: {error.message[:200]}")
# The README has the numbers of valid and invalid vectors of each version, oldest first.
oldest_first = sorted(kinds.items(), key=lambda item: [int(x) for x in item[0][1:].split(".")])
row = " | ".join(f"{valid:,} + {invalid:,}" for _, (valid, invalid) in oldest_first)
if row not in (folder.parent / "README.md").read_text(encoding="utf-8"):
    wrong += 1
    print(f"README.md must say: {row}")
print(f"{count} vectors, {wrong} faults")
sys.exit(wrong > 0 or count == 0)
