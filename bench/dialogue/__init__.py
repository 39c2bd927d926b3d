"""Labels of dialogue turns: DialogueLLM, the linear bar, and our own recipe (`python -m bench.dialogue`)."""
