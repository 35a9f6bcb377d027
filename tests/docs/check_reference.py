#!/usr/bin/env python3
"""The reference shows what a class has: python3 check_reference.py ROOT

Runs Doxygen and docs/site/reference.py. Every public function of a specialization stands in its class's section, constructors that are explicit say
so, and a class shows what it inherits.
"""
import glob
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET


def sections(pages):
    """The text below each ### heading of the pages, by the class's name."""
    found = {}
    for page in glob.glob(os.path.join(pages, "*.md")):
        with open(page, encoding="utf-8") as file:
            for part in re.split(r"^### ", file.read(), flags=re.M)[1:]:
                found.setdefault(part.split(" {#")[0], part.split("\n## ")[0])
    return found


def specializations(xml):
    """(name, names of public functions) of each specialization outside of namespaces detail."""
    for path in glob.glob(os.path.join(xml, "*_3*.xml")):
        compound = ET.parse(path).getroot().find("compounddef")
        name = compound.find("compoundname").text.removeprefix("lowrank::").split("<")[0].strip()
        if compound.get("kind") in ("class", "struct") and "detail" not in name.split("::") and not name.startswith("std"):
            functions = {m.find("name").text for m in compound.iter("memberdef") if m.get("kind") == "function" and m.get("prot") == "public"}
            yield name, functions


def main():
    root = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(root, "docs/site/Doxyfile"), encoding="utf-8") as file:
            settings = file.read() + f"\nOUTPUT_DIRECTORY = {folder}\n"
        subprocess.run(["doxygen", "-"], input=settings, text=True, cwd=root, check=True)
        xml, pages = os.path.join(folder, "xml"), os.path.join(folder, "pages")
        subprocess.run([sys.executable, "docs/site/reference.py", "--strict", ".", xml, pages], cwd=root, check=True)
        shown, special = sections(pages), list(specializations(xml))

    faults = [f"{name} is missing" for name, _ in special if name not in shown]
    faults += [f"{name} does not show {function}" for name, functions in special for function in sorted(functions)
               if name in shown and function not in shown[name]]
    for name, line in [("LoraLinear", "- `explicit LoraLinear(Base base, const LoraOptions& options = {})`"),
                       ("LoraLinear", "From [`Adapted`]("), ("LoraLinear", "void set_scale(Scalar scale)"),
                       ("QuantizedLinear", "- `explicit QuantizedLinear(Matrix weight, Column<S> bias = {})`"),
                       ("QuantizedLinear", "From [`SourceLinear`]("), ("AdamW", "explicit AdamW(")]:
        if line not in shown[name]:
            faults.append(f"{name} does not show: {line}")
    for name in ("LoraLinear", "DoraLinear"):  # a name that a class brings itself does not stand a second time
        if shown[name].count("operator()(const Var<Scalar>& x)&`") != 1:
            faults.append(f"{name} shows a call operator that it hides")
    print("\n".join(faults + [f"{len(special)} specializations, {len(faults)} faults"]))
    sys.exit(1 if faults or not special else 0)


if __name__ == "__main__":
    main()
