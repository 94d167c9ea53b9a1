"""The project's checks, each in an environment of its own: `nox` runs them all.

`nox -s tests -- tests/samplers -k top_k` passes what follows `--` to pytest.
"""

from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["lint", "tests"]

CONSTRAINTS = ("-c", "constraints.txt")


def dependency_group(name: str) -> list[str]:
    return nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), name)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and types."""
    session.install(".[jax]", *dependency_group("lint"), *CONSTRAINTS)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests on the installed package."""
    session.install(".[jax]", *dependency_group("test"), *CONSTRAINTS)
    # The oracle of presets. One of its dependencies is TensorFlow, which it can do without; the
    # others are among those of nextword and the tests.
    session.install("--no-deps", "keras-hub", *CONSTRAINTS)
    # Keras reads and writes a file in the home directory that names a backend.
    environment = {"KERAS_HOME": session.create_tmp(), "KERAS_BACKEND": None}
    # All tests at once run in two processes, each of which takes gigabytes for compiled programs.
    arguments = session.posargs or ("-n", "2", "--dist", "loadfile")
    session.run("pytest", *arguments, env=environment)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Measure speed, memory and quality beside the peers: `nox -s benchmarks -- --help`."""
    session.install(".[jax]", *dependency_group("benchmarks"), *CONSTRAINTS)
    session.install("--no-deps", "keras-hub", *CONSTRAINTS)
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def sanitizers(session: nox.Session) -> None:
    """Run the native kernels' tests under GCC's address and undefined behaviour sanitizers."""
    session.install(".[jax]", *dependency_group("test"), *CONSTRAINTS)
    kernels = Path("src/nextword/ops/native")
    include = "import jax; print(jax.ffi.include_dir())"
    installed = "import nextword.ops.native as native; print(native.__path__[0])"
    headers, target = (
        session.run("python", "-c", code, silent=True).strip() for code in (include, installed)
    )
    flags = ["-O1", "-g", "-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden", "-w"]
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    sources = sorted(map(str, kernels.glob("*.cc")))
    for built in Path(target).glob("_kernels*.so"):
        built.unlink()
    output = str(Path(target) / "_kernels.so")
    command = ["g++", *flags, *checks, "-isystem", headers, "-o", output, *sources]
    session.run(*command, external=True)
    libraries = [
        session.run("g++", f"-print-file-name={name}.so", silent=True, external=True).strip()
        for name in ("libasan", "libubsan", "libstdc++")
    ]
    environment = {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python keeps what it has until its end
        "KERAS_HOME": session.create_tmp(),
        "KERAS_BACKEND": "jax",
    }
    session.run("pytest", "tests/ops", *session.posargs, env=environment)
