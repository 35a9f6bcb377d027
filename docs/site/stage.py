#!/usr/bin/env python3
"""Lays out what MkDocs builds: python3 stage.py ROOT PAGES

README.md becomes the front page, docs/*.md their pages. A link to another file of the repository leads to a page that shows the file, one to a
folder to a list of its files.
"""
import os
import re
import shutil
import sys

LANGUAGES = {".cpp": "cpp", ".hpp": "cpp", ".cu": "cpp", ".py": "python", ".sh": "sh", ".txt": "cmake"}


class Stage:
    def __init__(self, root, pages):
        self.root, self.pages, self.waiting = root, pages, []

    def page_of(self, path):
        """The page of a file of the repository, as a path in PAGES."""
        if path == "README.md":
            return "index.md"
        if path.startswith("docs/playground/"):
            return "playground.md"  # which docs/build.sh writes
        if path.startswith("docs/"):
            return path.removeprefix("docs/")
        page = "files/" + path.replace("/", "-") + ("" if path.endswith(".md") or self.text_of(path) is None else ".md")
        if path not in self.waiting:
            self.waiting.append(path)
        return page

    def text_of(self, path):
        """None for a file that is no text; of a folder its list."""
        if os.path.isdir(folder := os.path.join(self.root, path)):
            names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
            return f"# {path}\n\n" + "".join(f"- [{name}]({os.path.basename(path)}/{name})\n" for name in names)
        with open(os.path.join(self.root, path), "rb") as file:
            try:
                return file.read().decode("utf-8")
            except UnicodeDecodeError:
                return None

    def rewrite_links(self, text, path):
        """Links of the file at path, relative to its own page; what stands between fences is left alone."""
        here = os.path.dirname(self.page_of(path))

        def target(match):
            link, anchor = match[1], match[2] or ""
            if re.match(r"[a-z]+:", link):
                return match[0]
            file = os.path.normpath(os.path.join(os.path.dirname(path), link))
            if not os.path.exists(os.path.join(self.root, file)):
                sys.exit(f"{path}: a link leads nowhere: {link}")
            return f"]({os.path.relpath(self.page_of(file), here or '.')}{anchor})"

        parts = re.split(r"(^```.*?^```$)", text, flags=re.M | re.S)
        return "".join(part if i % 2 else re.sub(r"\]\(([^)#\s]+)(#[^)]*)?\)", target, part) for i, part in enumerate(parts))

    def add(self, path):
        out, text = os.path.join(self.pages, self.page_of(path)), self.text_of(path)
        os.makedirs(os.path.dirname(out), exist_ok=True)
        if text is None:
            shutil.copy(os.path.join(self.root, path), out)
            return
        if path.endswith(".md") or os.path.isdir(os.path.join(self.root, path)):
            text = self.rewrite_links(text, path)
        else:
            text = f"# {path}\n\n~~~{LANGUAGES.get(os.path.splitext(path)[1], 'text')}\n{text.rstrip()}\n~~~\n"
        with open(out, "w", encoding="utf-8") as file:
            file.write(text)

    def run(self):
        done = set()
        self.waiting = ["README.md"] + sorted("docs/" + name for name in os.listdir(os.path.join(self.root, "docs")) if name.endswith(".md"))
        while self.waiting:
            path = self.waiting.pop(0)
            if path not in done:
                done.add(path)
                self.add(path)
        shutil.copytree(os.path.join(self.root, "docs/images"), os.path.join(self.pages, "images"))
        return len(done)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(Stage(*sys.argv[1:]).run(), "pages of the repository's files")
