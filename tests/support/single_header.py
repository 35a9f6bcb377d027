#!/usr/bin/env python3
"""Writes the library as one header: python3 single_header.py INCLUDE OUT

Each header stands once, after what it includes, and the bodies that it includes at its end (x.inl of x.hpp) once after it. One that is
included under conditions alone stands under any of them, so that a unit sees the same text, in the same order, as with the folder. Other
*.inl are parts, and stand wherever they are included.
"""
import os
import re
import sys

# What the file holds, and when: the units of nvcc get cuda/.
ROOTS = {
    "lowrank/lowrank.hpp": [],
    "lowrank/adapters.hpp": [],
    "lowrank/io.hpp": ["__has_include(<nlohmann/json.hpp>)"],
    "lowrank/cuda.hpp": ["defined(__CUDACC__)"],
}
PREAMBLE = """#pragma once

// lowrank {version}: low-rank adapted linear layers over dense and 4-bit weights, as one header.
// SPDX-License-Identifier: Apache-2.0
//
// Made from include/lowrank; change those files, not this one. It needs C++20 and Eigen 3.4 or 5; the readers and writers of files are here
// where nlohmann-json is found, the GPU's kernels where nvcc compiles. Of many units with LOWRANK_COMPILED, one defines LOWRANK_COMPILING
// too and holds the bodies for all.

#if defined(LOWRANK_VERSION_MAJOR)
#error "this unit has the library's folder of headers already; include that or the single header"
#endif
"""
INCLUDE = re.compile(r"\s*#\s*include\s*<([^>]+)>")
BRANCH = re.compile(r"\s*#\s*(if|ifdef|ifndef|elif|else|endif)\b(.*)")


# Where bodies stand: in every unit, or in one.
BODIES = {"!defined(LOWRANK_COMPILED)": "!defined(LOWRANK_COMPILED) || defined(LOWRANK_COMPILING)"}


def is_body(inner, path):
    return inner == path.removesuffix(".hpp") + ".inl"


def without_comment(text):
    return text.split("//")[0].strip()


def includes(text):
    """(line, path, conditions): each include and the tests that must hold for it, of which all but the last are those around it."""
    stack = []  # for each open #if: its earlier branches, and the one that stands
    for number, line in enumerate(text):
        branch, include = BRANCH.match(line), INCLUDE.match(line)
        if branch:
            kind, test = branch[1], without_comment(branch[2])
            if kind in ("if", "ifdef", "ifndef"):
                stack.append(([], {"if": test, "ifdef": f"defined({test})", "ifndef": f"!defined({test})"}[kind]))
            elif kind == "endif":
                stack.pop()
            else:
                earlier, now = stack.pop()
                stack.append((earlier + [now], test if kind == "elif" else None))
        elif include:
            tests = [f"!({e})" for earlier, _ in stack for e in earlier] + [now for _, now in stack if now]
            tests = [BODIES.get(test, test) for test in tests]
            yield number, include[1], [f"({test})" if "||" in test else test for test in tests]


class Library:
    def __init__(self, root):
        self.root, self.text, self.order, self.bodies = root, {}, [], set()
        self.presence = {}  # path: alternatives, each a set of tests that all hold
        for path, tests in ROOTS.items():
            self.add_presence(path, frozenset(tests))
            self.visit(path)

    def visit(self, path):
        """Depth first: a file comes after those that it includes, and before its bodies."""
        if path in self.text:
            return
        with open(os.path.join(self.root, path), encoding="utf-8") as file:
            self.text[path] = file.read().splitlines()
        inner = [inner for _, inner, _ in includes(self.text[path]) if inner.startswith("lowrank/")]
        for header in inner:
            if not is_body(header, path):
                self.visit(header)
        self.order.append(path)
        for body in inner:
            if is_body(body, path):
                self.bodies.add(body)
                self.visit(body)

    def add_presence(self, path, tests):
        """The file is there whenever all the tests hold; what that brings about is passed on to what it includes."""
        known = self.presence.setdefault(path, set())
        if any(other <= tests for other in known):
            return
        self.presence[path] = {other for other in known if not tests <= other} | {tests}
        with open(os.path.join(self.root, path), encoding="utf-8") as file:
            for _, inner, more in includes(file.read().splitlines()):
                if inner.startswith("lowrank/"):
                    self.add_presence(inner, tests | frozenset(more))

    def body(self, path, seen):
        """A file's lines without its guard and its includes of the library; of what is included in every case, the first time alone."""
        always = frozenset() in self.presence[path]
        includes_at = {number: (inner, tests) for number, inner, tests in includes(self.text[path])}
        for number, line in enumerate(self.text[path]):
            inner, tests = includes_at.get(number, (None, []))
            if inner is None:
                if line.strip() != "#pragma once":
                    yield line
            elif inner.endswith(".inl") and inner not in self.bodies:
                yield from self.body(inner, seen)
            elif not inner.startswith("lowrank/") and inner not in seen:
                yield line
                if always and not tests:
                    seen.add(inner)

    def condition(self, path):
        alternatives = sorted(" && ".join(sorted(tests)) for tests in self.presence[path])
        if alternatives == [""]:
            return None
        return " || ".join(f"({a})" if len(alternatives) > 1 and "&&" in a else a for a in alternatives)

    def check_conditions(self):
        """A test that a header itself changes would mean something else here than there."""
        tested = {name for sets in self.presence.values() for tests in sets for test in tests for name in re.findall(r"\b\w+\b", test)}
        for path, text in self.text.items():
            for line in text:
                change = re.match(r"\s*#\s*(?:define|undef)\s+(\w+)", line)
                if change and change[1] in tested:
                    sys.exit(f"{path} changes {change[1]}, on which an include depends")

    def single_header(self):
        self.check_conditions()
        config = "\n".join(self.text["lowrank/config.hpp"])
        version = ".".join(re.search(rf"LOWRANK_VERSION_{part} (\d+)", config)[1] for part in ("MAJOR", "MINOR", "PATCH"))
        lines, seen, open_condition = PREAMBLE.format(version=version).splitlines(), set(), None
        for path in self.order:
            body = tidy(self.body(path, seen))
            if (path.endswith(".inl") and path not in self.bodies) or not body:
                continue
            condition = self.condition(path)
            if condition != open_condition:
                lines += ["", "#endif"] if open_condition else []
                lines += ["", f"#if {condition}"] if condition else []
                open_condition = condition
            lines += ["", f"// ---- {path} " + "-" * max(4, 130 - len(path)), ""] + body
        lines += ["", "#endif"] if open_condition else []
        return "\n".join(lines) + "\n"


def tidy(lines):
    """Without branches that became empty, and without blank lines at the ends or in a row."""
    text = "\n".join(lines)
    empty = re.compile(r"^#\s*if[^\n]*\n\s*#\s*endif[^\n]*\n?", re.M)
    while empty.search(text):
        text = empty.sub("", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n").splitlines() if text.strip() else []


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    text = Library(sys.argv[1]).single_header()
    os.makedirs(os.path.dirname(os.path.abspath(sys.argv[2])), exist_ok=True)
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
