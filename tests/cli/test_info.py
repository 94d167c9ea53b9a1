"""`nextword info`: it tells what computes here."""

import json

import keras
import pytest

from nextword import __version__
from nextword.ops.native import kernels_in_use, kernels_used


def test_json(nextword_command):
    result = nextword_command("info", "--json")
    assert result.status == 0
    facts = json.loads(result.stdout)
    assert facts["nextword"] == __version__
    assert facts["backend"] == keras.backend.backend()
    assert f"keras {keras.version()}" in facts["packages"]
    assert facts["devices"]


def test_a_line_for_each_fact(nextword_command):
    facts = json.loads(nextword_command("info", "--json").stdout)
    lines = nextword_command("info").stdout.splitlines()
    assert [line.split("  ")[0].replace(" ", "_") for line in lines] == list(facts)


@pytest.mark.skipif(kernels_in_use() is None, reason="built without native kernels")
def test_the_kernels_in_use_are_named(nextword_command):
    def kernels():
        return json.loads(nextword_command("info", "--json").stdout)["native_kernels"]

    assert kernels() == kernels_in_use()
    with kernels_used("portable"):
        assert kernels() == "portable"
    with kernels_used(None):
        assert "compiler" in kernels()
