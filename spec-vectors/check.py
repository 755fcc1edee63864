"""Checks each file of vectors against schema.json: python3 spec-vectors/check.py

Needs Python 3.11, and jsonschema from PyPI.
"""

import json
import sys
import tomllib
from pathlib import Path

from jsonschema import Draft202012Validator

folder = Path(__file__).parent
validator = Draft202012Validator(json.loads((folder / "schema.json").read_text(encoding="utf-8")))
count = wrong = 0
for path in sorted(folder.glob("v*/*.toml")):
    file = tomllib.loads(path.read_text(encoding="utf-8"))
    count += len(file["vector"])
    for error in validator.iter_errors(file):
        wrong += 1
        print(f"{path}: {error.json_path}: {error.message[:200]}")
print(f"{count} vectors, {wrong} violations of the schema")
sys.exit(wrong > 0 or count == 0)
