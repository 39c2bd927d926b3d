"""Clips in words: what a plain `generate` would say, blind to the label, kept by content, joined to the right turns."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image

import intarsia as ia
from intarsia.adaptation import describe, label
from intarsia.adaptation.clips import writers
from intarsia.adaptation.clips.finding import DescribedFinding
from intarsia.adaptation.clips.kept import Kept
from intarsia.adaptation.clips.wording import inflections, joined, whole, without, words_of
from intarsia.adaptation.clips.writers import CLIP_PROMPT, FRAME_PROMPT, writer_of
from intarsia.data import (
    Description,
    LabelledText,
    Turn,
    described,
    load_data,
    read,
    read_descriptions,
    write_descriptions,
)
from intarsia.data.clips import open_clip
from intarsia.data.descriptions import View, views
from intarsia.errors import BadInput, IntarsiaError, Note
from intarsia.measure import quality
from intarsia.models import Model, wrap
from intarsia.report import Finding
from tests import seeing_help as seeing
from tests import tiny as make
from tests.clips_help import film, scenes
from tests.tiny import tiny, tokenizer
from tests.tokens_help import blip_answers, classifier

CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("INTARSIA_CACHE", str(place))
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("clips")
    for i, lengths in enumerate(([10], [6, 9], [5, 8, 7])):
        film(place / f"{i}.mp4", scenes(lengths, seed=10 * i))
    return place


def picker(side: int = 16) -> tf.CLIPImageProcessorPil:
    return tf.CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def wide(network: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.15)
    return network.eval()


def chat_model(context: int = 1024) -> Model:
    """A tiny LLaVA with the processor of its kind: several pictures in one turn."""
    words = tokenizer(max_length=context)
    words.add_special_tokens({"additional_special_tokens": ["<image>", "<|user|>", "<|assistant|>"]})
    words.image_token, words.image_token_id, words.chat_template = "<image>", 8, None
    text = tf.LlamaConfig(**{**make._ROPE, "max_position_embeddings": context})
    vision = tf.CLIPVisionConfig(**make._VISION_TOWER)
    network = tf.LlavaForConditionalGeneration(tf.LlavaConfig(vision_config=vision, text_config=text, image_token_id=8))
    whole = tf.LlavaProcessor(
        picker(), words, patch_size=4, vision_feature_select_strategy="default", chat_template=CHAT,
        num_additional_image_tokens=1,
    )  # fmt: skip
    return wrap(wide(network), words, whole, name="tiny-chat")


def captioner() -> Model:
    model = tiny("blip")
    return replace(model, processor=tf.BlipProcessor(picker(), model.tokenizer))


def encoder_decoder() -> Model:
    """Pictures in, words out, and nothing is asked (ViT and GPT-2)."""
    vit = tf.ViTConfig(**{k: v for k, v in make._VISION_TOWER.items() if k != "projection_dim"})
    text = tf.GPT2Config(
        vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64, add_cross_attention=True, is_decoder=True
    )
    config = tf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vit, text)
    network = tf.VisionEncoderDecoderModel(config)
    for settings in (network.config, network.generation_config):
        settings.decoder_start_token_id, settings.pad_token_id, settings.eos_token_id = 1, 0, 2
    return wrap(wide(network), tokenizer(), tf.ViTImageProcessorPil(size={"height": 16, "width": 16}))


def git() -> Model:
    vision = dict(make._VISION_TOWER, num_hidden_layers=2)
    vision.pop("projection_dim")
    config = tf.GitConfig(
        vision_config=vision, vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return wrap(wide(tf.GitForCausalLM(config)), tokenizer(), tf.GitProcessor(picker(), tokenizer()))


def frames_of(folder: Path, frames: int) -> list[list[Image.Image]]:
    return [open_clip(folder / f"{i}.mp4", frames=frames).pictures for i in range(3)]


def texts(model: Model, clips, **settings) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)
        return [one.text for one in describe(model, clips=clips, **{"max_new_tokens": 10, **settings})]


# What is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_a_chat_model_sees_all_frames_of_a_clip_in_one_turn(folder: Path, batch_size: int) -> None:
    model, wanted = chat_model(), []
    for pictures in frames_of(folder, 3):
        prompt = f"<|user|>{'<image>' * len(pictures)}Look!<|end|><|assistant|>"
        inputs = model.processor(text=[prompt], images=pictures, return_tensors="pt")
        assert int((inputs["input_ids"] == 8).sum()) == 16 * len(pictures)
        out = model.network.generate(**inputs, max_new_tokens=10, do_sample=False)
        wanted.append(model.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    got = texts(model, folder, frames=3, prompt="Look!", batch_size=batch_size)
    assert got == [" ".join(w.split()) for w in wanted]
    assert len(set(wanted)) == 3 and model.processor.tokenizer.padding_side == "right"


@pytest.mark.parametrize("prompt", [None, "it is"])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_captioner_says_what_it_says_of_each_frame_alone(folder: Path, prompt: str | None, batch_size: int) -> None:
    model, wanted = captioner(), []
    for pictures in frames_of(folder, 3):
        said = []
        for picture in pictures:
            asked = {} if prompt is None else {"text": [prompt]}
            inputs = model.processor(images=picture, **asked, return_tensors="pt")
            out = model.network.generate(**inputs, max_new_tokens=10, do_sample=False, num_beams=1)
            told = len(inputs["input_ids"][0]) - 1 if prompt else 1  # BLIP drops the last token, and keeps the rest
            said.append(model.tokenizer.decode(out[0, told:], skip_special_tokens=True))
        wanted.append(joined(said))
    assert texts(model, folder, frames=3, prompt=prompt, batch_size=batch_size) == wanted


def test_a_chat_model_can_be_shown_one_frame_at_a_time(folder: Path) -> None:
    model = chat_model()
    single = writer_of(model, prompt="Look!", together=True, max_new_tokens=10, batch_size=1)
    wanted = [joined([single.write([[picture]])[0] for picture in pictures]) for pictures in frames_of(folder, 3)]
    assert texts(model, folder, frames=3, prompt="Look!", together=False) == wanted
    assert wanted != texts(model, folder, frames=3, prompt="Look!")


@pytest.mark.parametrize("kind", ["llava", "blip", "blip-vqa", "encoder-decoder", "git"])
def test_every_kind_of_model_that_writes_is_asked_in_its_own_way(kind: str, folder: Path) -> None:
    bare = {"llava": lambda: tiny("llava"), "blip": lambda: tiny("blip"), "blip-vqa": blip_answers}
    model = {**bare, "encoder-decoder": encoder_decoder, "git": git}[kind]()
    asked = {"prompt": "what?"} if kind in ("llava", "blip-vqa") else {}
    one, many = (texts(model, folder, frames=3, batch_size=size, cache=False, **asked) for size in (1, 7))
    assert one == many and any(one)
    if kind != "git":  # whose random weights look at the text more than at the picture
        assert len(set(one)) == 3


def test_nothing_is_asked_of_a_captioner_and_no_feeling_is_named_by_the_questions() -> None:
    assert writer_of(captioner(), prompt=None, together=True, max_new_tokens=4, batch_size=1).prompt == ""
    assert writer_of(chat_model(), prompt=None, together=True, max_new_tokens=4, batch_size=1).prompt == CLIP_PROMPT
    assert writer_of(chat_model(), prompt=None, together=False, max_new_tokens=4, batch_size=1).prompt == FRAME_PROMPT
    assert writer_of(tiny("llava"), prompt=None, together=True, max_new_tokens=4, batch_size=1).prompt == FRAME_PROMPT
    every = ["neutral", "joy", "surprise", "anger", "sadness", "disgust", "fear", "Peaceful", "Powerful", "happy",
             "frustrated", "excited", "emotion", "feeling", "mood", "positive", "negative"]  # fmt: skip
    for prompt in (CLIP_PROMPT, FRAME_PROMPT):
        assert without(prompt, words_of(every)) == (prompt, 0)


def test_a_broken_off_sentence_is_left_out_and_a_finished_one_is_not() -> None:
    class Counted(torch.nn.Module):
        """Writes letters of a fixed text, whatever it sees."""

        def __init__(self, text: str):
            super().__init__()
            self.ids = torch.tensor([[3 + ord(c) for c in text]])

        def generate(self, max_new_tokens, stopping_criteria, **more):
            for end in range(min(max_new_tokens, self.ids.shape[1])):
                stopping_criteria(self.ids[:, : end + 1], None)
            return self.ids[:, :max_new_tokens]

    class Letters:
        all_special_ids = (0,)

        def batch_decode(self, rows, skip_special_tokens):
            return ["".join(chr(i - 3) for i in row) for row in rows.tolist()]

    def said(text: str, most: int) -> str:
        model = replace(tiny("blip"), tokenizer=Letters())
        network = Counted(text)
        network.config = model.network.config
        network.weight = torch.nn.Parameter(torch.zeros(1))
        (got,) = writers.generated(replace(model, network=network), {}, most, "")
        return got

    assert said("One is. Two is not", 60) == "One is. Two is not"
    assert said("One is. Two is not. Three", 20) == "One is. Two is not."
    assert said("One and nothing else", 10) == "One and no"


def test_a_context_that_is_too_short_is_told_before_anything_is_written(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"is \d+ tokens, the model takes 64, which leaves no room for 10 more: give"):
        describe(chat_model(context=64), clips=folder, frames=3, max_new_tokens=10)


@pytest.mark.parametrize(
    ("make_model", "why"),
    [
        (lambda: tiny("llama"), "has no vision tower, so it takes no pictures"),
        (lambda: tiny("clip"), "compares pictures and texts and writes no words"),
        (classifier, "names classes and writes no words"),
        (lambda: replace(captioner(), tokenizer=None), "has no tokenizer"),
    ],
)
def test_models_that_cannot_do_it_are_refused(make_model, why: str, folder: Path) -> None:
    with pytest.raises(BadInput, match=why) as error:
        describe(make_model(), clips=folder)
    assert "\n" not in str(error.value)


def test_empty_questions_are_refused_where_one_must_be_asked(folder: Path) -> None:
    for model in (chat_model(), blip_answers(), tiny("llava")):
        with pytest.raises(BadInput, match="given: an empty"):
            describe(model, clips=folder, prompt=" ")
    with pytest.raises(BadInput, match="it is asked nothing: leave out the prompt"):
        describe(encoder_decoder(), clips=folder, prompt="what?")


# Words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "taken", "left"),
    [
        ("sadness", "sadness sad sadly sadder saddest saddened", "said sand saddle"),
        ("joy", "joy joys joyful joyfully joyous", "enjoyment job"),
        ("anger", "anger angers angered angry angrily", "danger angel"),
        ("surprise", "surprise surprised surprising surprisingly surprises", "prize"),
        ("disgust", "disgust disgusted disgusting disgustedly", "gust"),
        ("fear", "fear fears feared fearful fearfully", "tear ear"),
        ("Mad", "mad madly madder madness", "made maid"),
        ("Scared", "scared scare scares scary scaring", "scar scars scarf"),
        ("Powerful", "powerful power powerfully", "powder"),
        ("excited", "excited excite exciting excitement excitedly", "exit"),
        ("frustrated", "frustrated frustration frustrating", "trust"),
        ("frustration", "frustration frustrated frustrating", "rust"),
        ("happy", "happy happily happier happiness", "happen happens"),
        ("neutral", "neutral neutrally", "natural"),
        ("begged", "begged beg begging begs", "bag"),
        ("anxiety", "anxiety anxieties", "anxious"),
        ("FURCHT", "furcht", "frucht"),
    ],
)
def test_a_word_goes_with_its_inflections_and_takes_no_other(word: str, taken: str, left: str) -> None:
    assert {w for w in taken.split() if w not in inflections(word)} == set()
    assert {w for w in left.split() if w in inflections(word)} == set()


@pytest.mark.parametrize(
    ("text", "wanted", "count"),
    [
        ("A man in a suit nods.", "A man in a suit nods.", 0),
        ("A sad man looks at an angry elephant.", "A man looks at an elephant.", 2),
        ("An angry man meets a joyful owl.", "A man meets an owl.", 2),
        ("SADLY, he nods; Joy's coat is red.", "he nods; coat is red.", 2),
        ("A sad-looking man, an angry-sad boy... Well.", "A looking man, a boy... Well.", 3),
        ("He is not angry.", "He is not.", 1),
        ("Joy. Anger! He sits.", "He sits.", 2),
        ("joy", "", 1),
        ("An hour passes with a user.", "An hour passes with a user.", 0),
    ],
)
def test_words_of_labels_are_taken_out_and_what_is_left_is_mended(text: str, wanted: str, count: int) -> None:
    words = words_of(["sadness", "joy", "not angry", "Anger"])
    assert without(text, words) == (wanted, count)
    assert without(wanted, words) == (wanted, 0)


def test_small_words_of_labels_and_other_scripts() -> None:
    assert words_of(["not the", "a", "1"]) == frozenset()
    assert without("他很生气。", words_of(["生气"])) == ("他很。", 1)
    assert without("Er ist WÜTEND.", words_of(["wütend"])) == ("Er ist.", 1)


def test_captions_are_joined_without_repeats() -> None:
    said = ["a man in a suit.", "A man  in a suit", "a man", "a man in a suit and tie", "who is it?", "", "..."]
    assert joined(said) == "a man in a suit. a man in a suit and tie. who is it?"
    assert joined([]) == joined([""]) == ""
    assert whole(' He nods.\n "Yes." He', True) == 'He nods. "Yes."' and whole("He nods. He", False) == "He nods. He"
    assert whole("他点头。他", True) == "他点头。他"  # without a blank nobody knows where a sentence ends


def test_labels_of_the_records_and_words_given_are_taken_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        writers.FrameWriter, "write", lambda self, clips: ["An angry man, sadly in a red coat"] * len(clips)
    )
    turns = [
        Turn("Hm.", "anger", clip=str(folder / "0.mp4")),
        Turn("Oh.", "sadness", clip=str(folder / "1.mp4")),
        Turn("Ah.", "", clip=str(folder / "2.mp4")),
    ]
    model = captioner()
    told = describe(model, clips=turns)
    assert [one.text for one in told] == ["A man, in a red coat."] * 3 and [one.removed for one in told] == [2] * 3
    assert "6 words of the labels were removed" in told.finding.summary
    assert told.finding.labels == ["anger", "sadness"] and told.finding.removed == 6
    assert texts(model, turns, without=("coat", "red"))[0] == "A man, in a."
    assert texts(model, turns, keep_labels=True)[0] == "An angry man, sadly in a red coat."
    assert texts(model, folder)[0] == "An angry man, sadly in a red coat."  # nobody said what the labels are
    monkeypatch.setattr(writers.FrameWriter, "write", lambda self, clips: ["Anger"] * len(clips))
    bare = describe(model, clips=turns, cache=False).records[0]
    assert (bare.text, bare.removed) == ("", 1) and bare.trouble.startswith("nothing is left without the words")
    monkeypatch.setattr(writers.FrameWriter, "write", lambda self, clips: [""] * len(clips))
    assert describe(model, clips=turns, cache=False).records[0].trouble == "the model wrote nothing"
    with pytest.warns(Note, match="the prompt names words of the labels"):
        describe(model, clips=turns, prompt="is he angry ?")


# Kept -------------------------------------------------------------------------------------------------------------


class Calls:
    """Counts the clips that a model is shown; `limit`: then it dies."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limit: int | None = None):
        self.clips, self.limit, write = 0, limit, writers.OneByOne.write

        def counted(writer, clips):
            if self.limit is not None and self.clips >= self.limit:
                raise KeyboardInterrupt
            self.clips += len(clips)
            return write(writer, clips)

        monkeypatch.setattr(writers.OneByOne, "write", counted)


def test_a_rerun_costs_nothing_and_other_settings_or_weights_do(folder: Path, monkeypatch, cache: Path) -> None:
    calls, model = Calls(monkeypatch), captioner()
    settings = {"frames": 2, "max_new_tokens": 6}
    first = describe(model, clips=folder, **settings)
    assert calls.clips == 3 and len(list(cache.glob("descriptions/*/*.json"))) == 3
    again = describe(captioner(), clips=folder, **settings, without=("word",), batch_size=1)
    assert calls.clips == 3 and again.records == first.records and again.finding.cached == 3
    assert "3 of them from the cache" in again.finding.summary and not first.finding.cached
    for changed in ({"frames": 3}, {"max_new_tokens": 7}, {"side": 32}, {"prompt": "it is"}):
        before = calls.clips
        describe(model, clips=folder, **{**settings, **changed})
        assert calls.clips == before + 3, changed
    other = captioner()
    with torch.no_grad():
        other.network.text_decoder.cls.predictions.bias[5] += 1
    for fresh in (other, replace(captioner(), processor=tf.BlipProcessor(picker(12), tokenizer()))):
        before = calls.clips
        describe(fresh, clips=folder, **settings)
        assert calls.clips == before + 3
    before = calls.clips
    assert describe(model, clips=folder, **settings, cache=False).records == first.records
    assert calls.clips == before + 3


def test_the_same_film_under_another_name_is_described_once(folder: Path, tmp_path: Path, monkeypatch) -> None:
    calls = Calls(monkeypatch)
    for name in ("b.mp4", "a.mkv"):
        shutil.copy(folder / "1.mp4", tmp_path / name)
    told = describe(captioner(), clips=tmp_path, frames=2, max_new_tokens=6)
    assert calls.clips == 1 and len({one.text for one in told}) == 1 and len(told) == 2
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(tmp_path / "b.mp4", moved / "c.mp4")
    assert describe(captioner(), clips=moved, frames=2, max_new_tokens=6).records[0].text == told.records[0].text
    assert calls.clips == 1


def test_a_run_that_was_killed_goes_on_where_it_was(folder: Path, monkeypatch, cache: Path) -> None:
    settings = {"frames": 2, "max_new_tokens": 6, "batch_size": 2}  # a clip a batch
    calls = Calls(monkeypatch, limit=2)
    with pytest.raises(KeyboardInterrupt):
        describe(captioner(), clips=folder, **settings)
    calls.limit = None
    told = describe(captioner(), clips=folder, **settings)
    assert calls.clips == 3 and told.finding.cached == 2
    whole_run = describe(captioner(), clips=folder, **settings, cache=False)
    assert told.records == whole_run.records
    for kept in cache.glob("descriptions/*/*.json"):
        kept.write_text("{}" if kept.name < "8" else "broken")
    assert describe(captioner(), clips=folder, **settings).records == whole_run.records


def test_what_decides_the_text_is_in_the_key() -> None:
    one, settings = captioner(), {"frames": 2}
    place = Kept(one, settings).folder
    assert Kept(captioner(), settings).folder == place != Kept(one, {"frames": 3}).folder
    named = replace(one, identity=replace(one.identity, source="elsewhere"))
    assert Kept(named, settings).folder == place  # a name is no difference
    one.network.generation_config.repetition_penalty = 1.3
    assert Kept(one, settings).folder != place
    assert Kept(replace(captioner(), tokenizer=tokenizer(bos=True)), settings).folder != place
    assert Kept(captioner(), settings).path("ab", 1.0, 2.5).name == "ab-1.0-2.5.json"


# Trouble ----------------------------------------------------------------------------------------------------------


def test_clips_that_cannot_be_read_get_no_description_and_are_named(folder: Path, tmp_path: Path) -> None:
    for clip in folder.iterdir():
        shutil.copy(clip, tmp_path)
    (tmp_path / "3.mp4").write_bytes(b"no film at all" * 50)
    (tmp_path / "4.webm").touch()
    with av_sound(tmp_path / "5.mkv"):
        pass
    turns = [*read(tmp_path), Turn("Gone.", "", clip=str(tmp_path / "gone.mp4")), Turn("Never filmed.", "")]
    with pytest.warns(Note, match=r"4 of 7 clips cannot be read .*: 3.mp4, 4.webm, 5.mkv, gone.mp4"):
        told = describe(captioner(), clips=turns, frames=2, max_new_tokens=6)
    assert [bool(one.text) for one in told] == [True] * 3 + [False] * 4
    reasons = ["not a clip that can be read", "the file is empty", "sound without pictures", "no such clip"]
    assert all(why in one.trouble for one, why in zip(told.records[3:], reasons, strict=True))
    assert list(told.finding.left_out) == ["3.mp4", "4.webm", "5.mkv", "gone.mp4"]
    assert "4 clips could not be read" in told.finding.summary


def av_sound(path: Path):
    import av

    out = av.open(str(path), "w")
    voice = out.add_stream("aac", rate=16000)
    heard = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
    heard.sample_rate = 16000
    out.mux(voice.encode(heard))
    out.mux(voice.encode())
    return out


def test_when_nothing_can_be_read_that_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "1.mp4").touch()
    with pytest.raises(BadInput, match=r"none of 2 clips can be read; the first: .*1.mp4: the file is empty"):
        describe(captioner(), clips=[tmp_path / "1.mp4", tmp_path / "2.mp4"])
    for nothing in ([], [Turn("Hm.", "joy")], [LabelledText("a", "b")]):
        with pytest.raises(BadInput, match=r"no clips given|none of 1 records names a clip"):
            describe(captioner(), clips=nothing)
    with pytest.raises(BadInput, match="no such file"):
        describe(captioner(), clips=str(tmp_path / "nowhere"))


def test_a_broken_off_clip_is_described_and_its_trouble_told(folder: Path, tmp_path: Path) -> None:
    noise = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8) for i in range(30)]
    path = film(tmp_path / "mpeg4.mkv", noise)
    path.write_bytes(path.read_bytes()[:-60_000])
    told = describe(captioner(), clips=tmp_path, frames=2, max_new_tokens=6)
    assert told.records[0].text and "breaks off at" in told.records[0].trouble
    assert ["mpeg4.mkv", told.records[0].trouble] in told.finding.tables()[2].rows


# Files and turns --------------------------------------------------------------------------------------------------


def test_descriptions_are_written_and_read_back_wherever_they_are_moved(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "a" / "clips")
    told = describe(captioner(), clips=tmp_path / "a" / "clips", frames=2, max_new_tokens=6)
    path = told.save(tmp_path / "a" / "descriptions.jsonl")
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [row["clip"] for row in rows] == ["clips/0.mp4", "clips/1.mp4", "clips/2.mp4"]
    assert set(rows[0]) == {"clip", "text", "times", "seconds", "scenes", "removed", "sha256"}
    assert read_descriptions(path) == [
        replace(one, times=tuple(round(t, 3) for t in one.times), seconds=round(one.seconds, 3)) for one in told
    ]
    with pytest.raises(BadInput, match="is there already: give another name, or force"):
        told.save(path)
    told.save(path, force=True)
    with pytest.raises(BadInput, match="is a folder: give the name of a file"):
        told.save(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    turns = [Turn(f"{i}", "", clip=str(tmp_path / "b" / "clips" / f"{i}.mp4"), number=i) for i in range(3)]
    joined_again = described(turns, tmp_path / "b" / "descriptions.jsonl")
    assert [turn.about for turn in joined_again] == [one.text for one in told]
    outside = write_descriptions(tmp_path / "c" / "d.jsonl", told.records[:1])
    assert json.loads(outside.read_text())["clip"] == str(tmp_path / "a" / "clips" / "0.mp4")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "no descriptions in it"),
        ("{", "line 1: not valid JSON"),
        ('{"text": "a man"}', "line 1: an object with 'clip'"),
        ('["a.mp4"]', "line 1: an object with 'clip'"),
        ('{"clip": "a.mp4", "text": 3}', "line 1: 'text' must be what is to be seen"),
        ('{"clip": "a.mp4", "text": "a man", "times": ["x"]}', "line 1: could not convert"),
    ],
)
def test_files_of_another_form_are_refused(line: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(BadInput, match=why):
        read_descriptions(path)
    with pytest.raises(BadInput, match="no such file; wanted descriptions of clips"):
        read_descriptions(tmp_path / "none.jsonl")


def test_turns_are_joined_by_path_then_by_content_and_the_rest_is_told_of(folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "other-name.mp4"
    shutil.copy(folder / "1.mp4", copied)
    told = describe(captioner(), clips=folder, frames=2, max_new_tokens=6).records
    silent = replace(told[2], text="")
    turns = [
        Turn("one", "joy", clip=str(folder / ".." / folder.name / "0.mp4"), about="old"),
        Turn("two", "joy", clip=str(copied)),
        Turn("three", "joy", clip=str(folder / "2.mp4"), about="seen by a person"),
        Turn("four", "joy", about="kept"),
        Turn("five", "joy", clip=str(tmp_path / "gone.mp4")),
    ]
    with pytest.warns(Note, match=r"2 of 4 turns with a clip have no description: .*2\.mp4, .*gone\.mp4"):
        out = described(turns, [*told[:2], silent])
    assert [turn.about for turn in out] == [told[0].text, told[1].text, "seen by a person", "kept", ""]
    assert [replace(turn, about="") for turn in out] == [replace(turn, about="") for turn in turns]
    with pytest.raises(BadInput, match="none of 1 turns names a clip"):
        described([Turn("four", "joy")], told)
    with pytest.raises(BadInput, match=r"none of 1 turns with a clip has a description among 2; .*the first desc"):
        described(turns[4:], told[:2])


def test_data_name_the_descriptions_of_their_clips(tmp_path: Path) -> None:
    rows = [{"dialogue": "d", "turn": i, "text": f"{i}", "label": "joy", "clip": f"{i}.mp4"} for i in range(2)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "plain.jsonl").write_text('{"text": "a", "label": "b"}\n')
    write_descriptions(
        tmp_path / "d.jsonl", [Description(str(tmp_path / f"{i}.mp4"), text=f"clip {i}") for i in range(2)]
    )
    data = load_data({"train": {"path": "train.jsonl", "about": "d.jsonl"}}, tmp_path)
    assert [turn.about for turn in data["train"]] == ["clip 0", "clip 1"]
    with pytest.raises(BadInput, match="none of 1 turns names a clip"):
        load_data({"train": {"path": "plain.jsonl", "about": "d.jsonl"}}, tmp_path)
    with pytest.raises(BadInput, match="no such file; wanted descriptions"):
        load_data({"train": {"path": "train.jsonl", "about": "gone.jsonl"}}, tmp_path)


def test_turns_that_share_a_file_show_a_stretch_of_it_each() -> None:
    own = [Turn("a", "", clip="a.mp4", fields=(("start", "00:20:57,256"), ("end", "00:21:00,049")))]
    assert views(own) == [View("a.mp4")]  # its times count from elsewhere
    shared = [
        Turn("a", "", clip="d.avi", fields=(("start", "6.29"), ("end", "8.5"))),
        Turn("b", "", clip="d.avi", fields=(("start", "0:01:00,5"), ("end", "62"))),
        Turn("c", "", clip="d.avi", fields=(("start", "9"), ("end", "7"))),
        Turn("d", "", clip="d.avi"),
        Turn("e", ""),
    ]
    assert views(shared) == [View("d.avi", 6.29, 8.5), View("d.avi", 60.5, 62.0), View("d.avi"), View("d.avi"), None]


def test_a_stretch_is_described_and_finds_its_turn(tmp_path: Path) -> None:
    path = film(tmp_path / "dialogue.avi", scenes([30, 30, 30]), kind="mpeg4.avi")
    turns = [
        Turn(f"{i}", "", "d", number=i, clip=str(path), fields=(("start", f"{3.0 * i}"), ("end", f"{3.0 * i + 3}")))
        for i in range(3)
    ]
    told = describe(captioner(), clips=turns, frames=2, max_new_tokens=8)
    assert [(one.start, one.end) for one in told] == [(0.0, 3.0), (3.0, 6.0), (6.0, 9.0)]
    assert all(one.start <= min(one.times) < max(one.times) < one.end for one in told)
    assert len({one.text for one in told}) == 3
    back = read_descriptions(told.save(tmp_path / "d.jsonl"))
    assert [turn.about for turn in described(turns, back)] == [one.text for one in told]
    assert described(turns[1:2], back)[0].about == told.records[1].text  # alone it still finds its own
    assert told.finding.clips[1].clip == "dialogue.avi 3-6 s"


def test_the_finding_is_drawn_and_comes_back_from_json(folder: Path, tmp_path: Path) -> None:
    loud = film(tmp_path / "loud.mp4", scenes([10]), sound=1.0)
    told = describe(captioner(), clips=[folder / "0.mp4", loud], frames=2, max_new_tokens=6, without=("joy",))
    text = str(told)
    assert "clips with sound" in text and "sound is left alone" in text and "0.mp4" in text
    again = Finding.from_json(told.finding.to_json())
    assert isinstance(again, DescribedFinding) and again == told.finding and again.silent == 1
    assert again.provenance["settings"]["frames"] == 2 and len(told) == 2


def test_the_command_line_describes_a_folder(folder: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    from intarsia.cli import app

    captioner().save(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    call = ["--json", "adaptation", "describe", "--model", "model", "--clips", str(folder), "--frames", "2"]
    call += ["--max-new-tokens", "6", "--without", "joy,sadness", "--out", "descriptions.jsonl"]
    assert app.run(call) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["saved"] == "descriptions.jsonl" and len(told["finding"]["clips"]) == 3
    assert len(read_descriptions("descriptions.jsonl")) == 3
    assert app.run(call) == 2 and "is there already" in capsys.readouterr().err
    assert app.run([*call[:6], "nowhere", *call[7:-1], "more.jsonl"]) == 2
    assert app.run([*call[:-4], "--prompt", "", "--force", "--out", "descriptions.jsonl"]) == 0
    capsys.readouterr()


# A model that sees ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[seeing.Move]]:
    """Clips that no model was trained on, in several formats."""
    place, made = tmp_path_factory.mktemp("moves"), seeing.worlds(32, seed=99)
    for i, move in enumerate(made):
        move.clip(place / f"{i}.{('mp4', 'mkv', 'mov', 'm4v')[i % 4]}")
    return place, made


@pytest.fixture(scope="module")
def smollm2() -> Model | str:
    """Or why it is not there. Taken before the tests put another cache in its place."""
    try:
        return ia.load("smollm2-135m")
    except IntarsiaError as error:
        return f"SmolLM2 is not available: {error}"


@pytest.mark.real
def test_a_captioner_that_was_trained_says_where_the_square_is_in_each_frame(moves) -> None:
    place, made = moves
    told = describe(seeing.captioner(), clips=place, frames=seeing.FRAMES, max_new_tokens=12)
    wanted = [joined([move.at(t / 1.6 + 0.5 / 16) for t in one.times]) for move, one in zip(made, told, strict=True)]
    right = sum(one.text == text for one, text in zip(told, wanted, strict=True))
    assert right >= 0.9 * len(made), [(one.text, text) for one, text in zip(told, wanted, strict=True)][:5]


@pytest.mark.real
def test_from_clips_through_words_to_labels_that_only_the_clips_tell(moves, smollm2, tmp_path: Path) -> None:
    """A chat model sees four frames in one turn and says which way the square moves; the turns' words say nothing."""
    place, made = moves
    model = seeing.chatter()
    seen = {"frames": seeing.FRAMES, "prompt": seeing.PROMPT, "max_new_tokens": 12}
    told = describe(model, clips=place, **seen)
    right = sum(one.text == move.words for one, move in zip(told, made, strict=True))
    assert right >= 0.9 * len(made), [(one.text, move.words) for one, move in zip(told, made, strict=True)][:5]
    # the order of the frames is what tells left from right
    backwards = [move.frame(1 - (i + 0.5) / 16) for move in made[:8] for i in range(16)]
    for i in range(8):
        film(tmp_path / f"{i}.mp4", backwards[16 * i : 16 * i + 16])
    other = {"left": "right", "right": "left", "up": "down", "down": "up"}
    turned = [replace(move, way=other[move.way]).words for move in made[:8]]
    assert sum(a.text == b for a, b in zip(describe(model, clips=tmp_path, **seen), turned, strict=True)) >= 7

    def turns(moves: list[seeing.Move], folder: Path) -> list[Turn]:
        mood = {"up": "glad", "right": "glad", "down": "sorry", "left": "sorry"}
        files = sorted(folder.iterdir(), key=lambda path: int(path.stem))
        return [
            Turn("Well, look at that!", mood[move.way], f"{folder.name}-{i}", clip=str(file))
            for i, (move, file) in enumerate(zip(moves, files, strict=True))
        ]

    def told_to(moves: list[seeing.Move], folder: Path) -> list[LabelledText]:
        known = turns(moves, folder)
        words = describe(model, clips=known, **seen)
        assert words.finding.labels == ["glad", "sorry"] and not words.finding.removed
        full = described(known, words.save(folder / ".descriptions.jsonl"))
        return [LabelledText(turn.text, turn.label, turn.group, (turn.about,)) for turn in full]

    if isinstance(smollm2, str):
        pytest.skip(smollm2)
    lessons = seeing.worlds(40, seed=5)
    (tmp_path / "lessons").mkdir()
    for i, move in enumerate(lessons):
        move.clip(tmp_path / "lessons" / f"{i}.mp4")
    tuned = label(
        smollm2, train=told_to(lessons, tmp_path / "lessons"), layers_from=0.8, trunk_cache="float16", epochs=6,
        batch_size=8, learning_rate=5e-3,
    )  # fmt: skip
    found = quality(tuned, test=told_to(made, place))
    # Without the texts every turn is the same, so that nothing beats the most frequent label.
    assert found.headline()["weighted_f1"][0][0] >= 0.9
