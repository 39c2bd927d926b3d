"""What turns a passage round is found, and what says it in other words is not."""

from __future__ import annotations

import pytest

from intarsia.prompting.assistant.contradicting import contradiction
from intarsia.prompting.assistant.supporting import support, words_held
from intarsia.prompting.assistant.wording import stem, written_out

KETTLE = (
    "Kettle > Warranty\nThe warranty of the kettle is two years from the day it was bought. Without the bill nothing "
    "is repaired. Descale it every 3 weeks with 50 ml of vinegar. The coating is not covered, and paths are relative "
    "to the book, not to the shop. The lid is required before heating; call kettle.start(), which raises LidError "
    "unless the lid is closed."
)


@pytest.mark.parametrize(
    ("said", "kind", "word"),
    [
        ("The warranty of the kettle is not two years from the day it was bought.", "negation", "two"),
        ("The kettle doesn't need to be descaled every 3 weeks with vinegar.", "negation", "descal"),
        ("The coating is covered.", "negation", "cover"),
        ("Everything is repaired without the bill.", "negation", "repair"),
        ("The warranty of the kettle is five years from the day it was bought.", "number", "5"),
        ("Descale it every 4 weeks with 50 ml of vinegar.", "number", "4"),
        ("The lid is optional before heating.", "opposite", "optional"),
        ("The lid is required after heating.", "opposite", "after"),
        ("The kettle.start raises BillError unless the lid is closed.", "name", "billerror"),
    ],
)
def test_turned_round(said, kind, word):
    found = contradiction(said, [KETTLE])
    assert found is not None and (found.kind, found.word, found.said) == (kind, word, said)
    assert found.nearest in " ".join(KETTLE.split())
    # Single words do not tell, which is why it is looked for; but for a number that stands nowhere.
    assert support(said, [KETTLE]) == 0.0


@pytest.mark.parametrize(
    "said",
    [
        "The warranty of the kettle is two years.",
        "It has a warranty of 2 years from the day it was bought.",
        "The coating isn't covered.",
        "Nothing is repaired without the bill.",
        "Descale it every three weeks with vinegar, and nothing is repaired without the bill.",
        "Paths are relative to the book.",
        "Call kettle.start() before heating.",
        "Bread is not baked in an oven.",  # of which the passage says nothing: that is for its words to tell
        "",
    ],
)
def test_said_in_other_words(said):
    assert contradiction(said, [KETTLE]) is None
    assert support(said, [KETTLE]) == words_held(said, [KETTLE])


def test_one_passage_that_agrees_is_enough():
    said = "The coating is covered by the warranty."
    no, yes = "The coating is not covered by the warranty.", "The coating is covered by the warranty of the pan."
    assert contradiction(said, [no]) is not None
    assert contradiction(said, [no, yes]) is None


def test_what_was_asked_may_be_told_again():
    said = "Every 4 weeks is too late: descale it every 3 weeks."
    passage = "Descale it every 3 weeks."
    assert contradiction(said.replace("3", "5"), [passage], "Every 4 weeks?") is not None
    assert contradiction(said, [passage], "Every 4 weeks?") is None


def test_words_in_one_form():
    assert {stem(w) for w in ("raise", "raises", "raised", "raising")} == {"rais"}
    assert stem("copy") == stem("copies") == stem("copied") == "copi" and stem("try") == "try"
    assert stem("use") == stem("uses") == "use" and stem("as") == "as"
    assert written_out("It isn't, can’t and won't; cannot.") == "It is not, can not and will not; can not."
