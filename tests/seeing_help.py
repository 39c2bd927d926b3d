"""A world of coloured squares that move, clips of it, and small models that are trained to see it.

They are real models of real classes (LLaVA, BLIP), trained from nothing in half a minute: what they say of a clip that
they never saw is right or wrong, and a test can tell which."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers

from intarsia.models import Model, wrap
from tests.clips_help import film

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 40), "blue": (40, 60, 230), "yellow": (230, 210, 30)}
WAYS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
SIDE, SHOWN = 48, 24  # pixels of a clip's frames, and of what the models see
FRAMES = 4
CHAT = (
    "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} "
    "{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}<says>{% endif %}"
)
PROMPT = "what is to be seen ?"


@dataclass(frozen=True)
class Move:
    """A square of a colour that moves one way over a grey ground."""

    colour: str
    way: str
    seed: int = 0

    @property
    def words(self) -> str:
        """What a viewer of the whole clip says."""
        return f"a {self.colour} square moves {self.way} ."

    def at(self, done: float) -> str:
        """What a viewer of one frame says."""
        _, y, x, _ = self._square(done)
        places = {"left": 0.5 - x, "right": x - 0.5, "top": 0.5 - y, "bottom": y - 0.5}
        far, place = max((share, name) for name, share in places.items())
        where = "in the middle" if far < 0.13 else f"{'on' if place in ('left', 'right') else 'at'} the {place}"
        return f"a {self.colour} square {where} ."

    def _square(self, done: float) -> tuple[float, float, float, int]:
        """Half its side, and its middle from above and from the left, as shares of the picture; the ground's grey."""
        rng = random.Random(f"{self}")
        size, far, aside = rng.uniform(0.15, 0.21), rng.uniform(0.45, 0.6), rng.uniform(-0.1, 0.1)
        down, across = WAYS[self.way]
        y, x = 0.5 + down * far * (done - 0.5), 0.5 + across * far * (done - 0.5)
        return size, *((y + aside, x) if across else (y, x + aside)), rng.randint(90, 170)

    def frame(self, done: float) -> np.ndarray:
        """[SIDE, SIDE, 3] after a share of the clip."""
        size, y, x, ground = self._square(done)
        middle = np.array([y, x])[:, None, None] * SIDE
        inside = np.abs(np.mgrid[:SIDE, :SIDE] + 0.5 - middle).max(0) <= size * SIDE
        return np.where(inside[..., None], np.array(COLOURS[self.colour]), ground).astype(np.uint8)

    def clip(self, path: Path, seconds: float = 1.6, rate: int = 10) -> Path:
        """As a file."""
        count = round(seconds * rate)
        return film(path, [self.frame((i + 0.5) / count) for i in range(count)], rate=rate)


def worlds(count: int, seed: int) -> list[Move]:
    """Moves drawn at random; no two seeds give the same."""
    rng = random.Random(seed)
    kinds = list(product(COLOURS, WAYS))
    return [Move(*kinds[rng.randrange(len(kinds))], seed=rng.randrange(10**9)) for _ in range(count)]


WORDS = [
    "<pad>", "<s>", "</s>", "<unk>", "<image>", "<says>", *COLOURS, *WAYS, "a", "square", "moves", "on", "at", "in",
    "the", "middle", "top", "bottom", ".", "what", "is", "to", "be", "seen", "?",
]  # fmt: skip


@cache
def tokenizer() -> tf.PreTrainedTokenizerFast:
    """A word a token."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = tf.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>", "<says>"], model_max_length=256,
    )  # fmt: skip
    made.image_token, made.image_token_id = "<image>", WORDS.index("<image>")
    return made


def ids(text: str) -> list[int]:
    return tokenizer()(text, add_special_tokens=False)["input_ids"]


def values(frames: np.ndarray) -> torch.Tensor:
    """[n, 3, SHOWN, SHOWN] as the processor makes them of [n, SIDE, SIDE, 3], nearly."""
    small = frames.reshape(len(frames), SHOWN, SIDE // SHOWN, SHOWN, SIDE // SHOWN, 3).mean(axis=(2, 4))
    return torch.from_numpy((small / 255 - 0.5) / 0.5).permute(0, 3, 1, 2).float()


def processor() -> tf.CLIPImageProcessorPil:
    return tf.CLIPImageProcessorPil(
        size={"height": SHOWN, "width": SHOWN}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


_VISION = dict(
    hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, image_size=SHOWN, patch_size=8
)


def _fit(network: torch.nn.Module, batch_of, steps: int, rate: float = 3e-3, seed: int = 0) -> list[float]:
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.15)
    losses = []
    network.train()
    for step in range(steps):
        loss = network(**batch_of(step)).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    network.eval()
    return losses


def _salient(network: torch.nn.Module) -> None:
    """Where a patch lies is as loud as what is on it, from the first step: that halves the time to learn it."""
    for name, weight in network.named_parameters():
        if "position_embedding" in name:
            torch.nn.init.normal_(weight, 0, 0.5)


@cache
def chatter(steps: int = 300, batch: int = 32) -> Model:
    """A LLaVA that was shown four frames at a time and told which way the shape moves."""
    torch.manual_seed(0)
    config = tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(**_VISION, projection_dim=48),
        text_config=tf.LlamaConfig(
            vocab_size=len(WORDS), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=256, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        ),
        image_token_id=WORDS.index("<image>"), vision_feature_layer=-1,
    )  # fmt: skip
    network = tf.LlavaForConditionalGeneration(config)
    _salient(network)
    patches = (SHOWN // 8) ** 2
    head = [*([WORDS.index("<image>")] * patches * FRAMES), *ids(PROMPT), WORDS.index("<says>")]
    made = worlds(2000, seed=1)
    pictures = np.stack([[s.frame((i + 0.5) / FRAMES) for i in range(FRAMES)] for s in made])
    seen = values(pictures.reshape(-1, SIDE, SIDE, 3)).view(len(made), FRAMES, 3, SHOWN, SHOWN)
    told = torch.tensor([[*head, *ids(s.words), 2] for s in made])
    rng = torch.Generator().manual_seed(2)

    def batch_of(step: int) -> dict[str, torch.Tensor]:
        rows = torch.randint(len(made), (batch,), generator=rng)
        labels = told[rows].clone()
        labels[:, : len(head)] = -100
        noise = torch.randn(seen[rows].shape, generator=rng) * 0.05
        return dict(input_ids=told[rows], attention_mask=torch.ones_like(told[rows]), labels=labels,
                    pixel_values=(seen[rows] + noise).flatten(0, 1))  # fmt: skip

    chatter.losses = _fit(network, batch_of, steps)
    whole = tf.LlavaProcessor(
        processor(), tokenizer(), patch_size=8, vision_feature_select_strategy="default", chat_template=CHAT,
        num_additional_image_tokens=1,
    )  # fmt: skip
    return wrap(network, tokenizer(), whole, "made-llava")


@cache
def captioner(steps: int = 220, batch: int = 48) -> Model:
    """A BLIP that was shown single frames and told where the square is."""
    torch.manual_seed(0)
    text = dict(
        vocab_size=len(WORDS), hidden_size=48, encoder_hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64, projection_dim=48, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, sep_token_id=2, is_decoder=True, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    config = tf.BlipConfig(text_config=text, vision_config=dict(_VISION, projection_dim=48), image_text_hidden_size=48)
    network = tf.BlipForConditionalGeneration(config)
    _salient(network)
    rng = np.random.default_rng(1)
    made = [(move, float(rng.uniform())) for move in worlds(3000, seed=3)]
    seen = values(np.stack([move.frame(done) for move, done in made]))
    rows = [[1, *ids(move.at(done)), 2] for move, done in made]
    told = torch.tensor([row + [0] * (max(map(len, rows)) - len(row)) for row in rows])
    draw = torch.Generator().manual_seed(2)

    def batch_of(step: int) -> dict[str, torch.Tensor]:
        some = torch.randint(len(made), (batch,), generator=draw)
        noise = torch.randn(seen[some].shape, generator=draw) * 0.05
        labels = told[some].masked_fill(told[some] == 0, -100)
        return dict(
            input_ids=told[some], attention_mask=(told[some] > 0).long(), labels=labels, pixel_values=seen[some] + noise
        )

    captioner.losses = _fit(network, batch_of, steps)
    return wrap(network, tokenizer(), tf.BlipProcessor(processor(), tokenizer()), "made-blip")
