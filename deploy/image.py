"""Writes an image FROM scratch as a docker-archive tar: python3 image.py BINARIES TAG VERSION OUT [NAME=VALUE...].

One layer with the programs; no shell, no users, no libraries. Nothing in it depends on when or where it was made. Keep
what it says in step with the last stage of the Dockerfile.
"""

import hashlib
import io
import json
import os
import platform
import sys
import tarfile

USER = "65532:65532"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def add(tar, name, data, mode):
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


def layer(folder):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(os.listdir(folder)):
            with open(os.path.join(folder, name), "rb") as program:
                add(tar, name, program.read(), 0o755)
    return out.getvalue()


def main(folder, tag, version, out, *env):
    data = layer(folder)
    digest = hashlib.sha256(data).hexdigest()
    config = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {
            "User": USER,
            "WorkingDir": "/",
            "Env": ["PATH=/", *env],
            "Entrypoint": ["/balsa-node"],
            "Cmd": ["--help"],
            "ExposedPorts": {"3000/tcp": {}, "3300/tcp": {}},
            "Labels": {
                "org.opencontainers.image.title": "balsa",
                "org.opencontainers.image.description": "A strongly consistent, replicated key-value store",
                "org.opencontainers.image.licenses": "MIT",
                "org.opencontainers.image.version": version,
            },
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest]},
    }
    config = json.dumps(config, sort_keys=True).encode()
    names = {"config": hashlib.sha256(config).hexdigest() + ".json", "layer": digest + ".tar"}
    manifest = [{"Config": names["config"], "RepoTags": [tag], "Layers": [names["layer"]]}]
    with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as tar:
        add(tar, "manifest.json", json.dumps(manifest).encode(), 0o644)
        add(tar, names["config"], config, 0o644)
        add(tar, names["layer"], data, 0o644)
    print(f"{out}: {tag}, {len(data) / 1e6:.1f} MB of programs")


if __name__ == "__main__":
    main(*sys.argv[1:])
