"""The execute level: prompts, shapes, tools, agents, flows."""
