"""Labels for the turns of dialogues (`adaptation.dialogue`).

- scripts: dialogues as tokens. tagging: the network as a labeller of turns. linear, neighbours: the two beside it;
  features: what the linear one sees. mixing: what each counts for.
- learning: fitting all of it. reading: labelling with it, and how it is kept. published: DialogueLLM's own recipe."""

from intarsia.adaptation.dialogue.technique import DialogueConfig, dialogue

__all__ = ["DialogueConfig", "dialogue"]
