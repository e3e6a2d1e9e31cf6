"""Writes what goes into the image as a CycloneDX list: cargo metadata --format-version 1 --locked | python3 sbom.py OUT.

Our own programs, and every crate that is linked into one of them. Tests and build scripts are left out: they do not ship.
The same sources give the same list, byte for byte.
"""

import json
import sys

PROGRAMS = ("balsa-node", "balsa-client", "balsa-deploy")


def linked(direct, roots):
    """The ids that roots reach."""
    seen, left = set(), list(roots)
    while left:
        at = left.pop()
        if at not in seen:
            seen.add(at)
            left.extend(direct[at])
    return seen


def ships(package):
    """Whether it is linked: a macro runs in the compiler only."""
    return not any("proc-macro" in target["kind"] for target in package["targets"])


def dependencies(node, packages):
    normal = [dep["pkg"] for dep in node["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
    return [id for id in normal if ships(packages[id])]


def name_of(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package):
    found = {
        "type": "application" if package["name"] in PROGRAMS else "library",
        "bom-ref": name_of(package),
        "name": package["name"],
        "version": package["version"],
        "purl": name_of(package),
    }
    if package["license"]:
        found["licenses"] = [{"expression": " ".join(package["license"].replace("/", " OR ").split())}]
    return found


def main(out):
    metadata = json.load(sys.stdin)
    packages = {package["id"]: package for package in metadata["packages"]}
    direct = {node["id"]: dependencies(node, packages) for node in metadata["resolve"]["nodes"]}
    roots = [id for id in metadata["workspace_members"] if packages[id]["name"] in PROGRAMS]
    inside = sorted(linked(direct, roots), key=lambda id: name_of(packages[id]))
    version = packages[roots[0]]["version"]
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": "balsa", "version": version}},
        "components": [component(packages[id]) for id in inside],
        "dependencies": [
            {"ref": name_of(packages[id]), "dependsOn": sorted({name_of(packages[dep]) for dep in direct[id]})}
            for id in inside
        ],
    }
    with open(out, "w") as file:
        json.dump(bom, file, indent=1)
        file.write("\n")
    print(f"{out}: {len(inside)} crates")


if __name__ == "__main__":
    main(*sys.argv[1:])
