"""The pins: ``write`` resolves ``*.in`` into ``*.txt``; ``check`` asks the package index for a wheel of every pin.

``write`` needs uv (``pip install uv``); ``check`` needs pip alone. Each pin is checked for Linux x86-64 and macOS arm64
under every supported Python, with the pin's environment marker evaluated for that platform, not for this machine.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

HERE = Path(__file__).resolve().parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# `write` resolves for these two only: the rest of its markers says no more than that.
_MARKER = "platform_machine == '{}' and platform_python_implementation == 'CPython' and sys_platform == '{}'"
PLATFORM_MARKERS = {"darwin": _MARKER.format("arm64", "darwin"), "linux": _MARKER.format("x86_64", "linux")}
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    "darwin": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
}
# pip takes wheels of older systems for granted on macOS, not for glibc. MLX sets macOS 14.
WHEEL_TAGS = {
    "linux": [f"manylinux_2_{minor}_x86_64" for minor in range(5, 36)] + ["manylinux2014_x86_64", "manylinux1_x86_64"],
    "darwin": ["macosx_14_0_arm64"],
}


def simplified(line: str) -> str:
    """One resolved line with its marker reduced to what tells the two platforms apart."""
    pin, _, marker = (part.strip() for part in line.partition(" ; "))
    for platform, full in PLATFORM_MARKERS.items():
        marker = marker.replace(full, f"<{platform}>")
    marker = re.sub(r"\(?\(?<darwin>\)? or \(?<linux>\)?\)?", "", marker)
    marker = re.sub(r"^implementation_name != 'PyPy'( and )?|\(|\)", "", marker).strip()
    marker = re.sub(r" and$", "", marker)
    marker = re.sub(r"<(\w+)>", r"sys_platform == '\1'", marker)
    return f"{pin} ; {marker}" if marker else pin


def write(name: str) -> None:
    """Resolve ``name.in``, keeping what ``base.txt`` (and the present ``name.txt``) already pin."""
    target = HERE / f"{name}.txt"
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", PYTHONS[0], "--no-header"]
    command += ["--no-annotate", "--output-file", str(target), str(HERE / f"{name}.in")]
    if name != "base":
        command += ["--constraint", str(HERE / "base.txt")]
    subprocess.run(command, check=True, cwd=HERE.parent)
    lines = [simplified(line) for line in target.read_text(encoding="utf-8").splitlines()]
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")


def pins(name: str, environment: dict[str, str], python: str) -> Iterator[str]:
    """The pins of ``name.txt`` that hold on that platform and Python, as plain ``package==version``."""
    for line in (HERE / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if not text:
            continue
        pin = Requirement(text)
        if pin.marker is None or pin.marker.evaluate({**environment, "python_version": python}):
            yield f"{pin.name}{pin.specifier}"


def check(names: list[str], platform: str, python: str) -> bool:
    """True when the index has a wheel of every pin for that platform and Python; says what is missing otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "pins.txt"
        lines = sorted({pin for name in names for pin in pins(name, ENVIRONMENTS[platform], python)})
        wanted.write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed"]
        command += ["--only-binary=:all:", "--target", folder, "--implementation", "cp", "--python-version", python]
        command += [part for tag in WHEEL_TAGS[platform] for part in ("--platform", tag)]
        begun = time.monotonic()
        result = subprocess.run([*command, "-r", str(wanted)], capture_output=True, text=True, check=False)
    seconds = time.monotonic() - begun
    verdict = "a wheel for each" if result.returncode == 0 else "MISSING"
    sys.stdout.write(f"{platform} {python}: {len(lines)} pins, {verdict} ({seconds:.0f} s)\n")
    if result.returncode != 0:
        sys.stdout.write("".join(f"  {line}\n" for line in result.stderr.splitlines() if line.startswith("ERROR")))
    return result.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["write", "check"])
    command = parser.parse_args().command
    if command == "write":
        for name in ("base", "clients", "lint", "test"):
            write(name)
        return 0
    names = ["base", "clients", "engine", "lint", "test"]
    results = [check(names, platform, python) for platform in ENVIRONMENTS for python in PYTHONS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
