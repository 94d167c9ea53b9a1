"""The project's checks, each in an environment of its own: `nox` runs them all.

`nox -s tests -- tests/samplers -k top_k` passes what follows `--` to pytest.
"""

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"

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
    session.run("pytest", *session.posargs, env=environment)
