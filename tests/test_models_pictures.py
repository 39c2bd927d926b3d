"""Pictures and questions as networks take them: pixels, embeddings, prompts with places, answers."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image

from intarsia.data import ImageText, shared_data
from intarsia.errors import BadInput, Note
from intarsia.models import load, wrap
from intarsia.models.pixels import as_seen, image_processor, picture_inputs, pixels
from intarsia.models.seeing import (
    answer,
    embed_pictures,
    embed_texts,
    kind_of,
    places,
    prompts,
    question_batches,
    question_inputs,
    text_inputs,
)
from tests import tiny as make
from tests.tiny import tiny, tokenizer


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)
        yield


def pictures(count: int = 3, size: tuple[int, int] = (20, 20)) -> list[Image.Image]:
    return [Image.new("RGB", size, (60 * i, 200 - 30 * i, 40)) for i in range(count)]


def blip_answers(seed: int = 0):
    torch.manual_seed(seed)
    config = tf.BlipConfig(text_config=make._blip_text(), vision_config=make._VISION_TOWER, image_text_hidden_size=16)
    network = tf.BlipForQuestionAnswering(config).eval()
    for parameter in network.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.15)
    return wrap(network, tokenizer())


def vision_tower():
    return wrap(tf.CLIPVisionModel(tf.CLIPVisionConfig(**make._VISION_TOWER)))


@pytest.mark.parametrize(
    ("family", "mean", "std"),
    [
        ("clip", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ("siglip", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("blip", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ("llava", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ],
)
def test_a_made_processor_has_the_familys_numbers_and_the_configs_size(family, mean, std) -> None:
    model = tiny(family)
    with pytest.warns(Note, match="no image processor: pictures are made 16 x 16 pixels"):
        values = pixels(model, pictures(2, (40, 30)))
    assert values.shape == (2, 3, 16, 16) and values.dtype == model.dtype
    for i, colour in enumerate([(0, 200, 40), (60, 170, 40)]):
        wanted = (np.array(colour) / 255 - mean) / std
        assert values[i].mean(dim=(1, 2)).numpy() == pytest.approx(wanted, abs=1e-3)


def test_the_models_own_processor_is_used_and_survives_saving(tmp_path: Path) -> None:
    model = tiny("clip")
    own = image_processor(model, image_mean=[0.5] * 3, image_std=[0.25] * 3)
    model.processor = own
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = pixels(model, pictures(1))
    assert values[0, :, 3, 3].tolist() == pytest.approx([(v / 255 - 0.5) / 0.25 for v in (0, 200, 40)], abs=1e-4)
    again = load(model.save(tmp_path / "with"))
    assert torch.equal(pixels(again, pictures(1)), values)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "with" / name).unlink()
    bare = load(tmp_path / "with")  # a folder with nothing but a preprocessor config
    assert bare.tokenizer is None and torch.equal(pixels(bare, pictures(1)), values)


def test_pictures_may_be_paths_bytes_and_records_in_half_precision(tmp_path: Path) -> None:
    (first,) = pictures(1)
    first.save(tmp_path / "a.png")
    model = tiny("clip", dtype=torch.bfloat16)
    path = str(tmp_path / "a.png")
    values = pixels(model, [first, path, (tmp_path / "a.png").read_bytes(), ImageText(path)])
    assert values.dtype == torch.bfloat16 and all(torch.equal(values[0], one) for one in values)
    assert picture_inputs(model, [path])["pixel_values"].shape == (1, 3, 16, 16)


def test_what_the_network_saw_is_the_picture_cropped_to_its_middle() -> None:
    model = tiny("clip")
    wide = Image.new("RGB", (48, 16), (255, 0, 0))
    wide.paste((0, 128, 255), (16, 0, 32, 16))
    processor = image_processor(model)
    (seen,) = as_seen(processor, pixels(model, [wide], processor))
    assert seen.size == (16, 16) and np.abs(np.asarray(seen, float)[:, 4:12] - (0, 128, 255)).max() <= 3


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_a_model_without_a_vision_tower_is_refused_in_one_line(family: str) -> None:
    for call in (lambda m: pixels(m, pictures(1)), kind_of):
        with pytest.raises(BadInput, match="has no vision tower, so it takes no pictures") as error:
            call(tiny(family))
        assert "\n" not in str(error.value)


def test_no_pictures_and_a_broken_one() -> None:
    with pytest.raises(BadInput, match="no pictures given"):
        pixels(tiny("clip"), [])
    with pytest.raises(BadInput, match="not a picture that can be read"):
        pixels(tiny("clip"), [b"junk"])


@pytest.mark.parametrize(
    ("family", "kind"), [("clip", "dual"), ("siglip", "dual"), ("blip", "answer"), ("llava", "answer")]
)
def test_kinds(family: str, kind: str) -> None:
    assert kind_of(tiny(family)) == kind


def test_kinds_of_towers_and_classifiers() -> None:
    vision = make._VISION_TOWER
    assert kind_of(blip_answers()) == "answer"
    assert kind_of(vision_tower()) == "encoder"
    plain = {k: v for k, v in vision.items() if k != "projection_dim"}
    assert kind_of(wrap(tf.ViTForImageClassification(tf.ViTConfig(**plain)))) == "class"
    assert kind_of(wrap(tf.ViTModel(tf.ViTConfig(**plain)))) == "encoder"


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_embeddings_are_the_networks_own(family: str) -> None:
    model = tiny(family)
    values, texts = pixels(model, pictures()), ["a", "two words"]
    with torch.no_grad():
        out = model.network(**text_inputs(model, texts), pixel_values=values)
        mine, said = embed_pictures(model, values), embed_texts(model, texts)
    for own, theirs in ((mine, out.image_embeds), (said, out.text_embeds)):
        assert torch.allclose(torch.nn.functional.normalize(own, dim=-1), theirs, atol=1e-6)
    full = text_inputs(model, texts)["input_ids"].shape[1]
    assert full == (64 if family == "siglip" else 9)  # SigLIP was trained on texts of full length
    assert text_inputs(model, ["x" * 300])["input_ids"].shape[1] == 64


@pytest.mark.parametrize("make_model", [blip_answers, lambda: tiny("llava"), lambda: vision_tower()])
def test_networks_without_a_joint_space_give_their_towers_pooled_rows(make_model) -> None:
    model = make_model()
    with torch.no_grad():
        found = embed_pictures(model, torch.randn(2, 3, 16, 16))
    assert found.shape == (2, 32)
    with pytest.raises(BadInput, match="embeds no texts"):
        embed_texts(model, ["a"])


def test_llava_prompts_hold_a_place_for_every_patch_and_are_padded_on_the_left() -> None:
    model = tiny("llava")
    values = pixels(model, pictures(2))
    given = question_inputs(model, values, ["what?", "how many boxes?"])
    ids, mask = given["input_ids"], given["attention_mask"]
    assert places(model) == 16 and ((ids == 8).sum(1) == 16).all()
    assert mask.sum(1).tolist() == [ids.shape[1] - 10, ids.shape[1]] and (ids[0, :10] == 0).all()
    model.network(**given)  # the number of places is what the network wants
    plain = question_inputs(model, values[:1], ["what?"], template="Q {question} <image> A")
    words = model.tokenizer.decode(plain["input_ids"][0])
    assert words.replace("<image>", "") == "Q what?  A"
    assert prompts(model, ["why"]) == ["<|user|><image>\nwhy<|end|><|assistant|>"]
    model.tokenizer.chat_template = None
    assert prompts(model, ["why"]) == ["<image>\nwhy\n"]
    model.tokenizer.chat_template = make.CHAT


@pytest.mark.parametrize("make_model", [blip_answers, lambda: tiny("llava")])
def test_answers_in_a_batch_are_those_one_by_one_and_greedy(make_model) -> None:
    model = make_model()
    values, asked = pixels(model, pictures(4)), ["what colour is it?", "why?", "how many?", "who?"]
    batches = question_batches(model, asked, batch_size=2)
    assert sorted(i for rows in batches for i in rows) == [0, 1, 2, 3] and sorted(map(len, batches))[-1] == 2
    for rows in batches:
        together = answer(model, question_inputs(model, values[rows], [asked[i] for i in rows]), 5)
        assert together.first.exp().sum(-1).tolist() == pytest.approx([1.0] * len(rows), abs=1e-4)
        for place, i in enumerate(rows):
            alone = answer(model, question_inputs(model, values[i : i + 1], asked[i : i + 1]), 5)
            assert alone.texts == together.texts[place : place + 1]
            assert torch.allclose(alone.first[0], together.first[place], atol=1e-4)


def test_the_first_distribution_is_that_of_the_forward() -> None:
    model = tiny("llava")
    given = question_inputs(model, pixels(model, pictures(1)), ["what?"])
    with torch.no_grad():
        logits = model.network(**given).logits[0, -1]
    assert torch.allclose(answer(model, given, 2).first[0], logits.log_softmax(-1), atol=1e-5)


def test_a_prompt_begins_once() -> None:
    model = tiny("llava", bos=True)
    model.tokenizer.chat_template = "<s>" + make.CHAT  # as many chat templates do
    ids = question_inputs(model, pixels(model, pictures(1)), ["what?"])["input_ids"][0].tolist()
    assert ids.count(1) == 1 and ids[0] == 1


def test_questions_are_checked() -> None:
    values = torch.zeros(1, 3, 16, 16)
    with pytest.raises(BadInput, match="writes no answers"):
        question_inputs(tiny("clip"), values, ["a"])
    with pytest.raises(BadInput, match="1 pictures and 2 questions"):
        question_inputs(tiny("llava"), values, ["a", "b"])
    with pytest.raises(BadInput, match=r"lacks \{question\} and <image>"):
        question_inputs(tiny("llava"), values, ["a"], template="what?")


def test_a_bare_tokenizer_file_gets_its_special_tokens_from_the_config(tmp_path: Path) -> None:
    model = tiny("clip")
    folder = model.save(tmp_path / "m")
    (folder / "tokenizer_config.json").unlink()
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    file = folder / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "post_processor": None}))
    again = load(folder).tokenizer
    assert (again.pad_token, again.bos_token, again.eos_token, again.unk_token) == ("<pad>", "<s>", "<|end|>", "<unk>")
    assert again("ab")["input_ids"] == [1, *model.tokenizer("ab")["input_ids"], 2] and again.model_max_length == 64
    text = tiny("llama").save(tmp_path / "t")
    (text / "tokenizer_config.json").unlink()
    assert load(text).tokenizer("ab")["input_ids"] == model.tokenizer("ab")["input_ids"]  # nothing is added to a text
    (text / "config.json").write_text(
        json.dumps({**json.loads((text / "config.json").read_text()), "eos_token_id": 9999})
    )
    assert load(text).tokenizer.eos_token is None


@pytest.mark.real
def test_the_given_clip_finds_its_drawings(tmp_path: Path) -> None:
    folder = shared_data("vision_language")
    if folder is None:
        pytest.skip("the shared data vision_language is not there")
    import zipfile

    model = load(folder / "emoji_clip_256")
    ids = (folder / "emoji_clip_256/concepts.txt").read_text().split()
    rows = map(json.loads, (folder / "emoji/emoji.jsonl").read_text().splitlines())
    concepts = {row["id"]: row for row in rows}
    with zipfile.ZipFile(folder / "emoji/images.zip") as archive:
        values = pixels(
            model,
            [archive.read(f"noto/{name}.png") for name in ids],
            image_processor(model, image_mean=[0.5] * 3, image_std=[0.25] * 3),
        )
    texts = []
    for name in ids:
        label, tags = concepts[name]["label"], concepts[name]["tags"]
        texts.append(", ".join([label, *[tag for tag in tags if tag not in label][:4]]))
    with torch.inference_mode():
        mine, said = embed_pictures(model, values), embed_texts(model, texts)
    best = (torch.nn.functional.normalize(mine, dim=-1) @ torch.nn.functional.normalize(said, dim=-1).T).argmax(1)
    right = (best == torch.arange(len(ids))).float().mean().item()
    assert right == pytest.approx(0.32, abs=0.02)
