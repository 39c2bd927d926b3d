"""Distillation: every loss is its formula, and students come nearer to their teachers."""

import copy
import math
import random

import numpy as np
import pytest
import torch
import transformers as tf

from intarsia.compression.distillation import keeping, losses, relations, states
from intarsia.compression.distillation.fitting import check, places
from intarsia.compression.distillation.lessons import Row, stream_rows, written
from intarsia.compression.distillation.objective import Objective
from intarsia.compression.distillation.technique import DistilConfig, Distilled, distil
from intarsia.data import LabelledText, Text
from intarsia.models import wrap
from intarsia.report import Finding
from tests.failing import fails
from tests.tiny import CAUSAL, MOE, VOCAB, tiny, tokenizer

SENTENCE = "the cat sat on a mat and saw seven small birds fly over it to the green hill by noon"


def texts(count: int = 12, seed: int = 0, words: int = 12) -> list[Text]:
    chance = random.Random(seed)
    return [Text(" ".join(chance.choices(SENTENCE.split(), k=words))) for _ in range(count)]


def llama(seed: int = 0, dtype: torch.dtype = torch.float32, **settings):
    sizes = dict(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(seed)
    network = tf.LlamaForCausalLM(tf.LlamaConfig(**{**sizes, **settings})).to(dtype).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    return wrap(network, tokenizer(), name=f"llama-{seed}")


def spoilt(model, share: float = 0.5, seed: int = 1):
    """A copy with noise on every matrix of the blocks: what a cut would have cost."""
    out = model.copy()
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in out.network.named_parameters():
            if parameter.dim() > 1 and "layers" in name:
                parameter.add_(torch.randn_like(parameter) * parameter.std() * share)
    return out


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.network.state_dict().items()}


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * np.log(p / q)).sum(-1)


def pair(rows: int = 5, choices: int = 40, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, choices, generator=generator, dtype=torch.float64) * 2 for _ in range(2))


# The losses, each against its formula.


def test_divergences():
    t, s = pair()
    log_t, log_s = losses.log_probabilities(t), losses.log_probabilities(s)
    p, q = softmax(t.numpy()), softmax(s.numpy())
    naive = {
        losses.forward_kl: kl(p, q),
        losses.reverse_kl: kl(q, p),
        losses.skew_kl: kl(p, 0.1 * p + 0.9 * q),
        losses.jsd: 0.5 * kl(p, (p + q) / 2) + 0.5 * kl(q, (p + q) / 2),
    }
    for function, wanted in naive.items():
        np.testing.assert_allclose(function(log_t, log_s).numpy(), wanted, rtol=1e-10)
        assert function(log_t, log_t).abs().max() < 1e-12
    m = 0.3 * p + 0.7 * q
    np.testing.assert_allclose(losses.jsd(log_t, log_s, 0.3), 0.3 * kl(p, m) + 0.7 * kl(q, m), rtol=1e-10)
    # The limits are those of the divergence by its vanishing factor.
    assert torch.equal(losses.jsd(log_t, log_s, 0), losses.forward_kl(log_t, log_s))
    assert torch.equal(losses.jsd(log_t, log_s, 1), losses.reverse_kl(log_t, log_s))
    np.testing.assert_allclose(losses.jsd(log_t, log_s, 1e-7) / 1e-7, kl(p, q), rtol=1e-3)
    np.testing.assert_allclose(losses.jsd(log_t, log_s, 1 - 1e-7) / 1e-7, kl(q, p), rtol=1e-3)
    assert torch.equal(losses.skew_kl(log_t, log_s, 0), losses.forward_kl(log_t, log_s))
    # Where the student rules out what the teacher says, skew KL stays finite: below log(1/s).
    far = losses.log_probabilities(torch.tensor([[0.0, 500.0]]))
    assert losses.skew_kl(losses.log_probabilities(torch.tensor([[500.0, 0.0]])), far)[0] < math.log(10) + 1e-4


@pytest.mark.parametrize("loss", ["forward", "reverse", "skew", "jsd"])
def test_loss_of_logits_with_temperature_and_targets(loss):
    t, s = pair(seed=1)
    targets = torch.tensor([3, 0, -100, 7, 39])
    config = DistilConfig(loss=loss, temperature=2.0, soft=0.7, beta=0.3, skew=0.2)
    found = losses.LogitLoss.of(config)(t, s, targets)
    p, q = softmax(t.numpy() / 2), softmax(s.numpy() / 2)
    m = 0.3 * p + 0.7 * q
    soft = {
        "forward": kl(p, q),
        "reverse": kl(q, p),
        "skew": kl(p, 0.2 * p + 0.8 * q),
        "jsd": 0.3 * kl(p, m) + 0.7 * kl(q, m),
    }[loss]
    hard = np.array([-np.log(softmax(s.numpy())[i, y]) if y >= 0 else 0 for i, y in enumerate(targets.tolist())])
    np.testing.assert_allclose(found.numpy(), 0.7 * 4 * soft + 0.3 * hard, rtol=1e-10)


def test_gradients_of_kl():
    t, s = pair(seed=2)
    s.requires_grad_()
    log_t = losses.log_probabilities(t)
    p, q = softmax(t.numpy()), softmax(s.detach().numpy())
    (forward,) = torch.autograd.grad(losses.forward_kl(log_t, losses.log_probabilities(s)).sum(), s)
    np.testing.assert_allclose(forward.numpy(), q - p, rtol=1e-8, atol=1e-12)
    (reverse,) = torch.autograd.grad(losses.reverse_kl(log_t, losses.log_probabilities(s)).sum(), s)
    np.testing.assert_allclose(reverse.numpy(), q * (np.log(q / p) - kl(q, p)[:, None]), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("loss", ["forward", "skew"])
def test_kept_answers_lose_only_the_tail(loss):
    t, s = pair(seed=3)
    whole = losses.LogitLoss.of(DistilConfig(loss=loss, temperature=1.5))
    log_t = losses.log_probabilities(t, 1.5)
    p, q = softmax(t.numpy() / 1.5), softmax(s.numpy() / 1.5)
    q = q if loss == "forward" else 0.1 * p + 0.9 * q
    for top in (1, 8, 39):
        best, ids = log_t.topk(top, -1)
        rest = log_t.scatter(-1, ids, -torch.inf).logsumexp(-1)
        short = whole(losses.Kept(ids, best, rest), s)
        tail = np.ones_like(p, bool)
        np.put_along_axis(tail, ids.numpy(), False, 1)
        inner = [kl(a[u] / a[u].sum(), b[u] / b[u].sum()) for a, b, u in zip(p, q, tail, strict=True)]
        missing = 1.5**2 * np.exp(rest.numpy()) * np.array(inner)
        np.testing.assert_allclose((whole(t, s) - short).numpy(), missing, rtol=1e-7, atol=1e-12)
        if top == 39:
            np.testing.assert_allclose(whole(t, s), short, rtol=1e-9)


def test_uniform_map():
    assert states.uniform_map(4, 12) == [2, 5, 8, 11]
    assert states.uniform_map(3, 3) == [0, 1, 2]
    assert states.uniform_map(5, 7) == [0, 2, 3, 5, 6]
    assert states.uniform_map(4, 1) == [0, 0, 0, 0]


def test_hidden_losses_and_projection():
    torch.manual_seed(0)
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    a, b = torch.randn(2, 4, 6, dtype=torch.float64), torch.randn(2, 4, 6, dtype=torch.float64)
    real = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    mse = np.mean([((a[i] - b[i]) ** 2).numpy() for i in real])
    np.testing.assert_allclose(states.hidden_mse(a, b, mask), mse, rtol=1e-12)
    cosine = np.mean([1 - (a[i] @ b[i] / (a[i].norm() * b[i].norm())).item() for i in real])
    np.testing.assert_allclose(states.hidden_cosine(a, b, mask), cosine, rtol=1e-12)
    # A projection finds a linear map that is there.
    true, x = torch.randn(9, 6), torch.randn(200, 6)
    projection = states.Projection(6, 9)
    projection.begin(x, x @ true.T)
    torch.testing.assert_close(projection.weight.detach(), true, rtol=0.01, atol=0.01)
    torch.testing.assert_close(projection(x), x @ projection.weight.T)


@pytest.mark.parametrize("causal", [True, False])
def test_score_mse(causal):
    torch.manual_seed(0)
    mask = torch.tensor([[True, True, True, True], [True, True, True, False]])
    a, b = (torch.randn(2, 4, 3, 4, dtype=torch.float64) for _ in range(2))
    squares = [
        (a[i, q, h, k] - b[i, q, h, k]).item() ** 2
        for i in range(2) for q in range(4) for h in range(3) for k in range(4)
        if mask[i, q] and mask[i, k] and (k <= q or not causal)
    ]  # fmt: skip
    np.testing.assert_allclose(relations.score_mse(a, b, mask, causal), np.mean(squares), rtol=1e-12)


def test_relation_kl():
    torch.manual_seed(0)
    mask = torch.tensor([[True, True, True, True, True], [True, True, True, False, False]])
    s = torch.randn(2, 5, 2, 6, dtype=torch.float64, requires_grad=True)  # two heads of six, and three of eight
    t = torch.randn(2, 5, 3, 8, dtype=torch.float64)
    heads, found = 4, []

    def relation(x, head, n):
        flat = x.detach().numpy().reshape(n, -1)
        part = np.split(flat, heads, 1)[head]
        return softmax(part @ part.T / np.sqrt(part.shape[1]))

    for row, n in ((0, 5), (1, 3)):
        for head in range(heads):
            found += list(kl(relation(t[row, :n], head, n), relation(s[row, :n], head, n)))
    loss = relations.relation_kl(s, t, mask, heads)
    np.testing.assert_allclose(loss.item(), np.mean(found), rtol=1e-10)
    (gradient,) = torch.autograd.grad(loss, s)
    assert torch.isfinite(gradient).all() and gradient[0].abs().max() > 0 and not gradient[1, 3:].any()


def test_relation_heads():
    assert relations.relation_heads([32, 16, 48], None, 12) == 8
    assert relations.relation_heads([32, 16, 48], None, 4) == 4
    assert relations.relation_heads([576, 192], 3, 9) == 3
    fails(lambda: relations.relation_heads([576, 192], 5, 9), "relation_heads is 5", "divisor of 192")


# A step: the loss and its gradients against whole forwards.


def objective(student, teacher, rows, **settings):
    config = DistilConfig(**settings)
    kind = check(student, teacher, config)
    made = Objective(student, teacher, config, kind, *places(student, teacher, config))
    made.begin(rows)
    return made


def step(task, rows) -> float:
    """The loss of a step; gradients are left on the student."""
    total = 0.0
    for part in task.losses(rows):
        part.backward()
        total += part.item()
    return total


ROWS = [Row(tuple(10 + (7 * i * j + i) % 250 for j in range(n))) for i, n in ((1, 90), (2, 75), (3, 40))]


@pytest.mark.parametrize("family", CAUSAL)
def test_chunks_are_the_whole_loss(family):
    """Over more places than a chunk has, of rows of unequal length: value and every gradient."""
    # (the experts' kernel has no float64)
    dtype = torch.float32 if family in MOE else torch.float64
    student, teacher = (tiny(family, seed=seed, dtype=dtype) for seed in (0, 1))
    task = objective(student, teacher, ROWS, loss="skew", temperature=1.5, soft=0.6, skew=0.2)
    value = step(task, ROWS)
    found = {name: p.grad.clone() for name, p in student.network.named_parameters() if p.grad is not None}
    student.network.zero_grad()
    total, count = torch.zeros((), dtype=torch.float64), 0
    for row in ROWS:
        ids = torch.tensor([row.ids])
        s = student.network(ids, use_cache=False).logits[0, :-1].double()
        t = teacher.network(ids, use_cache=False).logits[0, :-1].detach().double()
        p, q = (t / 1.5).softmax(-1), (s / 1.5).softmax(-1)
        soft = (p * (p.log() - (0.2 * p + 0.8 * q).log())).sum(-1)
        hard = torch.nn.functional.cross_entropy(s, ids[0, 1:], reduction="none")
        total, count = total + (0.6 * 1.5**2 * soft + 0.4 * hard).sum(), count + len(s)
    (total / count).backward()
    # (rotary tables and norms work in float32 in any case)
    tolerance = dict(rtol=1e-3, atol=1e-5) if family in MOE else dict(rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(value, (total / count).item(), rtol=1e-5)
    for name, p in student.network.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(found[name], p.grad, **tolerance, msg=lambda m, name=name: f"{name}: {m}")


def test_states_of_other_widths_reach_the_student():
    student, teacher = llama(0), llama(1, hidden_size=48, num_hidden_layers=6, num_attention_heads=6)
    short = [Row(row.ids[:30]) for row in ROWS]
    mean = {}
    for hidden in ("mse", "cosine"):
        task = objective(student, teacher, short, loss="none", hidden=hidden, hidden_weight=2.0)
        assert task.projection.weight.shape == (48, 32) and [p.count("layers") for p in task.mine.hidden] == [1, 1, 1]
        assert task.other.hidden == [f"layers.{i}.resid_post" for i in (1, 3, 5)]
        mean[hidden] = step(task, short)
        parts = []
        for row in short:
            ids = torch.tensor([row.ids])
            with torch.no_grad():
                s = student.network(ids, output_hidden_states=True).hidden_states
                t = teacher.network(ids, output_hidden_states=True).hidden_states
                # (the last hidden state of transformers is normed: the two blocks below are compared by it)
                for i, j in ((1, 2), (2, 4)):
                    there = s[i][0] @ task.projection.weight.T
                    one = (there - t[j][0]).square().mean(-1) if hidden == "mse" else None
                    parts.append(one if one is not None else 1 - torch.cosine_similarity(there, t[j][0], dim=-1))
        two = objective(student, teacher, short, loss="none", hidden=hidden, hidden_layers=(0, 1))
        two.projection = task.projection
        np.testing.assert_allclose(step(two, short), torch.cat(parts).mean(), rtol=1e-4)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in [*task.projection.parameters()])
    assert student.network.model.layers[0].mlp.up_proj.weight.grad.abs().max() > 0
    task = objective(student, teacher, short, loss="none", attention="relations")
    assert task.heads == 4 and step(task, short) > 0
    fails(lambda: objective(student, teacher, short, attention="scores"), "equal heads", "4", "6", "relations")
    same = llama(1, num_hidden_layers=6)
    assert step(objective(student, same, short, loss="none", attention="scores"), short) > 0
    assert step(objective(same, same, short, loss="none", attention="scores", hidden="mse"), short) < 1e-10


# The technique.


@pytest.mark.parametrize("tune", ["lora", "all"])
def test_a_student_recovers(tune, tmp_path):
    teacher = llama()
    student = spoilt(teacher)
    before, taught = weights(student), weights(teacher)
    settings = dict(tune=tune, window=64, batch_size=4, epochs=4, check_every=20, learning_rate=5e-3)
    train, dev = texts(50), texts(5, seed=9)
    out = distil(student, DistilConfig(**settings), teacher=teacher, train=train, dev=dev, seed=3)
    finding = out.finding
    assert finding.before > 0.02 and finding.after < finding.before / 2
    # What it says of dev is what a whole forward says.
    rows = [torch.tensor([row.ids]) for row in stream_rows(student, dev, 4096, 64)]
    with torch.no_grad():
        for model, value in ((student, finding.before), (out, finding.after)):
            naive = []
            for ids in rows:
                t, s = (m.network(ids).logits[0, :-1].double().log_softmax(-1) for m in (teacher, model))
                naive.append((t.exp() * (t - s)).sum(-1))
            np.testing.assert_allclose(value, torch.cat(naive).mean(), rtol=1e-4)
    # Nothing given was touched, and what came out is a plain network that transformers loads.
    assert all(torch.equal(value, before[name]) for name, value in student.network.state_dict().items())
    assert all(torch.equal(value, taught[name]) for name, value in teacher.network.state_dict().items())
    assert [(n, type(m)) for n, m in out.network.named_modules()] == [
        (n, type(m)) for n, m in student.network.named_modules()
    ]
    moved = {n for n, value in out.network.state_dict().items() if not torch.equal(value, before[n])}
    assert "model.layers.0.mlp.up_proj.weight" in moved and "model.norm.weight" in moved
    assert ("model.embed_tokens.weight" in moved) is (tune == "all")
    out.network.save_pretrained(tmp_path)
    again = tf.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(rows[0]).logits, out.network(rows[0]).logits)
    facts = out.extras["compression.distil"]
    assert facts["dev_kl_after"] == round(finding.after, 6) and facts["steps"] == len(facts["losses"]) > 20
    assert facts["tokens"] == finding.tokens > 1000 and out.identity.changes[-1]["config"]["tune"] == tune
    assert isinstance(Finding.from_json(finding.to_json()), Distilled) and "distance" in finding.headline()


def test_it_stops_early_and_keeps_the_best():
    teacher = llama()
    student = spoilt(teacher, 0.05)
    settings = dict(tune="all", window=32, epochs=50, check_every=2, patience=2, learning_rate=0.3)
    out = distil(student, DistilConfig(**settings), teacher=teacher, train=texts(), dev=texts(4, seed=9))
    facts = out.extras["compression.distil"]
    assert facts["steps"] == 4 and facts["best_step"] == 0 and out.finding.after == out.finding.before
    same = out.network.state_dict()
    assert all(torch.equal(value, same[n]) for n, value in student.network.state_dict().items())


def test_on_policy():
    teacher = llama()
    student = spoilt(teacher)
    settings = dict(
        tune="all", loss="jsd", on_policy=0.5, prompt_tokens=8, new_tokens=12, window=48, batch_size=4, epochs=3,
        learning_rate=3e-3,
    )  # fmt: skip
    outs = [
        distil(student, DistilConfig(**settings), teacher=teacher, train=texts(), dev=texts(4, seed=9), seed=seed)
        for seed in (0, 0, 1)
    ]
    facts = [out.extras["compression.distil"] for out in outs]
    assert 0 < facts[0]["own_steps"] < facts[0]["steps"] and outs[0].finding.after < outs[0].finding.before
    assert facts[0]["losses"] == facts[1]["losses"] != facts[2]["losses"]


def test_what_the_student_writes():
    student = llama()
    rows = [Row(tuple(range(20 + i, 32 + i))) for i in range(40)]
    with torch.no_grad():
        student.network.lm_head.weight[2] *= 8  # it ends soon
    made = written(student, rows, 5, 20, seed=4)
    assert made == written(student, rows, 5, 20, seed=4) != written(student, rows, 5, 20, seed=5)
    ended = 0
    for row, given in zip(made, rows, strict=True):
        new = row.ids[5:]
        assert row.own and row.ids[:5] == given.ids[:5] and row.first == 4 and row.places == len(new)
        assert 2 not in new[:-1] and (new[-1] == 2 or len(new) == 20)
        ended += new[-1] == 2
    assert ended > 0
    # Only what it wrote is learned from, and never as if it were right.
    task = objective(student, llama(1), made, loss="reverse", soft=0.5)
    logs = []
    with torch.no_grad():
        for row in made:
            ids = torch.tensor([row.ids])
            s, t = (m.network(ids).logits[0, 4:-1].double().log_softmax(-1) for m in (student, task.teacher))
            logs.append(0.5 * (s.exp() * (s - t)).sum(-1))
    np.testing.assert_allclose(step(task, made), torch.cat(logs).mean(), rtol=1e-5)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_kept_answers_teach_as_the_teacher_does(cache, monkeypatch):
    monkeypatch.setattr(keeping, "SHARD", 100)  # several files
    teacher, student = llama(), spoilt(llama())
    rows = stream_rows(student, texts(40), None, 48)
    asked = objective(student, teacher, rows, loss="forward", temperature=1.3)
    values, tops = [step(asked, rows[i : i + 3]) for i in (0, 3, 5)], {}
    for top in (10, 100, VOCAB):
        kept = objective(student, teacher, rows, loss="forward", temperature=1.3)
        batches = [[0, 3, 1], [2], list(range(4, len(rows)))]
        kept.kept = keeping.answers(teacher, rows, batches, kept.other.final, top, 1.3, VOCAB)
        kept.teacher = None  # not asked any more
        tops[top] = [step(kept, rows[i : i + 3]) for i in (0, 3, 5)]
    np.testing.assert_allclose(tops[VOCAB], values, rtol=1e-5)
    # What fewer tokens leave out is at most the KL there, and never negative.
    for top in (10, 100):
        for i, (short, whole) in enumerate(zip(tops[top], values, strict=True)):
            most = []
            for row in rows[(0, 3, 5)[i] :][:3]:
                ids = torch.tensor([row.ids])
                with torch.no_grad():
                    t, s = ((m.network(ids).logits[0, :-1].double() / 1.3).log_softmax(-1) for m in (teacher, student))
                outside = torch.ones_like(t).scatter(-1, t.topk(top, -1).indices, 0)
                p, q = t.exp() * outside, s.exp() * outside
                rest = p.sum(-1)
                p, q = (x / x.sum(-1, keepdim=True) for x in (p, q))
                most.append(rest * torch.where(p > 0, p * (p / q).log(), 0).sum(-1))
            np.testing.assert_allclose(whole - short, 1.3**2 * torch.cat(most).mean(), rtol=1e-3, atol=1e-6)
    folders = sorted((cache / "teachers").iterdir())
    assert len(folders) == 3 and all(len(list(f.glob("*.safetensors"))) > 1 for f in folders)


def test_a_teacher_is_asked_once(cache, monkeypatch):
    teacher, student = llama(), spoilt(llama())
    settings = dict(tune="all", keep_top=64, window=48, batch_size=4, epochs=2, learning_rate=3e-3)
    first = distil(student, DistilConfig(**settings), teacher=teacher, train=texts(20))
    (folder,) = (cache / "teachers").iterdir()
    size = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    places = first.extras["compression.distil"]["tokens"] / 2
    assert 388 * places <= size < 388 * places + 400  # 64 tokens of 2 + 4 bytes, and the rest
    monkeypatch.setattr(keeping, "_ask", None)
    second = distil(student, DistilConfig(**settings), teacher=teacher, train=texts(20))
    assert all(torch.equal(value, first.network.state_dict()[n]) for n, value in second.network.state_dict().items())
    # Another teacher, another text, another temperature: asked anew.
    for change in (dict(teacher=llama(5)), dict(train=texts(20, seed=2)), dict(temperature=2.0)):
        given = {"teacher": teacher, "train": texts(20), **{k: v for k, v in change.items() if k != "temperature"}}
        config = DistilConfig(**settings, temperature=change.get("temperature", 1.0))
        with pytest.raises(TypeError):
            distil(student, config, **given)


def bert(kind, seed: int, width: int = 32, layers: int = 2, **settings):
    torch.manual_seed(seed)
    config = tf.BertConfig(
        vocab_size=VOCAB, hidden_size=width, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=4,
        max_position_embeddings=64, pad_token_id=0, initializer_range=0.2, **settings,
    )  # fmt: skip
    return wrap(kind(config).eval(), tokenizer(max_length=64), name=f"bert-{seed}")


def test_encoders_learn_relations_and_states():
    teacher, student = bert(tf.BertModel, 0, 48, 4), bert(tf.BertModel, 1)
    settings = dict(tune="all", loss="none", attention="relations", window=40, epochs=4, learning_rate=5e-3)
    train, dev = texts(40), texts(4, seed=9)
    out = distil(student, DistilConfig(**settings), teacher=teacher, train=train, dev=dev)
    assert out.finding.measure == "loss" and out.finding.after < out.finding.before / 2
    hinted = distil(student, DistilConfig(**settings, hidden="cosine"), teacher=teacher, train=train, dev=dev)
    assert hinted.finding.after < hinted.finding.before * 0.7
    assert set(hinted.network.state_dict()) == set(student.network.state_dict())


def test_classifiers():
    labels = {0: "calm", 1: "wild", 2: "odd"}
    settings = dict(num_labels=3, id2label=labels, label2id={v: k for k, v in labels.items()})
    teacher = bert(tf.BertForSequenceClassification, 0, **settings)
    student = bert(tf.BertForSequenceClassification, 1, width=16, **settings)
    records = [LabelledText(t.text, labels[i % 3]) for i, t in enumerate(texts(40))]
    config = DistilConfig(tune="all", loss="forward", temperature=2.0, soft=0.7, epochs=10, learning_rate=5e-3)
    out = distil(student, config, teacher=teacher, train=records, dev=texts(20, seed=9))
    assert out.finding.after < out.finding.before / 2
    # The first loss is the formula's, over rows of unequal length, with hidden states of another width beside it.
    rows = [Row(row.ids[: 20 + 10 * i], label=i % 3) for i, row in enumerate(stream_rows(student, texts(9), None, 60))]
    task = objective(student, teacher, rows, loss="forward", temperature=2.0, soft=0.7)
    naive = []
    for row in rows:
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            s, t = (m.network(ids).logits[0].double().numpy() for m in (student, teacher))
        naive.append(0.7 * 4 * kl(softmax(t / 2), softmax(s / 2)) - 0.3 * np.log(softmax(s)[row.label]))
    np.testing.assert_allclose(step(task, rows), np.mean(naive), rtol=1e-4)
    hinted = objective(student, teacher, rows, loss="forward", hidden="mse", temperature=2.0, soft=0.7)
    assert step(hinted, rows) > np.mean(naive) and hinted.projection.weight.grad.abs().max() > 0
    fails(lambda: distil(student, config, teacher=teacher, train=texts(4)), "label None", "soft: 1")
    other = bert(tf.BertForSequenceClassification, 0, num_labels=2)
    fails(lambda: distil(student, config, teacher=other, train=records), "same labels", "calm")


def test_another_architecture_may_teach():
    teacher, student = llama(), tiny("gpt2")
    config = DistilConfig(loss="forward", window=48, batch_size=4, epochs=3, rank=4, hidden="mse", hidden_layers=(-1,))
    out = distil(student, config, teacher=teacher, train=texts(20), dev=texts(4, seed=9))
    assert out.finding.after < out.finding.before and type(out.network) is type(student.network)
    # Longer tables than the vocabulary needs may differ between the two.
    padded = llama(vocab_size=VOCAB + 20)
    value = objective(student, padded, ROWS, loss="forward")
    assert value.choices == VOCAB and step(value, ROWS) > 0


def test_bad_input():
    from intarsia import compression

    model, teacher, train = llama(), llama(1), texts(4)

    def trying(student=model, teacher=teacher, train=train, dev=None, **settings):
        return lambda: distil(student, DistilConfig(**settings), teacher=teacher, train=train, dev=dev)

    with pytest.warns(UserWarning):
        small = compression.quantize(model, bits=4, embed="keep")
    fails(trying(small), "quantized", "distil first, quantize last")
    fails(trying(llama(dtype=torch.float16)), "float16", "load it in float32")
    fails(trying(wrap(model.network)), "no tokenizer")
    fails(trying(train=[]), "none were given")
    fails(trying(train=[Text("  ")]), "empty")
    fails(trying(loss="none"), "nothing to learn by")
    fails(trying(tiny("t5")), "encoder-decoder")
    fails(trying(tiny("clip")), "several towers")
    fails(trying(teacher=tiny("bert-encoder")), "another kind (causal)", "(encoder)")
    fails(trying(tiny("bert-encoder"), tiny("bert-encoder")), "predicts no next token", "loss: none")
    fails(trying(hidden="mse", hidden_layers=(3,)), "no block 3 (0 to 2)")
    fails(trying(on_policy=0.5, prompt_tokens=100), "context of 128")
    fails(trying(on_policy=0.5, loss="none", hidden="mse"), "on_policy wants")
    fails(trying(keep_top=64, loss="reverse"), "forward and skew", "reverse")
    fails(trying(keep_top=64, on_policy=0.5), "leave out on_policy")
    fails(trying(keep_top=64, hidden="mse"), "leave it out")
    foreign = copy.copy(teacher)
    foreign.tokenizer = tokenizer()
    foreign.tokenizer.add_tokens(["birdsong"])
    fails(trying(teacher=foreign), "other vocabularies", "1 entries differ")
    fails(trying(teacher=wrap(llama(vocab_size=310).network)), "300 tokens and its teacher 310")
    # A quantized teacher may teach.
    out = distil(model, DistilConfig(tune="all", window=32, max_steps=1), teacher=small, train=train)
    assert len(out.finding.losses) == 1
