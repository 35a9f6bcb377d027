#!/usr/bin/env python3
"""Writes the pages of the reference, one a module, from Doxygen's XML: python3 reference.py ROOT XML PAGES

Each public header has a section: what its first comment says, then its concepts, classes, functions and constants. What lies in a namespace
`detail` is left out. Names without a comment are listed as warnings; with --strict they are an error.
"""
import html
import os
import re
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict

MODULES = {
    "core": "Errors, views, buffers, matrices, random numbers, threads",
    "quant": "Storage in few bits: formats, quantize, dequantize",
    "ops": "Pure pairs of forward and backward",
    "product": "Products with an update, forward and backward: plans and what runs them",
    "autograd": "Tape, variables, operations on them",
    "update": "Methods of adaptation, a file each; updates of a model's layers",
    "nn": "Layers",
    "optim": "Optimizers, schedules, clipping",
    "adapters": "Adapters, their algebra, merging",
    "io": "safetensors, GGUF, PEFT, bitsandbytes, mlx-lm",
    "kernels": "One packed product over composed sources, for every instruction set",
    "cuda": "The same operations on a GPU, compiled by nvcc",
}
INTERNAL = {"kernels", "cuda"}  # read by those who change them; a name there may speak for itself
KINDS = ["concept", "class", "struct", "enum", "typedef", "function", "variable"]


def module_of(path):
    """ops/norm.hpp is in ops, as ops.hpp would be; config.hpp and error.hpp are in core."""
    first = path.removeprefix("lowrank/").split("/")[0].removesuffix(".hpp")
    return first if first in MODULES else "core"


def text_of(element):
    return "" if element is None else "".join(element.itertext()).strip()


def escape(text):
    """Markdown shows it as it is. An underscore inside a word means nothing to it."""
    text = re.sub(r"([\\`*{}\[\]|]|(?<!\w)_|_(?!\w))", r"\\\1", text)
    return text.replace("<", "&lt;").replace(">", "&gt;")


def tidy_code(code):
    code = re.sub(r"\s+", " ", code).strip()
    code = re.sub(r"(?<!<)< (?=\S)", "<", code)
    code = re.sub(r"(?<=[\w>)&*]) >", ">", code)
    code = re.sub(r" ([&*]+)(?=[ ,)>]|\w|$)", r"\1 ", code)
    return re.sub(r"\s+([,)>])", r"\1", re.sub(r"(?<=[\w)])=(?=[\w{:\"-])", " = ", code)).replace("  ", " ").strip()


def wrapped(signature):
    """A long signature goes on in further lines, broken after a comma."""
    lines = []
    for line in signature.split("\n"):
        while len(line) > 110 and (at := line.rfind(", ", 30, 110)) > 0:
            lines.append(line[: at + 1])
            line = "    " + line[at + 2 :]
        lines.append(line)
    return "\n".join(lines)


class Entity:
    def __init__(self, element, kind, name, file, signature):
        self.element, self.kind, self.name, self.file, self.signature = element, kind, name, file, signature
        self.brief, self.detail = element.find("briefdescription"), element.find("detaileddescription")
        self.line = int(element.find("location").get("line"))
        self.members = []
        self.bases = [base.get("refid") for base in element.findall("basecompoundref") if base.get("prot") == "public"]
        self.inherited = []  # (class, its members that this one has too)
        self.is_specialization = False

    def documented(self):
        return bool(text_of(self.brief) or text_of(self.detail))

    @property
    def anchor(self):
        """The same for all overloads in a header."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.file.split('/')[-1].removesuffix('.hpp')} {self.name}".lower()).strip("-")


def template_of(element):
    parameters = element.find("templateparamlist")
    if parameters is None:
        return ""
    parts = []
    for parameter in parameters.findall("param"):
        part = text_of(parameter.find("type")) + (" " + text_of(parameter.find("declname")) if parameter.find("declname") is not None else "")
        default = parameter.find("defval")
        parts.append(part + (f" = {text_of(default)}" if default is not None else ""))
    return "template <" + tidy_code(", ".join(parts)) + ">\n"


def member_signature(member, kind, name):
    type_ = text_of(member.find("type"))
    if kind == "function":
        declared = "static " if member.get("static") == "yes" and member.get("prot") else "explicit " if member.get("explicit") == "yes" else ""
        return template_of(member) + tidy_code(f"{declared}{type_} {name}{text_of(member.find('argsstring'))}")
    if kind == "enum":
        values = ", ".join(text_of(value.find("name")) for value in member.findall("enumvalue"))
        return f"enum class {name} {{ {values} }};"
    if kind == "typedef":
        using = re.match(r"using", text_of(member.find("definition")))
        return template_of(member) + (f"using {name} = {tidy_code(type_)};" if using else tidy_code(text_of(member.find("definition"))))
    return template_of(member) + tidy_code(f"{type_} {name}{text_of(member.find('argsstring'))} {text_of(member.find('initializer'))[:80]}")


class Reference:
    def __init__(self, root, xml):
        self.root, self.headers, self.links, self.classes = root, defaultdict(list), {}, {}
        for entry in ET.parse(os.path.join(xml, "index.xml")).getroot().findall("compound"):
            if entry.get("kind") in ("class", "struct", "concept", "namespace"):
                self.read_compound(ET.parse(os.path.join(xml, entry.get("refid") + ".xml")).getroot().find("compounddef"))
        for entity in self.classes.values():
            entity.inherited = list(self.inherited_by(entity))
        for file, entities in self.headers.items():
            entities.sort(key=lambda e: e.line)
            for entity in entities:
                target = f"{module_of(file)}.md#{entity.anchor}"
                short = set() if module_of(file) in INTERNAL else {entity.name.split("::")[-1]}
                for name in {entity.name} | short if self.is_shown(entity) else ():
                    self.links.setdefault(name, target)

    def read_compound(self, compound):
        kind, name = compound.get("kind"), text_of(compound.find("compoundname")).removeprefix("lowrank::")
        name, arguments = re.match(r"([^<]*?)\s*(<.*)?$", name).groups()  # a specialization has arguments, and stands with its template
        if "detail" in name.split("::") or "@" in name or name.split("::")[0] == "std":
            return
        if kind == "namespace":
            prefix = "" if name == "lowrank" else name + "::"
            for member in compound.iter("memberdef"):
                self.read_member(member, prefix, self.headers)
            return
        if kind == "concept":
            initializer = text_of(compound.find("initializer")).replace("lowrank::", "")
            self.add(Entity(compound, kind, name, self.file_of(compound), initializer.rstrip()))
            return
        entity = Entity(compound, kind, name, self.file_of(compound), "")
        entity.is_specialization = arguments is not None
        entity.signature = template_of(compound) + f"{kind} {name.split('::')[-1]}{tidy_code(arguments or '')};"
        outer = compound.get("prot")
        if outer == "private":
            return
        for member in compound.iter("memberdef"):
            if member.get("prot") == "public" and member.get("kind") in ("function", "variable", "typedef", "enum"):
                member_kind, member_name = member.get("kind"), text_of(member.find("name"))
                entity.members.append(Entity(member, member_kind, member_name, entity.file, member_signature(member, member_kind, member_name)))
        entity.members.sort(key=lambda m: m.line)
        self.classes[compound.get("id")] = entity
        self.add(entity)

    def inherited_by(self, entity):
        """For each public class below, nearest first: its members that nothing above it hides. Constructors are inherited by a class without any."""
        def own(name):
            return name.split("::")[-1]

        hidden = {m.name for m in entity.members}
        constructs = own(entity.name) in hidden
        waiting = list(entity.bases)
        while waiting:
            base = self.classes.get(waiting.pop(0))
            if base is None:
                continue
            members = [m for m in base.members if m.name not in hidden and (m.name != own(base.name) or not constructs)]
            constructs = constructs or any(m.name == own(base.name) for m in members)
            hidden |= {m.name for m in members}
            yield base, members
            waiting += base.bases

    def read_member(self, member, prefix, headers):
        kind, name = member.get("kind"), text_of(member.find("name"))
        if kind in ("function", "variable", "typedef", "enum") and name and not name.startswith("@"):
            self.add(Entity(member, kind, prefix + name, self.file_of(member), member_signature(member, kind, name)))

    @staticmethod
    def is_shown(entity):
        return entity.documented() or module_of(entity.file) not in INTERNAL

    @staticmethod
    def file_of(element):
        return element.find("location").get("file").removeprefix("include/")

    def add(self, entity):
        if entity.file.startswith("lowrank/"):
            self.headers[entity.file].append(entity)

    # ---- Text ----------------------------------------------------------------------------------------------------------------------

    def inline(self, element):
        """A paragraph as Markdown; a name in backticks that the reference has becomes a link."""
        out = escape(element.text or "")
        for child in element:
            tag, inner = child.tag, "".join(child.itertext())
            if tag == "computeroutput":
                target = self.links.get(re.sub(r"\(.*\)$|<.*>$", "", inner.removeprefix("lowrank::")))
                code = "``" + inner + "``" if "`" in inner else "`" + inner + "`"
                out += f"[{code}]({target})" if target else code
            elif tag == "emphasis":
                out += f"*{self.inline(child)}*"
            elif tag == "bold":
                out += f"**{self.inline(child)}**"
            elif tag in ("programlisting", "verbatim", "preformatted"):
                lines = [re.sub(r"\u00a0", " ", "".join(t if t else " " for t in self.code_text(line))) for line in child.iter("codeline")] or inner.split("\n")
                out += "\n\n```text\n" + "\n".join(line.rstrip() for line in lines).strip("\n") + "\n```\n\n"
            elif tag in ("itemizedlist", "orderedlist"):
                mark = "- " if tag == "itemizedlist" else "1. "
                items = [" ".join(self.inline(p).strip() for p in item.iter("para")) for item in child.findall("listitem")]
                out += "\n\n" + "\n".join(mark + item for item in items) + "\n\n"
            elif tag == "table":
                rows = [[" ".join(self.inline(p).strip() for p in cell.findall("para")) for cell in row.findall("entry")] for row in child.findall("row")]
                out += "\n\n" + "\n".join("| " + " | ".join(row) + " |" + ("\n|" + "---|" * len(row) if i == 0 else "") for i, row in enumerate(rows)) + "\n\n"
            elif tag == "linebreak":
                out += "  \n"
            elif tag == "simplesect" or tag == "para":
                out += self.inline(child)
            else:  # characters that Doxygen names, such as <ndash/>
                out += {"ndash": "–", "mdash": "—", "nonbreakablespace": " ", "hellip": "…", "rarr": "→"}.get(tag, escape(inner))
            out += escape(child.tail or "")
        return out

    @staticmethod
    def code_text(line):
        for part in line.iter():
            yield " " if part.tag == "sp" else part.text or ""
            if part is not line:
                yield part.tail or ""

    def prose(self, entity):
        parts = [self.inline(p).strip() for d in (entity.brief, entity.detail) if d is not None for p in d.findall("para")]
        return "\n\n".join(part for part in parts if part)

    def first_comment(self, file):
        """The comment at the head of a header, before anything is declared or included; else the one before its namespace."""
        lines = open(os.path.join(self.root, "include", file), encoding="utf-8").read().split("\n")
        for number, line in enumerate(lines):
            if line.startswith("namespace ") or (line.startswith("///") and self.starts_entity(lines, number)):
                return ""
            if line.startswith("///"):
                end = next((n for n in range(number, len(lines)) if not lines[n].startswith("///")), len(lines))
                return "\n".join(re.sub(r"^/// ?", "", text) for text in lines[number:end])
        return ""

    @staticmethod
    def starts_entity(lines, number):
        """Whether a comment stands right on what it describes."""
        end = next((n for n in range(number, len(lines)) if not lines[n].startswith("///")), len(lines))
        return end < len(lines) and lines[end].strip() != ""

    def raw_markdown(self, text):
        """Prose as Markdown takes it: indented formulas and lists as they are, else without characters that mean something."""
        paragraphs = []
        for paragraph in re.split(r"\n\s*\n", text):
            lines = paragraph.split("\n")
            if all(line.startswith("  ") for line in lines):
                paragraphs.append("```text\n" + "\n".join(line[2:] for line in lines) + "\n```")
            else:
                head = [line for line in lines if not line.startswith("  ") or line.strip().startswith("- ")]
                code = [line for line in lines if line not in head]
                joined = "\n".join("".join(p if i % 2 else escape(p) for i, p in enumerate(re.split(r"(`[^`]*`)", l))) for l in head)
                paragraphs.append(joined + ("\n\n```text\n" + "\n".join(line[2:] for line in code) + "\n```" if code else ""))
        return "\n\n".join(paragraphs)

    # ---- Pages ---------------------------------------------------------------------------------------------------------------------

    def entity_section(self, group):
        first = group[0]
        out = [f"### {escape(first.name)} {{#{first.anchor}}}", ""]
        texts = []
        for entity in group:  # overloads: each with its own words, those alike once
            prose = self.prose(entity)
            if texts and (not prose or prose == texts[-1][1]):
                texts[-1][0].append(entity.signature)
            else:
                texts.append(([entity.signature], prose))
        for signatures, prose in texts:
            out += ["```cpp", *map(wrapped, signatures), "```", "", prose, ""]
        is_specialized = any(entity.is_specialization and entity.members for entity in group)
        for entity in group:
            rows = [m for m in entity.members if not re.match(r"~|operator=$", m.name)]
            if is_specialized and not entity.is_specialization:
                rows = [m for m in rows if m.documented()]  # of the template itself: what is there for misuse says nothing
            if rows:
                out += self.member_list(rows)
            for base, members in entity.inherited:
                rows = [m for m in members if not re.match(r"~|operator=$", m.name)]
                if rows and self.is_shown(base):
                    constructor = re.compile(rf"\b{base.name.split('::')[-1]}\(")
                    own = entity.name.split("::")[-1] + "("
                    out += [f"From [`{base.name}`]({self.links[base.name]}):", ""]
                    out += self.member_list(rows, lambda signature: constructor.sub(own, signature))
        return out

    def member_list(self, members, renamed=lambda signature: signature):
        out = ['<div class="members" markdown="1">', ""]
        for member in members:
            signature = renamed(re.sub(r"\s*\n\s*", " ", member.signature))
            fence = "``" if "`" in signature else "`"
            prose = re.sub(r"\s*\n\s*", " ", self.prose(member)) if "```" not in self.prose(member) else ""
            out += [f"- {fence}{signature}{fence}" + (f" — {prose}" if prose else "")]
        return out + ["", "</div>", ""]

    def page(self, module, files):
        out = [f"# {module}", "", MODULES[module] + ".", ""]
        for file in files:
            out += [f"## {escape(file)} {{#{self.header_anchor(file)}}}", "", self.raw_markdown(self.first_comment(file)), ""]
            groups = {}
            for entity in self.headers[file]:
                if self.is_shown(entity):
                    groups.setdefault(entity.name, []).append(entity)
            for group in groups.values():
                out += self.entity_section(group)
        return "\n".join(out) + "\n"

    @staticmethod
    def header_anchor(file):
        return re.sub(r"[^a-z0-9]+", "-", file.lower()).strip("-")

    def summary(self, file):
        """The first sentence of a header's own comment, else of what bears its name, else of its first class or name, else of any comment."""
        text = self.first_comment(file).split("\n\n")[0].replace("\n", " ")
        stem = file.split("/")[-1].removesuffix(".hpp").replace("_", "")
        told = [e for e in self.headers[file] if e.documented()]
        told.sort(key=lambda e: (e.name.split("::")[-1].lower().replace("_", "") != stem, e.kind not in ("class", "struct", "concept")))
        if not text and told:
            text = html.unescape(re.sub(r"\\(.)", r"\1", re.sub(r"\[(`[^`]*`)\]\([^)]*\)", r"\1", self.prose(told[0]))))
        if not text:
            with open(os.path.join(self.root, "include", file), encoding="utf-8") as lines:
                text = next((line[4:] for line in lines if line.startswith("/// ")), "")
        sentence = re.split(r"(?<=[.:;])\s", text.split("\n")[0])[0].rstrip(".:;\n")
        return self.raw_markdown(sentence)

    def index(self, by_module):
        out = ["# Reference", "", "Every public header, by module; lower modules first. `#include <lowrank/lowrank.hpp>` brings all but `adapters`, `io` and `cuda`.", ""]
        for module, files in by_module.items():
            out += [f"## [{module}]({module}.md)", "", MODULES[module] + ".", "", "| header | what |", "|---|---|"]
            out += [f"| [{escape(f)}]({module}.md#{self.header_anchor(f)}) | {self.summary(f)} |" for f in files] + [""]
        return "\n".join(out) + "\n"

    def write(self, pages):
        found = sorted(os.path.relpath(os.path.join(folder, name), os.path.join(self.root, "include"))
                       for folder, _, names in os.walk(os.path.join(self.root, "include", "lowrank")) for name in names if name.endswith(".hpp"))
        by_module = {module: [f for f in found if module_of(f) == module] for module in MODULES}
        os.makedirs(pages, exist_ok=True)
        for module, files in by_module.items():
            with open(os.path.join(pages, module + ".md"), "w", encoding="utf-8") as page:
                page.write(self.page(module, files))
        with open(os.path.join(pages, "index.md"), "w", encoding="utf-8") as page:
            page.write(self.index(by_module))

    def undocumented(self):
        """Names of the public modules that no comment describes; of overloads one is enough."""
        for file, entities in sorted(self.headers.items()):
            if module_of(file) in INTERNAL:
                continue
            told = {e.name for e in entities if e.documented()}
            for entity in entities:
                if entity.name not in told and not entity.name.split("::")[-1].startswith("operator"):
                    yield f"include/{file}:{entity.line}: {entity.kind} {entity.name} has no comment"


def main():
    arguments = [a for a in sys.argv[1:] if a != "--strict"]
    if len(arguments) != 3:
        sys.exit(__doc__)
    reference = Reference(*arguments[:2])
    reference.write(arguments[2])
    faults = list(reference.undocumented())
    print("\n".join(faults + [f"{len(reference.headers)} headers with declarations, {sum(map(len, reference.headers.values()))} names, {len(faults)} without a comment"]))
    sys.exit("--strict" in sys.argv and len(faults) > 0)


if __name__ == "__main__":
    main()
