"""docs/families.md says what the code has."""

from __future__ import annotations

from configs import ROWS, family
from families_page import COMMAND, PAGE, native_formats, page
from quickbrown.models.families import FILES, MODEL_TYPES
from quickbrown.quant.formats import FORMATS


def test_the_page_is_current() -> None:
    assert PAGE.read_text("utf-8") == page(), f"docs/families.md is not current; type: {COMMAND}"


def test_formats_have_a_kernel_or_are_held_in_one_that_has() -> None:
    native, _ = native_formats()
    assert {form.name for form in FORMATS.values() if form.held is None} == set(native)
    assert {form.held for form in FORMATS.values()} <= {None, *native}


def test_every_family_has_a_tiny_model() -> None:
    assert {MODEL_TYPES[family(name)] for name in ROWS} == set(FILES)
