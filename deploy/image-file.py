#!/usr/bin/env python3
"""image-file.py IMAGE FILE EPOCH: writes an image as a file for `docker load`, in one layer, with times of EPOCH (seconds since 1970).

`docker save` writes the times of the build, and as many layers as there were steps; the same content gives the same bytes here.
"""

import hashlib
import io
import json
import subprocess
import sys
import tarfile

# What Docker puts into every container, and mounts over.
NOT_OURS = {".dockerenv", "etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab", "dev", "proc", "sys"}


def docker(*args: str) -> bytes:
    return subprocess.run(["docker", *args], check=True, stdout=subprocess.PIPE).stdout


def layer_of(image: str, epoch: int) -> bytes:
    """The image's files as a tar archive, sorted, with that time."""
    container = docker("create", image).decode().strip()
    try:
        exported = tarfile.open(fileobj=io.BytesIO(docker("export", container)))
    finally:
        docker("rm", container)
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w", format=tarfile.GNU_FORMAT) as out:
        for member in sorted(exported.getmembers(), key=lambda member: member.name):
            if member.name in NOT_OURS or member.name.split("/")[0] in ("dev", "proc", "sys"):
                continue
            member.mtime, member.uname, member.gname = epoch, "", ""
            out.addfile(member, exported.extractfile(member) if member.isreg() else None)
    return layer.getvalue()


def main(image: str, file: str, epoch: int) -> None:
    inspected = json.loads(docker("image", "inspect", image))[0]
    layer = layer_of(image, epoch)
    digest = hashlib.sha256(layer).hexdigest()
    keep = ("Env", "Entrypoint", "Cmd", "Labels", "ExposedPorts", "Healthcheck", "User", "WorkingDir", "Volumes")
    config = {
        "architecture": inspected["Architecture"],
        "os": inspected["Os"],
        "created": inspected["Config"]["Labels"].get("org.opencontainers.image.created"),
        "config": {key: inspected["Config"][key] for key in keep if inspected["Config"].get(key)},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    config_text = json.dumps(config, sort_keys=True).encode()
    config_name = hashlib.sha256(config_text).hexdigest() + ".json"
    name = image.split(":")[0]
    manifest = [{"Config": config_name, "RepoTags": [image, f"{name}:latest"], "Layers": [f"{digest}/layer.tar"]}]
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT) as out:
        for path, content in (
            (config_name, config_text),
            (f"{digest}/layer.tar", layer),
            ("manifest.json", json.dumps(manifest, sort_keys=True).encode()),
        ):
            info = tarfile.TarInfo(path)
            info.size, info.mtime = len(content), epoch
            out.addfile(info, io.BytesIO(content))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
