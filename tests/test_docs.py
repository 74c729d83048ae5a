"""The documents: what they name exists, and what exists they name."""

import re
import unittest
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
DOCUMENTS = [path for path in (*TOP.glob("*.md"), *TOP.glob("docs/*.md"), *TOP.glob("*/README.md"))]
SOURCES = sorted(path.relative_to(TOP) for folder in (".", "base", "net", "file", "fetch", "serve", "track")
                 for path in (TOP / folder).glob("*.[ch]"))


def defines(path, name):
    """Whether the C file defines a function, a struct, an enum or a macro of that name."""
    text = path.read_text()
    return bool(re.search(rf"^(?![\s/*#]).*\b{name}\([^;]*?\)\s*\n?\{{", text, re.M) or
                re.search(rf"^(static .*)?(struct|enum|#define)\s+{name}\b", text, re.M))


class Documents(unittest.TestCase):
    def test_links_lead_somewhere(self):
        for document in DOCUMENTS:
            for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
                if "://" not in target:
                    self.assertTrue((document.parent / target).exists(), f"{document.name}: {target}")

    def test_functions_that_are_named_with_their_file_are_there(self):
        count = 0
        for document in DOCUMENTS:
            for name, function in re.findall(r"`([\w/]+\.[ch]):(\w+)`", document.read_text()):
                self.assertTrue((TOP / name).exists(), f"{document.name}: {name}")
                self.assertTrue(defines(TOP / name, function), f"{document.name}: {name}:{function}")
                count += 1
        self.assertGreater(count, 0)

    def test_files_that_are_named_are_there(self):
        for document in DOCUMENTS:
            for name in re.findall(r"`((?:base|net|file|fetch|serve|track|tests|bench|sim|docs)/[\w./]+\.\w+)`",
                                   document.read_text()):
                self.assertTrue((TOP / name).exists(), f"{document.name}: {name}")

    def test_documents_that_the_sources_name_are_there(self):
        for source in SOURCES:
            for name in re.findall(r"\b((?:docs|man)/[\w-]+\.\w+)", (TOP / source).read_text()):
                self.assertTrue((TOP / name).exists(), f"{source}: {name}")

    def test_every_test_that_the_tables_name_is_there(self):
        for name in re.findall(r"^\| `([\w/]+\.\w+)`", (TOP / "tests" / "README.md").read_text(), re.M):
            self.assertTrue((TOP / "tests" / name).exists(), name)

    def test_every_module_is_in_the_table_of_the_readme(self):
        readme = (TOP / "README.md").read_text()
        for source in SOURCES:
            if source.suffix == ".c":
                self.assertIn(source.name, readme, source)

    def test_every_test_is_in_the_table_of_the_tests(self):
        table = (TOP / "tests" / "README.md").read_text()
        for path in (*(TOP / "tests").glob("*.py"), *(TOP / "tests" / "unit").glob("*.[ch]")):
            self.assertIn(f"`{path.relative_to(TOP / 'tests')}`", table)


if __name__ == "__main__":
    unittest.main()
