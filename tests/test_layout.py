"""The source's layout: who includes whom, headers, and names.

The rules are checked by functions that take a tree and return its violations,
each as a line of text.
"""

import os
import re
import subprocess
import unittest
from collections import defaultdict
from pathlib import Path

from support import HERE, Case

SOURCES = HERE.parent

# Lowest first. A file may include its own folder's headers, and those of lower
# levels. A name ends in "/" if it is a folder's, else it is a module of the top level.
LEVELS = [
    ["csapp", "sha256"],
    ["base/"],
    ["net/", "file/"],
    ["fetch/", "serve/", "track/"],
    ["peer_serve"],
    ["cascade", "tracker", "mkcascade"],
]

BAD_NAMES = {"a", "all", "any", "count", "each", "enough", "few", "i", "many", "most", "n", "some"}

INCLUDE = re.compile(r'^#include "(.+)"', re.M)
ANY_INCLUDE = re.compile(r'^#include (["<].+[">])', re.M)

# A function's definition: from the first column to its brace in the first column.
FUNCTION = re.compile(r"^(?P<head>(?:[A-Za-z_]\w*[ \t*]+)+)(?P<name>\w+)"
                      r"\((?:[^;{}()\n]|\n[ \t]|\([^()]*\))*\)\n\{", re.M)

# A variable outside of functions, or a static one within: up to its ; or =.
VARIABLE = re.compile(r"^(?:(?P<outer>(?:static |extern |volatile |const |_Atomic |unsigned |struct |enum )*"
                      r"(?!typedef|return|goto|else)[A-Za-z_]\w*[ *]+)|\t+static (?P<inner>[^;(=]*?[ *]))"
                      r"(?P<names>\w+[^;(){}]*)(?:;|= \{)", re.M)


def sources_of(tree):
    """Return the files of the programs: {name: text}. Tests, benchmarks and the simulation include what they like."""
    names = [path.relative_to(tree) for path in tree.rglob("*") if path.suffix in (".c", ".h")]
    return {str(name): (tree / name).read_text() for name in sorted(names)
            if name.parts[0] not in ("tests", "bench", "sim", "build")}


def folder_of(name):
    return name.rpartition("/")[0]


def module_of(name):
    """Return what a source and its header have in common: the name without its suffix."""
    return name.rpartition(".")[0]


def level_of(name):
    """Return the level of a file, or None."""
    place = folder_of(name) + "/" if "/" in name else module_of(name)
    return next((level for level, places in enumerate(LEVELS) if place in places), None)


def code_of(text):
    """Return the text without comments, strings and preprocessor lines, line for line."""
    text = re.sub(r"/\*.*?\*/", lambda comment: "\n" * comment.group().count("\n"), text, flags=re.S)
    text = re.sub(r'"(?:[^"\\\n]|\\.)*"', '""', text)
    return re.sub(r"^#(?:.*\\\n)*.*$", lambda line: "\n" * line.group().count("\n"), text, flags=re.M)


# --- The rules ---

def includes_upward(files):
    for name, text in files.items():
        if level_of(name) is None:
            yield f"{name}: belongs to no level"
            continue
        for other in INCLUDE.findall(text):
            if other not in files:
                yield f"{name}: includes {other}, which is not named from the top"
            elif level_of(other) is None:
                pass    # has been said
            elif level_of(other) > level_of(name) or (
                    level_of(other) == level_of(name) and module_of(other) != module_of(name)
                    and (folder_of(other) != folder_of(name) or folder_of(name) == "")):
                yield f"{name}: includes {other}, upward"


def circles(files):
    """Modules that include each other, maybe by way of others."""
    below = defaultdict(set)
    for name, text in files.items():
        below[module_of(name)] |= {module_of(other) for other in INCLUDE.findall(text)
                                   if module_of(other) != module_of(name)}

    def reached(start):
        seen, left = set(), [start]
        while left:
            new = below[left.pop()] - seen
            seen |= new
            left += new
        return seen
    reach = {module: reached(module) for module in list(below)}
    for one in sorted(reach):
        for other in sorted(reach[one]):
            if one < other and one in reach.get(other, ()):
                yield f"{one}, {other}: include each other"


def headers_not_alone(tree, files):
    compiler = os.environ.get("CC", "cc").split()

    def compile_alone(*names):
        return subprocess.run([*compiler, "-std=c11", "-D_DEFAULT_SOURCE", "-I.", "-fsyntax-only",
                               "-Werror=implicit-function-declaration", "-x", "c", *names],
                              cwd=tree, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0

    headers = [name for name in files if name.endswith(".h")]
    if not compile_alone(*headers):
        yield from (f"{name}: does not compile alone" for name in headers if not compile_alone(name))


def own_header_not_first(files):
    for name, text in files.items():
        header = module_of(name) + ".h"
        if name.endswith(".c") and header in files:
            if ANY_INCLUDE.findall(text)[:1] != [f'"{header}"']:
                yield f"{name}: does not include {header} first"


def functions_of_one_name(files):
    """But for those that each program has."""
    places = defaultdict(set)
    for name, text in files.items():
        for function in FUNCTION.finditer(code_of(text)):
            places[function["name"]].add(name)
    for function, where in sorted(places.items()):
        if function not in ("main", "on_signal") and len(where) > 1:
            yield f"{', '.join(sorted(where))}: all have {function}()"


def bad_names(files):
    for name, text in files.items():
        for variable in VARIABLE.finditer(code_of(text)):
            names = re.sub(r"\[[^\]]*\]|=[^,;]*", "", variable["names"])
            for found in re.findall(r"\w+", names):
                if found in BAD_NAMES:
                    yield f"{name}: a global or static variable is called {found}"


def violations_of(tree):
    files = sources_of(tree)
    rules = [includes_upward(files), circles(files), headers_not_alone(tree, files),
             own_header_not_first(files), functions_of_one_name(files), bad_names(files)]
    return {violation for rule in rules for violation in rule}


class Layout(unittest.TestCase):
    maxDiff = None

    def test_the_project(self):
        self.assertEqual(sorted(violations_of(SOURCES)), [])

    def test_the_readme_has_the_order(self):
        order = " < ".join(", ".join(level) for level in LEVELS)
        self.assertIn(order, (SOURCES / "README.md").read_text())


class Rules(Case):
    """Each rule finds what breaks it, in a tree made for it."""

    def violations(self, files):
        tree = self.scratch / "tree"
        for name, text in files.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return violations_of(tree)

    def test_nothing_is_wrong(self):
        self.assertEqual(self.violations({
            "cascade.c": '#include "serve/a.h"\n\nint main(void)\n{\n\treturn a();\n}\n',
            "tracker.c": "#include <stdio.h>\n\nint main(void)\n{\n\tint count = 0;\n\n\treturn count;\n}\n",
            "serve/a.h": '#include "net/b.h"\n\nint a(void);\n',
            "serve/a.c": '#define X\n#include "serve/a.h"\n\n/* count; */\nint a(void)\n{\n\treturn 0;\n}\n\n'
                         "static int helper(void)\n{\n\treturn 1;\n}\n",
            "net/b.h": "#ifndef B_H\nstruct b {\n\tint count;\n};\n#endif\n",
            "net/b.c": '#include "net/b.h"\n\nstatic int other_helper(void)\n{\n\treturn 1;\n}\n',
            "tests/unit/t.c": '#include "cascade.c"\n',
        }), set())

    def test_upward(self):
        self.assertEqual(self.violations({
            "base/a.c": '#include "net/b.h"\n',
            "net/b.h": "int b;\n",
            "net/c.c": '#include "file/d.h"\n',
            "file/d.h": "int d;\n",
            "serve/e.c": '#include "peer_serve.h"\n#include "base/a.h"\n',
            "base/a.h": "",
            "peer_serve.h": "int f;\n",
            "csapp.c": '#include "sha256.h"\n#include "base/a.h"\n',
            "sha256.h": "",
            "other/g.c": "",
            "serve/h.c": '#include "g.h"\n',
        }), {"base/a.c: includes net/b.h, upward", "base/a.c: does not include base/a.h first",
             "net/c.c: includes file/d.h, upward", "serve/e.c: includes peer_serve.h, upward",
             "csapp.c: includes sha256.h, upward", "csapp.c: includes base/a.h, upward",
             "other/g.c: belongs to no level",
             "serve/h.c: includes g.h, which is not named from the top"})

    def test_circles(self):
        guarded = "#ifndef {0}\n#define {0}\n#include {1}\n#endif\n"
        self.assertEqual(self.violations({
            "net/a.h": guarded.format("A_H", '"net/b.h"'),
            "net/b.h": guarded.format("B_H", '"net/a.h"'),
            "net/c.h": "int c;\n",
            "net/c.c": '#include "net/c.h"\n#include "net/d.h"\n',
            "net/d.h": "int d;\n",
            "net/d.c": '#include "net/d.h"\n#include "net/e.h"\n',
            "net/e.h": '#include "net/c.h"\n',
        }), {"net/a, net/b: include each other", "net/c, net/d: include each other",
             "net/c, net/e: include each other", "net/d, net/e: include each other"})

    def test_a_header_that_needs_another(self):
        self.assertEqual(self.violations({"net/a.h": "uint32_t a(void);\n",
                                          "net/b.h": "#include <stdint.h>\nuint32_t b(void);\n"}),
                         {"net/a.h: does not compile alone"})

    def test_own_header_first(self):
        self.assertEqual(self.violations({"net/a.h": "", "net/b.h": "", "net/c.h": "",
                                          "net/a.c": '#include <stdio.h>\n#include "net/a.h"\n',
                                          "net/b.c": '#include "net/c.h"\n#include "net/b.h"\n',
                                          "net/c.c": "int c;\n"}),
                         {f"net/{name}.c: does not include net/{name}.h first" for name in "abc"})

    def test_functions_of_one_name(self):
        static = "static int look(void)\n{\n\treturn 0;\n}\n"
        attribute = "FORMAT(1, 2)\nstatic void say(const char *text,\n\t\tint n)\n{\n}\n"
        self.assertEqual(self.violations({
            "net/a.c": static + attribute, "net/b.c": static + "NORETURN void *say(int (*f)(void))\n{\n}\n",
            "file/c.c": static, "file/d.c": "int open_it(void)\n{\n}\n",
            "fetch/e.c": "static int open_it(void)\n{\n}\n",
            "base/f.c": "int look_at(int x);\nint f(void)\n{\n\tif (look_at(1))\n\t{\n\t}\n}\n",
            "base/g.h": "static inline int g(void)\n{\n}\n", "base/h.c": "static int g(int g)\n{\n}\n",
        }), {"file/c.c, net/a.c, net/b.c: all have look()", "net/a.c, net/b.c: all have say()",
             "fetch/e.c, file/d.c: all have open_it()", "base/g.h, base/h.c: all have g()"})

    def test_bad_names(self):
        self.assertEqual(self.violations({
            "net/a.c": "static size_t windows = MAX, each = SIZE;\nint count;\nstatic int few[3];\n",
            "net/b.c": "int b(int n)\n{\n\tstatic const char *many;\n\tstatic int b_n, enough = 1;\n\tint count;\n}\n",
            "net/c.c": "static struct c all = {0};\nstatic int all_c;\nstruct c {\n\tint count;\n};\n",
        }), {f"net/{where}: a global or static variable is called {name}" for where, name in [
            ("a.c", "each"), ("a.c", "count"), ("a.c", "few"), ("b.c", "many"), ("b.c", "enough"),
            ("c.c", "all")]})


if __name__ == "__main__":
    unittest.main()
