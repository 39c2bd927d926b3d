"""A store with the encoder that it has by default."""

import pytest

from intarsia.prompting.data import SourceDocument, Store


@pytest.mark.real
def test_found_by_meaning_and_by_words(tmp_path):
    texts = {
        "kettle": "The appliance heats up water for tea. It switches itself off.",
        "bike": "Two wheels, a saddle and a chain: you ride it to work.",
        "code": "`shutil.rmtree` deletes a directory tree.",
        "cat": "A small animal with whiskers that purrs.",
    }
    with Store.open(tmp_path / "s") as store:
        added = store.add([SourceDocument(text, name) for name, text in texts.items()])
        assert added.embedded == 4 and store.encoder_name == "minilm"
        for question, wanted in (
            ("how can I boil something to drink", "kettle"), ("cycling vehicle", "bike"),
            ("shutil.rmtree", "code"), ("feline pet", "cat"),
        ):  # fmt: skip
            assert store.search(question, 1)[0].source == wanted
    with Store.open(tmp_path / "s", "minilm") as again:
        assert again.search("feline pet", 1, mode="dense")[0].source == "cat"
