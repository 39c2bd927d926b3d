"""The prompting framework: from a model to an application. Its levels, a folder each:

- `base/`: one protocol over every language model, local or behind a server.
- `data/`: documents and facts, read, split, kept and found again.
- `execute/`: prompts, shapes, tools, agents, flows.
- `assistant/`: all of it put together: questions answered from a person's documents.
- `tracing/`: what was asked and answered, step by step; every level writes there.

The fourth level, service, is `intarsia.server`.

Source: Liu et al. 2023, "Prompting Frameworks for Large Language Models: A Survey" (the four levels)."""
