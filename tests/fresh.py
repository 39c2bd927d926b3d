"""A saved causal language model in a process of its own."""

import subprocess
import sys
from pathlib import Path

import torch


def assert_loads_in_a_fresh_process(network, folder: Path) -> None:
    """Saved by transformers, loaded by transformers once `intarsia.compression` is imported (which by itself imports
    neither it nor torch), the network gives the very same logits."""
    network.save_pretrained(folder)
    code = (
        "import sys, intarsia.compression; assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "from transformers import AutoModelForCausalLM; import torch\n"
        f"network = AutoModelForCausalLM.from_pretrained({str(folder)!r})\n"
        "print(network(torch.tensor([[20, 30, 40]])).logits.double().sum().item())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    with torch.no_grad():
        wanted = network(torch.tensor([[20, 30, 40]])).logits.double().sum().item()
    assert float(done.stdout.split()[-1]) == wanted
