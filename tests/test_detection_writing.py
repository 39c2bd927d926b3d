"""Writers and the references they write."""

import threading

import pytest
import torch

from intarsia.detection.writing import PROMPTS, LocalWriter, RemoteWriter, make_references, mixed_seed, open_writer
from intarsia.detection.writing import local as local_module
from intarsia.detection.writing.references import word_count
from intarsia.errors import BadInput, IntarsiaError
from intarsia.models import wrap
from tests.remote_help import choice, serving
from tests.tiny import tiny

KEY = "sk-a-key-nobody-sees"


@pytest.fixture(scope="module")
def llama():
    return tiny("llama")


@pytest.fixture(scope="module")
def writer(llama):
    return LocalWriter(llama)


# --- seeds -----------------------------------------------------------------------------------------------------------


def test_seeds_differ_by_every_part():
    seeds = {mixed_seed(0), mixed_seed(1), mixed_seed(0, 1), mixed_seed(0, "1"), mixed_seed(0, "a", "b")}
    assert len(seeds) == 5
    assert mixed_seed(0, "a") == mixed_seed(0, "a")
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert mixed_seed("\ud800") >= 0  # half a surrogate pair, which no encoding takes


# --- local -----------------------------------------------------------------------------------------------------------


def naive(model, prompt, most, chat):
    """One prompt at a time, the most probable token again and again."""
    tokenizer = model.tokenizer
    if chat:
        turn = [{"role": "user", "content": prompt}]
        prompt = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt)["input_ids"]
    begun = len(ids)
    with torch.no_grad():
        for _ in range(most):
            best = int(model.network(torch.tensor([ids])).logits[0, -1].argmax())
            if best == model.network.generation_config.eos_token_id:
                break
            ids = [*ids, best]
    return tokenizer.decode(ids[begun:], skip_special_tokens=True)


@pytest.mark.parametrize("chat", [True, False])
def test_the_most_probable_text_is_that_of_a_naive_loop(writer, llama, chat):
    prompts = ["a b", "a longer prompt", "x", "four words of it"]
    written = writer.write(prompts, most_tokens=9, temperature=0, chat=chat)
    assert written == [naive(llama, prompt, 9, chat) for prompt in prompts]


def test_chat_makes_a_difference_only_with_a_template(writer, llama):
    bare = wrap(llama.network, tiny("llama").tokenizer, name="bare")
    bare.tokenizer.chat_template = None
    plain = writer.write(["hello"], most_tokens=8, temperature=0, chat=False)
    assert LocalWriter(bare).write(["hello"], most_tokens=8, temperature=0, chat=True) == plain
    assert writer.write(["hello"], most_tokens=8, temperature=0, chat=True) != plain


def test_draws_are_those_of_the_network_itself(writer, llama):
    ids = torch.tensor([llama.tokenizer("once upon")["input_ids"]] * 3)
    torch.manual_seed(mixed_seed(7, 0))
    with torch.no_grad():
        whole = llama.network.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=0.8, top_p=0.9, top_k=0,
            max_new_tokens=12,
        )  # fmt: skip
    drawn = llama.tokenizer.batch_decode(whole[:, ids.shape[1] :], skip_special_tokens=True)
    found = writer.write(["once upon"] * 3, most_tokens=12, temperature=0.8, top_p=0.9, seed=7, chat=False)
    assert found == drawn


def test_equal_calls_give_equal_texts_and_equal_prompts_do_not(writer):
    asked = dict(most_tokens=12, chat=False)
    first = writer.write(["the same"] * 40, seed=3, **asked)  # three batches
    assert writer.write(["the same"] * 40, seed=3, **asked) == first
    assert writer.write(["the same"] * 40, seed=4, **asked) != first
    assert len(set(first)) > 35


def test_the_callers_random_state_stays(writer):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    writer.write(["the same"], most_tokens=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_a_models_own_settings_ask_for_does_not_apply(llama):
    plain = LocalWriter(llama).write(["a b c"] * 4, most_tokens=12, chat=False)
    other = tiny("llama")
    other.network.generation_config.update(top_k=1, repetition_penalty=3.0, temperature=0.1, do_sample=True)
    assert LocalWriter(other).write(["a b c"] * 4, most_tokens=12, chat=False) == plain


def test_a_text_ends_where_the_model_ends_it(writer, monkeypatch):
    """Batches are filled up with padding, which is no text."""
    from intarsia.sites import Generation

    ids = torch.tensor([[75, 76, 2, 80], [75, 0, 0, 0]])
    monkeypatch.setattr("intarsia.sites.generate", lambda *_, **__: Generation(ids, None))
    first, second = writer.write(["a", "b"], most_tokens=4)
    assert (len(first), len(second)) == (2, 1)


def test_the_space_between_prompt_and_continuation_is_not_lost(llama):
    class Stripping:
        """Decodes as SentencePiece does: without the space that a text begins with."""

        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def __call__(self, *args, **kwargs):
            return self.inner(*args, **kwargs)

        def decode(self, ids, **kwargs):
            return self.inner.decode(ids, **kwargs).removeprefix(" ")

    writer = LocalWriter(wrap(llama.network, Stripping(llama.tokenizer), name="stripping"))
    ids = llama.tokenizer("a b")["input_ids"]
    assert writer._text(ids[:1], ids[1:], chat=False) == " b"


def test_a_prompt_that_does_not_fit(writer):
    long = "word " * 60  # 300 tokens for a context of 128
    assert writer.write([long], most_tokens=20, temperature=0, chat=False) == writer.write(
        [long[-108:]], most_tokens=20, temperature=0, chat=False
    )
    with pytest.raises(BadInput, match="do not fit its context of 128"):
        writer.write([long], most_tokens=20)
    with pytest.raises(BadInput, match="do not fit its context of 128"):
        writer.write(["short"], most_tokens=128, chat=False)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (dict(most_tokens=0), "most_tokens is 0"),
        (dict(most_tokens=1, temperature=-1), "temperature is -1"),
        (dict(most_tokens=1, temperature=float("nan")), "temperature is nan"),
        (dict(most_tokens=1, top_p=0), "top_p is 0"),
        (dict(most_tokens=1, top_p=1.5), "top_p is 1.5"),
    ],
)
def test_settings_that_nothing_can_be_drawn_with(writer, asked, said):
    with pytest.raises(BadInput, match=said):
        writer.write(["a"], **asked)


def test_bad_writers_and_prompts(writer, llama):
    assert writer.write([], most_tokens=5) == []
    with pytest.raises(BadInput, match="a prompt is empty"):
        writer.write([""], most_tokens=5, chat=False)
    with pytest.raises(BadInput, match="no tokenizer"):
        LocalWriter(wrap(llama.network))
    with pytest.raises(BadInput, match="causal language model"):
        LocalWriter(tiny("t5"))
    refusing = wrap(llama.network, tiny("llama").tokenizer, name="refusing")
    refusing.tokenizer.chat_template = "{{ raise_exception('no lone prompts') }}"
    with pytest.raises(BadInput, match=r"refusing: .*no lone prompts"):
        LocalWriter(refusing).write(["a"], most_tokens=5)


def test_batches_are_bounded(writer, monkeypatch):
    sizes = []
    from intarsia.sites import generate

    def counted(model, rows, **kwargs):
        sizes.append(len(rows))
        return generate(model, rows, **kwargs)

    monkeypatch.setattr("intarsia.sites.generate", counted)
    writer.write(["a"] * 35, most_tokens=2)
    assert sizes == [16, 16, 3]
    monkeypatch.setattr(local_module, "TOKENS", 30)
    sizes.clear()
    writer.write(["abcdefgh"] * 4, most_tokens=2, chat=False)
    assert sizes == [3, 1]


# --- remote ----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def echo(path, body):
    if path.endswith("/chat/completions"):
        return 200, choice(f"<{body['messages'][0]['content']}>")
    return 200, {"choices": [{"text": f" and {body['prompt']}"}]}


def test_a_server_writes_in_the_order_of_the_prompts(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(echo) as server:
        writer = RemoteWriter(server.url, "org/some-model")
        prompts = [f"prompt {n}" for n in range(9)]
        assert writer.write(prompts, most_tokens=30, temperature=0.5, seed=2) == [f"<{p}>" for p in prompts]
        assert writer.name == "org/some-model"
        assert {path for path, *_ in server.asked} == {"/v1/chat/completions"}
        bodies = {body["messages"][0]["content"]: body for _, body, _ in server.asked}
        assert bodies["prompt 3"] == {
            "model": "org/some-model", "max_tokens": 30, "temperature": 0.5, "seed": mixed_seed(2, 3),
            "messages": [{"role": "user", "content": "prompt 3"}],
        }  # fmt: skip
        assert all(head["Authorization"] == f"Bearer {KEY}" for *_, head in server.asked)
        assert KEY not in repr(vars(writer))
        assert writer.write([], most_tokens=3) == []


def test_without_a_key_none_is_sent_and_another_variable_may_hold_it(monkeypatch):
    with serving(echo) as server:
        RemoteWriter(server.url, "m").write(["a"], most_tokens=3)
        assert "Authorization" not in server.asked[-1][2]
        monkeypatch.setenv("OTHER_KEY", f" {KEY}\n")
        RemoteWriter(server.url, "m", "OTHER_KEY").write(["a"], most_tokens=3)
        assert server.asked[-1][2]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("end", "path"),
    [("", "/v1"), ("/", "/v1"), ("/v1/", "/v1"), ("/api/v1", "/api/v1"), ("/v1/chat/completions", "/v1")],
)
def test_addresses(end, path):
    with serving(echo) as server:
        RemoteWriter(server.url + end, "m").write(["a"], most_tokens=3)
        assert server.asked[0][0] == f"{path}/chat/completions"


def test_a_plain_prompt_is_gone_on_with():
    with serving(echo) as server:
        assert RemoteWriter(server.url, "m").write(["text"], most_tokens=3, chat=False) == [" and text"]
        assert server.asked[0][0] == "/v1/completions"


def test_a_model_that_only_chats_is_asked_to_go_on():
    def chats(path, body):
        if path.endswith("/chat/completions"):
            return 200, choice("comes next ")
        return 404, {"error": {"message": "This is a chat model"}}

    with serving(chats) as server:
        writer = RemoteWriter(server.url, "m", at_once=1)
        assert writer.write(["text", "text\n"], most_tokens=3, chat=False) == [" comes next", "comes next"]
        assert [path for path, *_ in server.asked] == ["/v1/completions", *["/v1/chat/completions"] * 2]
        assert server.asked[1][1]["messages"][0]["content"].endswith("\n\ntext")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(status):
    answers = iter([(status, {}), (status, {}, {"Retry-After": "0.01"}), (200, choice("well"))])
    with serving(lambda *_: next(answers)) as server:
        assert RemoteWriter(server.url, "m", pause=0.001).write(["a"], most_tokens=3) == ["well"]
        assert len(server.asked) == 3


def test_waits_double_and_end(monkeypatch):
    waits = []
    monkeypatch.setattr("intarsia.models.remote.blocking.time.sleep", waits.append)
    busy = iter([{}, {"Retry-After": "7"}, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, {"Retry-After": "999"}])
    with serving(lambda *_: (429, {"error": {"message": "slow down"}}, next(busy, {}))) as server:
        with pytest.raises(IntarsiaError, match="429 slow down"):
            RemoteWriter(server.url, "m", tries=5).write(["a"], most_tokens=3)
        assert len(server.asked) == 5
    assert waits == [1, 7, 4, 60]


def one_line(error, *, secret=KEY):
    said = str(error.value)
    assert "\n" not in said and secret not in said and len(said) < 300
    return said


def test_refusals_are_one_line_without_the_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda *_: (400, {"error": {"message": f"bad\nkey {KEY}" + "x" * 999}})) as server:
        with pytest.raises(IntarsiaError, match="400 bad") as error:
            RemoteWriter(server.url, "m").write(["a"] * 3, most_tokens=3)
        one_line(error)
    with serving(lambda *_: (400, {"detail": f"no {KEY}"})) as server:
        with pytest.raises(IntarsiaError, match=r"400 no \.\.\.") as error:
            RemoteWriter(server.url, "m").write(["a"], most_tokens=3)
        one_line(error)
    with serving(lambda *_: (401, {"error": {"message": f"Incorrect API key provided: {KEY[:9]}***"}})) as server:
        with pytest.raises(IntarsiaError, match="refused the key in OPENAI_API_KEY") as error:
            RemoteWriter(server.url, "m").write(["a"], most_tokens=3)
        one_line(error, secret=KEY[:9])
        monkeypatch.delenv("OPENAI_API_KEY")
        with pytest.raises(IntarsiaError, match="wants a key: set OPENAI_API_KEY"):
            RemoteWriter(server.url, "m").write(["a"], most_tokens=3)


@pytest.mark.parametrize("key", ["a key\nin lines", "schlüssel"])
def test_a_key_that_is_none_is_not_shown(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(BadInput, match="characters that no key has") as error:
        RemoteWriter("http://127.0.0.1:9", "m").write(["a"], most_tokens=3)
    one_line(error, secret=key)


def test_a_key_does_not_follow_a_redirect(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(echo) as other:
        with serving(lambda *_: (302, {}, {"Location": f"{other.url}/v1/chat/completions"})) as server:
            with pytest.raises(IntarsiaError, match="sends elsewhere"):
                RemoteWriter(server.url, "m").write(["a"], most_tokens=3)
        assert other.asked == []


def test_fields_a_server_does_not_know_are_learned_once():
    def picky(path, body):
        for field in ("max_tokens", "seed"):
            if field in body:
                instead = " use 'max_completion_tokens'" if field == "max_tokens" else ""
                return 400, {"error": {"message": f"unknown '{field}':{instead}"}}
        return 200, choice(str(body["max_completion_tokens"]))

    with serving(picky) as server:
        writer = RemoteWriter(server.url, "m", at_once=1)
        assert writer.write(["a", "b"], most_tokens=3) == ["3", "3"]
        assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (b"<html>", "no JSON"),
        ({}, "without a choice"),
        ([], "without a choice"),
        ({"choices": []}, "without a choice"),
        ({"choices": [{"text": "a"}]}, "without a message"),
    ],
)
def test_nonsense(said, match):
    with serving(lambda *_: (200, said)) as server:
        with pytest.raises(IntarsiaError, match=match) as error:
            RemoteWriter(server.url, "m").write(["a"], most_tokens=3)
        one_line(error)


def test_messages_that_are_empty_or_come_in_parts():
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    answers = iter([choice(None), choice(parts)])
    with serving(lambda *_: (200, next(answers))) as server:
        assert RemoteWriter(server.url, "m", at_once=1).write(["a", "b"], most_tokens=3) == ["", "a b"]


def test_a_server_that_is_not_there_or_sleeps():
    with serving(echo) as server:
        gone = server.url
    with pytest.raises(IntarsiaError, match="cannot be reached") as error:
        RemoteWriter(gone, "m", pause=100).write(["a"], most_tokens=3)  # not worth waiting for
    one_line(error)
    awake = threading.Event()
    with serving(lambda *_: (awake.wait(10), (200, choice("late")))[1]) as server:
        with pytest.raises(IntarsiaError, match=r"no answer in 0\.05 s"):
            RemoteWriter(server.url, "m", timeout=0.05, tries=2, pause=0.001).write(["a"], most_tokens=3)
        assert len(server.asked) == 2
        awake.set()


@pytest.mark.parametrize("url", ["ftp://host", "http://", "https:///v1", "http://[::1", "http://h:x", "http://a b/v1"])
def test_addresses_that_are_none(url):
    with pytest.raises(BadInput, match="no server's"):
        RemoteWriter(url, "m")


def test_an_address_holds_no_key():
    with pytest.raises(BadInput, match="set OPENAI_API_KEY") as error:
        RemoteWriter(f"https://user:{KEY}@host/v1", "m")
    one_line(error)


# --- open_writer -----------------------------------------------------------------------------------------------------


def test_open_writer(tmp_path, llama):
    remote = open_writer("https://host/v1#org/model-7b")
    assert isinstance(remote, RemoteWriter) and remote.name == "org/model-7b" and remote.server == "https://host"
    with pytest.raises(BadInput, match="which model writes"):
        open_writer("http://host/v1")
    llama.save(tmp_path / "m")
    local = open_writer(str(tmp_path / "m"))
    assert isinstance(local, LocalWriter)
    assert local.write(["a"], most_tokens=5, temperature=0) == LocalWriter(llama).write(
        ["a"], most_tokens=5, temperature=0
    )
    with pytest.raises(BadInput, match="no model"):
        open_writer("nothing-of-this-name")


# --- references ------------------------------------------------------------------------------------------------------


class Scripted:
    """Writes what it was told to, and remembers what it was asked."""

    name = "scripted"

    def __init__(self, *answers):
        self.answers, self.asked, self.seeds = list(answers), [], []

    def write(self, prompts, *, most_tokens, temperature=1.0, top_p=1.0, seed=0, chat=True):
        assert chat
        self.asked.append(list(prompts))
        self.seeds.append(seed)
        return [self.answers.pop(0) if self.answers else "word " * 30 for _ in prompts]


def test_references_come_from_prompts_in_turn():
    writer = Scripted()
    found = make_references(" What is {words} art? ", writer, k=8, words=150)
    names = list(PROMPTS)
    assert len(names) >= 5
    assert [d.prompt for d in found] == (names * 2)[:8]
    assert all(d.label == "machine" and d.generator == "scripted" for d in found)
    assert {d.text for d in found} == {("word " * 30).strip()}
    assert {d.task for d in found} == {" What is {words} art? "}
    assert all("What is {words} art?" in prompt and "150" in prompt for prompt in writer.asked[0])
    assert len(set(writer.asked[0])) == len(names)
    turned = make_references("What is art?", Scripted(), k=3, seed=2)
    assert [d.prompt for d in turned] == names[2:5]


def test_equal_tasks_share_their_group():
    one, two, three = (make_references(task, Scripted(), k=1)[0].group for task in ("a", " a\n", "b"))
    assert one == two != three


def test_short_answers_are_drawn_again_and_only_they():
    writer = Scripted("", "word " * 20, "too short", "word " * 25, "still short", "word " * 22)
    found = make_references("art", writer, k=3)
    assert [word_count(d.text) for d in found] == [25, 20, 22]
    assert [len(asked) for asked in writer.asked] == [3, 2, 1]
    assert len(set(writer.seeds)) == 3
    failing = Scripted(*["no"] * 9)
    with pytest.raises(IntarsiaError, match="scripted wrote 1 words for the prompt 'plain' at the last of 3 tries"):
        make_references("art", failing, k=3)
    assert len(failing.asked) == 3


def test_prompts_of_ones_own():
    found = make_references("art", Scripted(), k=3, prompts=["On {task}", "About {task}, {words} words"])
    assert [d.prompt for d in found] == ["prompt 1", "prompt 2", "prompt 1"]
    with pytest.raises(BadInput, match=r"lacks \{task\}"):
        make_references("art", Scripted(), prompts=["On art"])
    for prompts in ([], "On {task}"):
        with pytest.raises(BadInput, match="no list of prompts"):
            make_references("art", Scripted(), prompts=prompts)


@pytest.mark.parametrize(
    ("task", "asked", "said"),
    [(" ", {}, "no task"), ("art", {"k": 0}, "k is 0"), ("art", {"words": 19}, "19 words")],
)
def test_references_of_nothing(task, asked, said):
    with pytest.raises(BadInput, match=said):
        make_references(task, Scripted(), **asked)


def test_characters_count_where_there_are_no_spaces():
    assert word_count("two words") == 2
    assert word_count("这是一个句子。") == 6
    assert word_count("これは text です") == 6
    assert word_count(" .,! ") == 0


def test_a_model_on_this_machine_writes_references(writer):
    class Spaced:
        """The bytes of a random network hold few spaces."""

        name = "spaced"

        def write(self, *args, **kwargs):
            return [" ".join(map(str, text.encode())) for text in writer.write(*args, **kwargs)]

    prompts = ["{task}", "On {task}"]
    found = make_references("art", Spaced(), k=3, prompts=prompts, words=25, seed=1)
    assert found == make_references("art", Spaced(), k=3, prompts=prompts, words=25, seed=1)
    assert found != make_references("art", Spaced(), k=3, prompts=prompts, words=25, seed=2)
