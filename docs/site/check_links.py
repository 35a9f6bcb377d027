#!/usr/bin/env python3
"""Checks a built site: python3 check_links.py SITE

Every href and src leads to a file of the site, and to an anchor that it has; every picture, style and script is the site's own. Links to
other sites must be well-formed; they are not fetched.
"""
import os
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.parts = set(), [], []
        with open(path, encoding="utf-8") as file:
            self.feed(file.read())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[key] for key in ("id", "name") if attrs.get(key)}
        if tag == "a" and attrs.get("href") is not None:
            self.links.append(attrs["href"])
        elif tag == "link" and attrs.get("href") and attrs.get("rel") != "canonical":
            self.parts.append(attrs["href"])
        elif attrs.get("src"):
            self.parts.append(attrs["src"])


def main(site):
    pages = {os.path.join(folder, name): Page(os.path.join(folder, name))
             for folder, _, names in os.walk(site) for name in names if name.endswith(".html")}
    faults, links = [], 0
    for path, page in pages.items():
        for link, is_part in [(l, False) for l in page.links] + [(p, True) for p in page.parts]:
            links += 1
            url = urlsplit(link)
            if url.scheme or url.netloc:
                if is_part and url.scheme != "data":
                    faults.append(f"{path}: fetched from another site: {link}")
                elif url.scheme in ("http", "https") and not url.netloc or url.scheme not in ("http", "https", "mailto", "data"):
                    faults.append(f"{path}: no address: {link}")
                continue
            target = os.path.normpath(os.path.join(os.path.dirname(path), unquote(url.path))) if url.path else path
            if url.path.startswith("/") or not os.path.exists(target):
                if not (os.path.basename(path) == "404.html" and url.path.startswith("/")):
                    faults.append(f"{path}: leads nowhere: {link}")
                continue
            if os.path.isdir(target):
                target = os.path.join(target, "index.html")
            if "=" in url.fragment:  # the state of a page's own program, as in playground/#rank=4
                continue
            if url.fragment and target in pages and unquote(url.fragment) not in pages[target].anchors:
                faults.append(f"{path}: no such anchor: {link}")
    print("\n".join(faults + [f"{len(pages)} pages, {links} links, {len(faults)} faults"]))
    return bool(faults) or not pages


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(os.path.abspath(sys.argv[1])))
