"""The manual pages, --help, README and the completions: they name the same options and exit
statuses."""

import re
import shutil
import subprocess
import unittest

from support import HERE, PROGRAMS, Case

TOP = HERE.parent
COMMANDS = ("cascade", "tracker", "mkcascade", "cascade-push")
PAGES = sorted((TOP / "man").iterdir())


def help_of(name):
    return subprocess.run([PROGRAMS / name, "--help"], capture_output=True, text=True, check=True).stdout


def long_options(name):
    """The long options that --help names where it lists them."""
    shown = help_of(name)
    return set(re.findall(r"^ +(?:-\w, )?--([a-z-]+)", shown, re.M))


class Manual(Case):
    def test_help_fits_a_terminal_of_80_columns(self):
        for name in COMMANDS:
            self.assertEqual([line for line in help_of(name).splitlines() if len(line) > 80], [], name)

    def test_every_option_is_in_the_manual_and_in_the_completions(self):
        bash, zsh = ((TOP / "completion" / name).read_text() for name in ("cascade.bash", "_cascade"))
        for name in COMMANDS:
            options = long_options(name)
            self.assertGreater(len(options), 3)
            page = (TOP / "man" / f"{name}.1").read_text()
            listed = re.search(rf"^\t{name}\) options='(.*?)'", bash, re.M | re.S)[1].split()
            self.assertEqual(options, {option[2:] for option in listed}, f"bash: {name}")
            part = re.search(rf"^{name}\)\n(.*?);;", zsh, re.M | re.S)[1]
            self.assertEqual(options, set(re.findall(r"(?<=[,'*)])--([a-z-]+)(?=[\[}])", part)), f"zsh: {name}")
            for option in options:
                self.assertIn(f"-{option}", page, f"{name}.1")

    def test_the_readme_names_every_option_of_cascade(self):
        readme = (TOP / "README.md").read_text()
        for option in long_options("cascade") - {"help", "version", "verbose"}:
            self.assertIn(f"--{option}", readme)

    def test_the_exit_statuses_are_the_same_everywhere(self):
        numbers = re.findall(r"EXIT_\w+ = (\d+)", (TOP / "base/exits.h").read_text())
        self.assertEqual(re.findall(r"^\| (\d+) \|", (TOP / "README.md").read_text(), re.M), numbers)
        page = (TOP / "man/cascade.1").read_text().split(".Sh EXIT STATUS")[1]
        self.assertEqual(re.findall(r"^\.It (\d+)$", page, re.M), numbers)

    def test_mandoc_has_no_complaint(self):
        if shutil.which("mandoc") is None:
            self.skipTest("no mandoc")
        for page in PAGES:
            checked = subprocess.run(["mandoc", "-Tlint", page], capture_output=True, text=True)
            # Pages that aren't installed here; those of ours are looked for.
            complaints = [line for line in checked.stdout.splitlines() if "referenced manual not found" not in line]
            self.assertEqual(complaints, [])

    def test_pages_refer_to_pages_that_are_there(self):
        names = {page.name for page in PAGES} | {"ssh.1", "sha256sum.1", "tar.1", "uname.1"}
        for page in PAGES:
            for name, section in re.findall(r"\.Xr (\S+) (\d)", page.read_text()):
                self.assertIn(f"{name}.{section}", names, page.name)

    def complete(self, *words):
        """What bash offers for the last word."""
        script = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _cascade; '
                  'printf "%s\\n" "${COMPREPLY[@]}"')
        shown = subprocess.run(["bash", "-c", script, "bash", TOP / "completion/cascade.bash", *words],
                               cwd=self.scratch, capture_output=True, text=True, check=True)
        self.assertEqual(shown.stderr, "")
        return sorted(shown.stdout.split())

    def test_what_bash_completes(self):
        if shutil.which("bash") is None:
            self.skipTest("no bash")
        for name in ("film", "film.cascade", "other.cascade"):
            (self.scratch / name).touch()
        self.assertEqual(self.complete("cascade", "--verify"), ["--verify-on-send", "--verify-whole"])
        self.assertEqual(self.complete("cascade", "--order", ""), ["ascending"])
        self.assertEqual(self.complete("cascade", "fi"), ["film.cascade"])
        self.assertEqual(self.complete("mkcascade", "fi"), ["film", "film.cascade"])
        self.assertEqual(self.complete("/usr/bin/tracker", "--l"), ["--list"])
        self.assertIn("film", self.complete("cascade-push", "fi"))

    def test_what_zsh_reads(self):
        if shutil.which("zsh") is None:
            self.skipTest("no zsh")
        checked = subprocess.run(["zsh", "-n", TOP / "completion/_cascade"], capture_output=True, text=True)
        self.assertEqual((checked.returncode, checked.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
