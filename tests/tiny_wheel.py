"""A tiny wheel with a model file in it, for tests of presets that come in wheels."""

import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

GGUF = b"GGUF" + bytes(range(256)) * 40
SHA256 = hashlib.sha256(GGUF).hexdigest()
HANDLE = "pypi://tiny-model==1.0/tiny_model/m.gguf"
FILES = {"tiny_model/__init__.py": b"raise SystemExit('executed')", "tiny_model/m.gguf": GGUF}
FILENAME = "tiny_model-1.0-py3-none-any.whl"
_METADATA = {
    "METADATA": "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
    "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "RECORD": "",
}


def build_wheel(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return the wheel `tiny-model==1.0` with the given files by path."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        for name, text in _METADATA.items():
            archive.writestr(f"tiny_model-1.0.dist-info/{name}", text)
    return content.getvalue()


def pip_that_delivers(wheel: bytes):
    """What stands in for `subprocess.run` in tests of what happens after the download."""

    def run(command, **_):
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir()
        (folder / FILENAME).write_bytes(wheel)
        return subprocess.CompletedProcess(command, 0, stderr="")

    return run


def files_in(directory: Path) -> list[str]:
    """Return the names of all files below a directory."""
    return sorted(path.name for path in directory.rglob("*") if path.is_file())
