"""Keeps the table of values in the chart's README: python3 charts/readme.py [--check].

The table is made from the comments in values.yaml: `# -- meaning` above a key. With --check it writes nothing, and fails
where the README says something else.
"""

import pathlib
import re
import sys

CHART = pathlib.Path(__file__).parent / "balsa"
BEGIN, END = "<!-- values: made by charts/readme.py -->\n", "<!-- end of values -->\n"


def values(text):
    """(path, default, meaning) of each key with a meaning, in the file's order."""
    path, meaning, found = [], [], []
    lines = text.splitlines()
    for at, line in enumerate(lines):
        stripped = line.strip()
        if stripped.startswith("# -- "):
            meaning = [stripped[5:]]
        elif stripped.startswith("# ") and meaning:
            meaning.append(stripped[2:])
        elif key := re.match(r"( *)([A-Za-z_]+):\s*(.*)$", line):
            depth = len(key[1]) // 2
            path = path[:depth] + [key[2]]
            if meaning:
                found.append((".".join(path), key[3] or block(lines[at + 1 :], depth), " ".join(meaning)))
            meaning = []
    return found


def block(lines, depth):
    """What is written below a key, on one line."""
    inside = []
    for line in lines:
        if line.strip().startswith("#"):
            continue
        if len(line) - len(line.lstrip()) <= 2 * depth:
            break
        inside.append(line.strip())
    return " ".join(inside) or '""'


def table(found):
    rows = ["| value | default | meaning |", "| --- | --- | --- |"]
    rows += [f"| `{path}` | `{default}` | {meaning} |" for path, default, meaning in found]
    return "\n".join(rows) + "\n"


def main():
    readme = CHART / "README.md"
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    right = before + BEGIN + table(values((CHART / "values.yaml").read_text())) + END + after
    if "--check" in sys.argv:
        sys.exit(0 if text == right else "charts/balsa/README.md: its table is not what values.yaml says; run charts/readme.py")
    readme.write_text(right)


main()
