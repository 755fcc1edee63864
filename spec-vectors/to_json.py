"""Writes all vectors to vectors.json, with plain hex digits, for programs that do not read TOML.

Run python3 spec-vectors/to_json.py after a change of a vector; with --check it fails if the file is
not current. Needs Python 3.11.
"""

import json
import re
import sys
import tomllib
from pathlib import Path

LONGEST = 1024  # Bytes that are written out. Longer ones are runs.

folder = Path(__file__).parent


def runs(text):
    """The bytes of the notation of README.md, as pairs of hex digits and a count."""
    joined = []
    plain = " ".join(line.split("#")[0] for line in text.splitlines())
    for digits, times in re.findall(r"([0-9A-Fa-f]{2})(?:\*(\d+))?", plain):
        if joined and not times and joined[-1][1] == 1:
            joined[-1][0] += digits.lower()
        else:
            joined.append([digits.lower(), int(times or 1)])
    return joined


def bytes_of(text):
    parts = runs(text)
    size = sum(len(digits) // 2 * times for digits, times in parts)
    return "".join(digits * times for digits, times in parts) if size <= LONGEST else parts


def value(item):
    if isinstance(item, dict):
        return {key: bytes_of(of) if key == "hex" else value(of) for key, of in item.items()}
    return [value(of) for of in item] if isinstance(item, list) else item


vectors = []
for version in ["v3.1", "v3.1.1", "v5.0", "sn-v1.2"]:
    for path in sorted((folder / version).glob("*.toml")):
        for vector in tomllib.loads(path.read_text(encoding="utf-8"))["vector"]:
            vector["bytes"] = bytes_of(vector["bytes"])
            name = version.replace("v", "")
            vectors.append({"version": name, "file": path.stem, **value(vector)})
lines = ",\n".join(json.dumps(vector, ensure_ascii=False) for vector in vectors)
text = f'{{"vectors": [\n{lines}\n]}}\n'
target = folder / "vectors.json"
if "--check" not in sys.argv:
    target.write_text(text, encoding="utf-8")
elif not target.exists() or target.read_text(encoding="utf-8") != text:
    sys.exit("vectors.json is not current: run python3 spec-vectors/to_json.py")
print(f"{len(vectors)} vectors in vectors.json")
