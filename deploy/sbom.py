#!/usr/bin/env python3
"""sbom.py PROGRAM VERSION IMAGE_FILE: prints the bill of materials of a program and its image, as CycloneDX 1.5 in JSON.

The crates are those that `cargo tree` says the program is linked with; Debian's packages are those that the image's own
/var/lib/dpkg/status.d names.
"""

import io
import json
import subprocess
import sys
import tarfile


def crates(program: str) -> list[dict]:
    form = "{p}\t{l}"
    args = ["cargo", "tree", "--locked", "-p", program, "-e", "normal,no-proc-macro", "--prefix", "none", "--no-dedupe", "-f", form]
    lines = subprocess.run(args, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    found = {}
    for line in lines:
        package, _, licence = line.partition("\t")
        name, version = package.split(" ")[:2]
        version = version.removeprefix("v")
        # Our own crates are the program.
        if "(" in package and "proc-macro" not in package:
            continue
        found[name, version] = {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:cargo/{name}@{version}",
            **({"licenses": [{"expression": licence.replace("/", " OR ")}]} if licence else {}),
        }
    return [found[key] for key in sorted(found)]


def packages(image_file: str) -> list[dict]:
    with tarfile.open(image_file) as image:
        layer = next(name for name in image.getnames() if name.endswith("/layer.tar"))
        content = image.extractfile(layer).read()
    found = []
    with tarfile.open(fileobj=io.BytesIO(content)) as files:
        for member in files.getmembers():
            if not member.name.startswith("var/lib/dpkg/status.d/") or not member.isreg():
                continue
            text = files.extractfile(member).read().decode()
            fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line and line[0].isalpha())
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/debian/{name}@{version}?arch={fields['Architecture']}"
            found.append({"type": "library", "name": name, "version": version, "purl": purl})
    return found


def main(program: str, version: str, image_file: str) -> None:
    name = f"docker-{program}"
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": name, "version": version}},
        "components": crates(program) + packages(image_file),
    }
    print(json.dumps(bill, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:4])
